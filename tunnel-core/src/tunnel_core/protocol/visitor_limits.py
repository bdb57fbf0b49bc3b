"""Limits on a gateway's visitors: connections in total, per tunnel, per address. Pure: the caller passes the time."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from .addresses import address_key, parse_ip
from .tokens import Network
from .tries import Tries

RATE_SECONDS: Final = 10.0  # seconds that `rate_per_address` covers


class Turned(enum.Enum):
    """Why a visitor is turned away. The value appears in metrics and logs."""

    CONNECTIONS = "connections"
    PER_TUNNEL = "per-tunnel"
    PER_ADDRESS = "per-address"
    RATE = "rate"
    NOT_ALLOWED = "not-allowed"


class VisitorLimits:
    """Counts visitors: each `admit` that returns None is followed by one `leave`.

    `rate_per_address` is for 10 s. `allowed` has the networks from which a tunnel may be
    visited; one that is not in it is for everybody. What is kept is bounded by `connections`
    and by the addresses that Tries remembers.
    """

    def __init__(
        self,
        *,
        connections: int,
        per_tunnel: int,
        per_address: int,
        rate_per_address: int,
        allowed: Mapping[str, Sequence[Network]] | None = None,
    ) -> None:
        self._connections = connections
        self._per_tunnel = per_tunnel
        self._per_address = per_address
        self._tries = Tries(rate_per_address, RATE_SECONDS / rate_per_address)
        self._allowed = allowed or {}
        self._now = 0
        self._of_address: Counter[str] = Counter()
        self._of_tunnel: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._now

    def admit(self, address: str, now: float) -> Turned | None:
        """Somebody connects from this IP address. Returns None to admit, else the reason not to."""
        key = address_key(address)
        if self._tries.take(key, now):
            return Turned.RATE
        if self._now >= self._connections:
            return Turned.CONNECTIONS
        if self._of_address[key] >= self._per_address:
            return Turned.PER_ADDRESS
        self._now += 1
        self._of_address[key] += 1
        return None

    def enter(self, address: str, tunnel: str) -> Turned | None:
        """An admitted visitor asks for this tunnel. Returns None and counts the visitor, else the reason to refuse."""
        networks = self._allowed.get(tunnel)
        if networks is not None:
            ip = parse_ip(address)
            if ip is None or not any(ip in network for network in networks):
                return Turned.NOT_ALLOWED
        if self._of_tunnel[tunnel] >= self._per_tunnel:
            return Turned.PER_TUNNEL
        self._of_tunnel[tunnel] += 1
        return None

    def leave(self, address: str, tunnel: str = "") -> None:
        """An admitted visitor has left. `tunnel` is the one entered, if any."""
        self._now -= 1
        _take(self._of_address, address_key(address))
        if tunnel:
            _take(self._of_tunnel, tunnel)


def _take(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
