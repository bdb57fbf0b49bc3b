"""Notices legs that have gone silent, and keeps the others from falling silent.

One timer a process looks at all legs each second. Any received byte counts as a sign of
life, so a ping that queues behind bulk data kills nothing; and the per-byte path only
counts bytes, it reads no clock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..protocol.frames import CloseCode
from .turns import Turns

if TYPE_CHECKING:
    from .leg import Leg

TICK: Final = 1.0
# Seconds: (between pings, without a received byte until a leg counts as dead)
CARRYING: Final = (5.0, 15.0)  # three pings unanswered
IDLE: Final = (15.0, 45.0)  # proxies cut idle connections at 55 to 60 s
# A waiting leg that did not even answer this long is better not given a stream.
DOUBTFUL: Final = 2 * IDLE[0] + 2 * TICK
BYTES_A_MESSAGE: Final = 16 * 1024  # the smallest window is acknowledged in steps of 16 KiB
STUCK: Final = 15.0  # seconds without any progress of what waits for the socket

_chance: Final = random.Random()  # of its own: nothing here depends on what else draws


class _Watch:
    __slots__ = ("bytes_in", "carried", "heard", "messages", "moved", "pinged", "sent")

    def __init__(self, now: float) -> None:
        self.bytes_in = 0
        self.sent = 0
        self.messages = 0
        self.carried = 0
        self.heard = now  # when the leg last brought a byte
        self.moved = now  # when the socket last took one, or nothing was waiting
        # As if at some time before: legs that came together are not all pinged in the same tick.
        self.pinged = now - _chance.uniform(0, CARRYING[0])


class LegMonitor:
    """Watches the legs of one process, and measures how late its event loop runs."""

    def __init__(
        self,
        observe_round_trip: Callable[[float], None],
        observe_lag: Callable[[float], None],
        violated: Callable[[], None] = lambda: None,
    ) -> None:
        self.turns = Turns()  # of those among its legs that bring many tiny frames
        self.observe_round_trip = observe_round_trip
        self._observe_lag = observe_lag
        self._violated = violated
        self._legs: dict[Leg, _Watch] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        self._arm(time.monotonic())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def watch(self, leg: Leg) -> None:
        self._legs[leg] = _Watch(time.monotonic())

    def unwatch(self, leg: Leg) -> None:
        self._legs.pop(leg, None)

    async def close_all(self, code: int, reason: str, patience: float) -> None:
        """Close all legs, and abort those that are still there after `patience` seconds."""
        for leg in tuple(self._legs):
            leg.close(code, reason)
        deadline = time.monotonic() + patience
        while self._legs and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for leg in tuple(self._legs):
            leg.abort()

    def silence(self, leg: Leg) -> float:
        """Seconds since the leg last brought a byte, as far as the last tick knows."""
        watch = self._legs.get(leg)
        return time.monotonic() - watch.heard if watch is not None else float("inf")

    def _arm(self, now: float) -> None:
        self._due = now + TICK
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        lag = max(0.0, now - self._due)
        self._observe_lag(lag)
        for leg, watch in tuple(self._legs.items()):
            if lag > TICK:  # this process stood still (a closed lid, SIGSTOP): no fault of the peers
                watch.heard += lag
                watch.moved += lag
            self._check(leg, watch, now)
        self._arm(now)

    def _is_too_fast(self, leg: Leg, watch: _Watch, rate: int) -> bool:
        carried = leg.bytes_in + leg.bytes_out
        explained = (carried - watch.carried) // BYTES_A_MESSAGE
        messages = leg.messages_in - watch.messages
        watch.carried = carried
        watch.messages = leg.messages_in
        return messages > rate * TICK + explained

    def _check(self, leg: Leg, watch: _Watch, now: float) -> None:
        ping_after, dead_after = CARRYING if leg.carrying else IDLE
        if leg.bytes_in != watch.bytes_in or not leg.reading or leg.close_received:
            # Who does not listen cannot hear: a paused leg is not silent, and one whose peer
            # has closed has nothing more to say.
            watch.bytes_in = leg.bytes_in
            watch.heard = now
        elif now - watch.heard >= dead_after - TICK:  # heard up to a tick before it was noted
            leg.silent = True
            leg.lost(f"silent for {dead_after:.0f} s")
            return
        if leg.max_rate is not None and self._is_too_fast(leg, watch, leg.max_rate):
            leg.violated(CloseCode.POLICY_VIOLATION, "too many control messages")
            self._violated()
            return
        unsent = leg.unsent
        taken = leg.bytes_out - unsent
        if not unsent or taken != watch.sent:
            watch.sent = taken
            watch.moved = now
        elif leg.must_read and now - watch.moved >= STUCK:
            leg.lost(f"took nothing for {STUCK:.0f} s")
            return
        if now - watch.pinged >= ping_after and (leg.pings or not leg.reading):
            watch.pinged = now
            leg.ping()
