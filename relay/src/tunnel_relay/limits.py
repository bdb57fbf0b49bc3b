"""How much anybody may have of the relay: legs, streams, tries. Pure counting; the time is given.

A limit that is reached is answered with a status that says when to come again, and counted
under its name in `relay_refusals_total`. Each default is far above what an honest user
needs and far below what hurts (docs/security.md has the table).
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from tunnel_core.protocol.tokens import Grant, Network

from .access import Denied
from .settings import RelaySettings

REMEMBERED: Final = 10_000  # addresses whose failed logins are counted: 2 MB; the oldest go first
RETRY_AFTER: Final = 5  # seconds: what is full may have room again soon


@functools.lru_cache(maxsize=1024)
def address_key(address: str) -> str:
    """What counts as one address: IPv4 whole, of IPv6 the /64 that one subscriber has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _without_port(text: str) -> str | None:
    """The IP address in `text`, to which some proxies add a port; None if there is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


class FailedLogins:
    """Slows an address down that keeps presenting bad tokens; never bans it for ever.

    Each address may fail `burst` times; one try comes back every `refill` seconds.
    """

    def __init__(self, burst: int, refill: float) -> None:
        self._burst = burst
        self._refill = refill
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address → (tries spent, when)

    def wait(self, address: str, now: float) -> int:
        """Seconds until this address may try again; 0 if it may now."""
        missing = self._now(address, now) - (self._burst - 1)
        return 0 if missing <= 0 else 1 + int(missing * self._refill)

    def failed(self, address: str, now: float) -> None:
        """This address presented a bad token."""
        self._spent[address] = self._now(address, now) + 1, now
        self._spent.move_to_end(address)
        if len(self._spent) > REMEMBERED:
            self._spent.popitem(last=False)

    def _now(self, address: str, now: float) -> float:
        spent, then = self._spent.get(address, (0.0, now))
        return max(0.0, spent - (now - then) / self._refill)


class Limits:
    """Counts legs by token, by address and in all. What may not come in is refused by raising Denied."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._trusted: Sequence[Network] = tuple(map(ipaddress.ip_network, settings.trusted_proxy))
        self._header = settings.client_address_header.lower()
        self._legs = 0
        self._by_token: Counter[str] = Counter()
        self._by_address: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()  # client legs that carry, or wait to, by token
        self._failed = FailedLogins(settings.max_failed_logins, settings.failed_login_refill)

    def address(self, peer: str, headers: Mapping[str, str]) -> str:
        """The address that a request comes from: the peer's, or what a trusted proxy says of it."""
        if not self._is_trusted(peer):
            return peer
        # Each proxy appends whom it heard from: the last that is not one of ours is who it is.
        for said in reversed(headers.get(self._header, "").split(",")):
            if not said.strip():
                continue
            candidate = _without_port(said.strip())
            if candidate is None:
                return peer  # what is no address is nobody's
            if not self._is_trusted(candidate):
                return candidate
        return peer

    def _is_trusted(self, address: str) -> bool:
        if not self._trusted:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def check_login(self, address: str, now: float) -> None:
        """Raise Denied if this address has failed too often of late."""
        wait = self._failed.wait(address_key(address), now)
        if wait:
            raise Denied(HTTPStatus.TOO_MANY_REQUESTS, "too many bad tokens: wait", "failed-logins", retry_after=wait)

    def login_failed(self, address: str, now: float) -> None:
        self._failed.failed(address_key(address), now)

    def check_leg(self, address: str, grant: Grant | None) -> None:
        """Raise Denied if one more leg is one too many."""
        settings = self._settings
        if self._legs >= settings.max_legs:
            raise Denied(HTTPStatus.SERVICE_UNAVAILABLE, "the relay is full", "legs", retry_after=RETRY_AFTER)
        if self._by_address[address_key(address)] >= settings.max_legs_per_address:
            raise Denied(
                HTTPStatus.TOO_MANY_REQUESTS, "too many legs from this address", "legs-per-address", RETRY_AFTER
            )
        if grant is not None and self._by_token[grant.id] >= settings.max_legs_per_token:
            raise Denied(HTTPStatus.TOO_MANY_REQUESTS, "too many legs with this token", "legs-per-token", RETRY_AFTER)

    def may_stream(self, grant: Grant | None) -> bool:
        """Whether this token may have one stream more."""
        if grant is None:
            return True
        return self._streams[grant.id] < (grant.streams or self._settings.max_streams_per_token)

    def add_stream(self, grant: Grant | None) -> None:
        if grant is not None:
            self._streams[grant.id] += 1

    def remove_stream(self, grant: Grant | None) -> None:
        if grant is not None:
            _take(self._streams, grant.id)

    def add_leg(self, address: str, grant: Grant | None) -> None:
        self._legs += 1
        self._by_address[address_key(address)] += 1
        if grant is not None:
            self._by_token[grant.id] += 1

    def remove_leg(self, address: str, grant: Grant | None) -> None:
        self._legs -= 1
        _take(self._by_address, address_key(address))
        if grant is not None:
            _take(self._by_token, grant.id)


def _take(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
