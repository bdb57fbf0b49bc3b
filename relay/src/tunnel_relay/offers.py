"""Which host-agents offer which tunnel. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator


class Offers:
    """Counts the host-agents of each tunnel that have a leg, by instance. All raw legs count as one."""

    def __init__(self) -> None:
        self._legs: dict[str, Counter[str]] = {}  # tunnel → instance → its legs

    def add(self, tunnel: str, instance: str) -> bool:
        """Count a host leg. Returns whether it is its host-agent's first."""
        legs = self._legs.setdefault(tunnel, Counter())
        legs[instance] += 1
        return legs[instance] == 1

    def remove(self, tunnel: str, instance: str) -> bool:
        """Discount a host leg. Returns whether it was its host-agent's last."""
        legs = self._legs[tunnel]
        legs[instance] -= 1
        if legs[instance]:
            return False
        del legs[instance]
        if not legs:
            del self._legs[tunnel]
        return True

    def hosts(self, tunnel: str) -> int:
        """The number of host-agents that offer `tunnel`."""
        return len(self._legs.get(tunnel, ()))

    def __iter__(self) -> Iterator[str]:
        """The tunnels that are offered."""
        return iter(self._legs)
