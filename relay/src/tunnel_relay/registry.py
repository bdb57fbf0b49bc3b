"""Warm host legs and waiting clients, by tunnel. Pure: it chooses; pairing.py acts.

The host-agents of a tunnel are used round-robin, so that they share its streams. Of one host-agent's
legs the newest is chosen, since it is the most likely to be alive. Legs silent for longer than their
pings allow are skipped.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

L = TypeVar("L")


class _Tunnel(Generic[L]):
    __slots__ = ("clients", "hosts")

    def __init__(self) -> None:
        self.hosts: OrderedDict[str, list[L]] = OrderedDict()  # by instance; the next to choose comes first
        # By the instance they need ("" for any), each with its arrival number; oldest first.
        self.clients: dict[str, OrderedDict[L, int]] = {}

    def __bool__(self) -> bool:
        return bool(self.hosts or self.clients)


class Registry(Generic[L]):
    """`doubtful` says whether to skip a host leg for now.

    The cost of a pairing does not depend on how many clients wait.
    """

    def __init__(self, doubtful: Callable[[L], bool]) -> None:
        self._doubtful = doubtful
        self._tunnels: dict[str, _Tunnel[L]] = {}
        self._needs: dict[L, str] = {}  # waiting client → the instance that it needs, or ""
        self._came = itertools.count()

    @property
    def waiting(self) -> int:
        """Waiting clients in all tunnels."""
        return len(self._needs)

    def waiting_for_instance(self, tunnel: str, instance: str) -> int:
        """Waiting clients of `tunnel` that a leg of `instance` could serve."""
        known = self._tunnels.get(tunnel)
        return sum(len(known.clients.get(needed, ())) for needed in {"", instance}) if known is not None else 0

    def waiting_in_tunnel(self, tunnel: str) -> int:
        """Waiting clients of `tunnel`."""
        known = self._tunnels.get(tunnel)
        return sum(map(len, known.clients.values())) if known is not None else 0

    def host_legs(self, tunnel: str) -> int:
        """Warm host legs of `tunnel`."""
        known = self._tunnels.get(tunnel)
        return sum(map(len, known.hosts.values())) if known is not None else 0

    def add_host(self, leg: L, tunnel: str, instance: str) -> L | None:
        """Add a host leg. Returns the client to pair it with, or None if it must wait."""
        known = self._tunnels.setdefault(tunnel, _Tunnel())
        first = [next(iter(queue.items())) for needed in {"", instance} if (queue := known.clients.get(needed))]
        if first:
            client, _ = min(first, key=lambda item: item[1])
            self._drop_client(known, client)
            self._tidy(tunnel, known)
            return client
        known.hosts.setdefault(instance, []).append(leg)
        return None

    def add_client(self, leg: L, tunnel: str, instance: str = "") -> L | None:
        """Add a client that needs a leg of `instance`, or of any. Returns the host leg, or None if it must wait."""
        known = self._tunnels.setdefault(tunnel, _Tunnel())
        for candidate in (instance,) if instance else tuple(known.hosts):
            host = self._newest(known, candidate)
            if host is not None:
                if candidate in known.hosts:
                    known.hosts.move_to_end(candidate)
                self._tidy(tunnel, known)
                return host
        known.clients.setdefault(instance, OrderedDict())[leg] = next(self._came)
        self._needs[leg] = instance
        return None

    def remove(self, leg: L, tunnel: str, instance: str) -> None:
        """Remove a leg, whether it waits or not."""
        known = self._tunnels.get(tunnel)
        if known is None:
            return
        if leg in self._needs:
            self._drop_client(known, leg)
        legs = known.hosts.get(instance, [])
        if leg in legs:
            legs.remove(leg)
            if not legs:
                del known.hosts[instance]
        self._tidy(tunnel, known)

    def _newest(self, known: _Tunnel[L], instance: str) -> L | None:
        legs = known.hosts.get(instance, [])
        for leg in reversed(legs):
            if not self._doubtful(leg):
                legs.remove(leg)
                if not legs:
                    del known.hosts[instance]
                return leg
        return None

    def _drop_client(self, known: _Tunnel[L], leg: L) -> None:
        needed = self._needs.pop(leg)
        queue = known.clients[needed]
        del queue[leg]
        if not queue:
            del known.clients[needed]

    def _tidy(self, tunnel: str, known: _Tunnel[L]) -> None:
        if not known:
            del self._tunnels[tunnel]
