"""Keeps legs ready, so that opening a stream costs one message instead of a handshake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from ..errors import AccessDenied, UsageError
from ..net.dialer import Dialed, Dialer
from ..protocol.frames import CloseCode
from ..service.logs import Logger
from .leg import AgentLeg

MAX_DIALS: Final = 32  # tasks that dial for one tunnel: twice what the dialer lets through at once
DENIED_RETRY: Final = 30.0  # seconds until a token that used to work is tried again
SHORT_LIFE: Final = 2.0  # seconds: an unused leg that the relay ends sooner counts as a failed dial

L = TypeVar("L", bound=AgentLeg[Any])


class LegPool(Generic[L]):
    """Dials until as many legs are `ready` as are `wanted`.

    `on_ready` is called with each new leg and may take it. `denied` is called if the relay
    will not have this agent and never had.
    """

    def __init__(
        self,
        dialer: Dialer,
        tunnel: str,
        *,
        make_leg: Callable[[Dialed], L],
        wanted: Callable[[], int],
        on_ready: Callable[[L], None],
        denied: Callable[[AccessDenied | UsageError], None],
        log: Logger,
    ) -> None:
        self._dialer = dialer
        self._tunnel = tunnel
        self._make_leg = make_leg
        self._wanted = wanted
        self._on_ready = on_ready
        self._denied = denied
        self._log = log
        self._dials: set[asyncio.Task[None]] = set()
        self._born: dict[L, float] = {}
        self._welcome = False  # the relay has accepted a leg of ours before
        self._stopped = False

    @property
    def ready(self) -> int:
        return len(self._born)

    def start(self) -> None:
        self.top_up()

    async def stop(self) -> None:
        """Stop dialing and close the ready legs."""
        self._stopped = True
        dials = tuple(self._dials)
        for task in dials:
            task.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
        for leg in tuple(self._born):
            self.remove(leg)
            leg.close(CloseCode.NORMAL)

    def top_up(self) -> None:
        """Start the dials that are missing."""
        if self._stopped:
            return
        missing = self._wanted() - len(self._born) - len(self._dials)
        for _ in range(min(missing, MAX_DIALS - len(self._dials))):
            task = asyncio.get_running_loop().create_task(self._dial())
            self._dials.add(task)
            task.add_done_callback(self._dialed)

    def newest(self) -> L | None:
        """Take the newest ready leg that is neither closing nor suspected to be dead, if any."""
        for leg in reversed(self._born):
            if leg.open and not leg.suspected:
                self.remove(leg)
                return leg
        return None

    def remove(self, leg: L) -> None:
        """`leg` was used: it is no longer ready."""
        if self._born.pop(leg, None) is not None:
            self.top_up()

    def lost(self, leg: L, reason: str) -> None:
        """`leg` ended while it was ready."""
        born = self._born.pop(leg, None)
        if born is None:
            return
        if time.monotonic() - born < SHORT_LIFE:
            self._dialer.failed(f"the relay ended a new leg: {reason}")
        self.top_up()

    def distrust(self) -> None:
        """Close all ready legs: another leg fell silent, so they may be dead too."""
        for leg in tuple(self._born):
            self.remove(leg)
            leg.abort()

    def let_go(self, which: Callable[[L], bool]) -> None:
        """Close the ready legs for which `which` is true."""
        for leg in tuple(self._born):
            if which(leg):
                self.remove(leg)
                leg.close(CloseCode.NORMAL)

    async def _dial(self) -> None:
        try:
            leg = await self._dialer.dial(self._tunnel, self._new_leg)
        except (AccessDenied, UsageError) as exc:
            if not self._welcome:
                self._denied(exc)
                return
            self._log.warning("leg denied", reason=str(exc), retry_seconds=DENIED_RETRY)
            await asyncio.sleep(DENIED_RETRY)
            return
        self._welcome = True
        if leg in self._born and leg.open:
            self._on_ready(leg)

    def _new_leg(self, dialed: Dialed) -> L:
        # Ready at once: data that came with the upgrade may already use or end it.
        leg = self._make_leg(dialed)
        self._born[leg] = time.monotonic()
        return leg

    def _dialed(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        if task.cancelled():
            return
        if task.exception() is not None:  # a bug: retry slowly
            self._dialer.failed(f"unexpected: {task.exception()}")
        self.top_up()
        task.result()  # reported by the event loop's exception handler

    def trim(self) -> None:
        """Close the oldest ready legs beyond those wanted."""
        for leg in tuple(self._born)[: max(0, len(self._born) - self._wanted())]:
            self.remove(leg)
            leg.close(CloseCode.NORMAL)
