"""Which host-agents offer which tunnel. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator


class Offers:
    """Counts the host-agents of each tunnel, by instance, for as long as they have a leg. Raw legs count as one."""

    def __init__(self) -> None:
        self._legs: dict[str, Counter[str]] = {}  # tunnel → instance → its legs

    def add(self, tunnel: str, instance: str) -> bool:
        """A host leg came in. Whether its host-agent had none before."""
        legs = self._legs.setdefault(tunnel, Counter())
        legs[instance] += 1
        return legs[instance] == 1

    def remove(self, tunnel: str, instance: str) -> bool:
        """A host leg has ended. Whether its host-agent has none any more."""
        legs = self._legs[tunnel]
        legs[instance] -= 1
        if legs[instance]:
            return False
        del legs[instance]
        if not legs:
            del self._legs[tunnel]
        return True

    def hosts(self, tunnel: str) -> int:
        """How many host-agents offer `tunnel`."""
        return len(self._legs.get(tunnel, ()))

    def __iter__(self) -> Iterator[str]:
        """The tunnels that are offered."""
        return iter(self._legs)
