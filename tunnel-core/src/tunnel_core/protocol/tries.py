"""How often anybody may try. Pure counting; the time is given."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 10_000  # addresses whose tries are counted: 2 MB; the oldest go first


class Tries:
    """Counts what each address has tried: up to `burst` times at once, and once more every `refill` seconds."""

    def __init__(self, burst: int, refill: float) -> None:
        self._burst = burst
        self._refill = refill
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address → (tries spent, when)

    def take(self, address: str, now: float) -> int:
        """This address tries once. The seconds until it may, if that is one too many; else 0."""
        spent, then = self._spent.get(address, (0.0, now))
        spent = max(0.0, spent - (now - then) / self._refill)
        missing = spent - (self._burst - 1)
        if missing > 0:
            return 1 + int(missing * self._refill)
        self._spent[address] = spent + 1, now
        self._spent.move_to_end(address)
        if len(self._spent) > REMEMBERED:
            self._spent.popitem(last=False)
        return 0
