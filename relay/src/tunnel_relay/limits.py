"""The relay's limits: legs, streams, tries, memory. Pure counting; the caller passes the time.

Hitting a limit is answered with a status that says when to retry, and counted
under its name in `relay_refusals_total`. Each default is far above what an honest user
needs and far below what hurts (table in docs/security.md).
"""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import Final

from tunnel_core.protocol.addresses import address_key
from tunnel_core.protocol.tokens import Grant
from tunnel_core.protocol.tries import Tries

from .access import Denied
from .settings import RelaySettings

RETRY_AFTER: Final = 5  # seconds: there may be room again soon
SPARE_RESUMES: Final = 8  # silently dead legs count until noticed, and a token may have few streams
SHARES: Final = 4  # one owner gets at most a quarter of the waiting memory: early data of 250 streams, by default


class Limits:
    """Counts legs by token, by address and in total. Raises Denied for a leg beyond a limit."""

    def __init__(self, settings: RelaySettings, retry_after: int = RETRY_AFTER) -> None:
        self._settings = settings
        self._retry_after = retry_after
        self._legs = 0
        self._by_token: Counter[str] = Counter()
        self._by_address: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()  # client legs that carry a stream or wait to, by token
        self._held = 0  # bytes held for legs that wait to be paired
        self._held_by: Counter[str] = Counter()
        self._failed = Tries(settings.max_failed_logins, settings.failed_login_refill)

    def login_failed(self, address: str, now: float) -> int:
        """Count a bad token from this address. Returns the seconds to wait if there were too many, else 0.

        Valid tokens are never refused for this.
        """
        return self._failed.take(address_key(address), now)

    def check_leg(self, address: str, grant: Grant | None) -> None:
        """Raise Denied if another leg would exceed a limit."""
        settings = self._settings
        if self._legs >= settings.max_legs:
            raise Denied(HTTPStatus.SERVICE_UNAVAILABLE, "the relay is full", "legs", self._retry_after)
        if self._by_address[address_key(address)] >= settings.max_legs_per_address:
            raise Denied(
                HTTPStatus.TOO_MANY_REQUESTS, "too many legs from this address", "legs-per-address", self._retry_after
            )
        if grant is not None and self._by_token[grant.id] >= settings.max_legs_per_token:
            raise Denied(
                HTTPStatus.TOO_MANY_REQUESTS, "too many legs with this token", "legs-per-token", self._retry_after
            )

    def may_open(self, grant: Grant | None) -> bool:
        """Whether this token may have another stream."""
        return grant is None or self._streams[grant.id] < self._streams_of(grant)

    def may_resume(self, grant: Grant | None) -> bool:
        """Whether this token may have another resuming leg. A moving stream briefly has two legs."""
        return grant is None or self._streams[grant.id] < 2 * self._streams_of(grant) + SPARE_RESUMES

    def _streams_of(self, grant: Grant) -> int:
        return grant.streams or self._settings.max_streams_per_token

    def add_stream(self, grant: Grant | None) -> None:
        if grant is not None:
            self._streams[grant.id] += 1

    def remove_stream(self, grant: Grant | None) -> None:
        if grant is not None:
            _take(self._streams, grant.id)

    def hold(self, owner: str, size: int) -> bool:
        """Count `size` bytes held for a leg of `owner`. Returns False, without counting, if that is too much."""
        most = self._settings.max_waiting_memory
        if self._held + size > most or self._held_by[owner] + size > most // SHARES:
            return False
        self._held += size
        self._held_by[owner] += size
        return True

    def let_go(self, owner: str, size: int) -> None:
        """Discount `size` bytes that `hold` counted."""
        if size:
            self._held -= size
            _take(self._held_by, owner, size)

    def add_leg(self, address: str, grant: Grant | None) -> None:
        self._legs += 1
        self._by_address[address_key(address)] += 1
        if grant is not None:
            self._by_token[grant.id] += 1

    def host_paired(self, address: str, grant: Grant | None) -> None:
        """A host leg was paired: from now on it counts only in total. The client's leg counts instead.

        Otherwise clients could exhaust the limits of their host.
        """
        _take(self._by_address, address_key(address))
        if grant is not None:
            _take(self._by_token, grant.id)

    def remove_leg(self, address: str, grant: Grant | None, *, paired_host: bool = False) -> None:
        """A leg is gone; `paired_host` if `host_paired` was called for it."""
        self._legs -= 1
        if not paired_host:
            self.host_paired(address, grant)


def owner(grant: Grant | None, address: str) -> str:
    """The key that a leg counts under: its token's id, or its address with --auth none."""
    return grant.id if grant is not None else address_key(address)


def _take(counts: Counter[str], key: str, count: int = 1) -> None:
    counts[key] -= count
    if not counts[key]:
        del counts[key]
