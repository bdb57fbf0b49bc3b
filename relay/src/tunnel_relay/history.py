"""Remembers whether the bytes of current and recent client legs were passed on to a host. Pure.

A client whose leg dies before `paired` cannot know. It asks with `replaces` in its next `open`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from tunnel_core.protocol.remembered import Remembered


class ClientLeg(Protocol):
    """A v1 client leg, as the history sees it."""

    @property
    def id(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def tunnel(self) -> str: ...
    @property
    def host(self) -> str | None:
        """The instance that it was paired with (empty for a raw host), or None: nothing of it was passed on."""


class _Ended(NamedTuple):
    subject: str
    tunnel: str
    host: str | None


L = TypeVar("L", bound=ClientLeg)


class History(Generic[L]):
    """Knows all open legs, and for `seconds` up to `most` ended ones, shared fairly between subjects."""

    def __init__(self, seconds: float, most: int) -> None:
        self._open: dict[str, L] = {}
        self._ended: Remembered[_Ended] = Remembered(seconds, most)

    def began(self, leg: L) -> None:
        self._open[leg.id] = leg

    def ended(self, leg: L, now: float) -> None:
        if self._open.pop(leg.id, None) is not None:
            self._ended.put(leg.id, leg.subject, _Ended(leg.subject, leg.tunnel, leg.host), now)

    def passed_on_to(self, ids: Iterable[str], asker: L, now: float) -> str | None:
        """The instance that received bytes of these legs; "" if unknown; None if nothing was passed on.

        Legs of other subjects and tunnels than the asker's count as unknown.
        """
        answer = None
        for leg_id in ids:
            leg = self._open.get(leg_id) or self._ended.get(leg_id, now)
            if leg is None or leg is asker or (leg.subject, leg.tunnel) != (asker.subject, asker.tunnel):
                answer = answer or ""
            elif leg.host is not None:
                answer = answer or leg.host
        return answer

    def still_open(self, ids: Iterable[str]) -> Iterator[L]:
        """The legs among `ids` that are still open."""
        return (self._open[leg_id] for leg_id in ids if leg_id in self._open)
