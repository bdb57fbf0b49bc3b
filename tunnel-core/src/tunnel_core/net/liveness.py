"""Detects dead legs, and pings the others to keep them alive.

One timer per process checks all legs each second. Any received byte counts as a sign of
life, so a ping queued behind bulk data does no harm; and the data path only counts bytes,
without reading a clock.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..protocol.frames import CloseCode
from .fair_queue import FairQueue
from .leg import Leg

BYTES_A_MESSAGE: Final = 16 * 1024  # the smallest window is acknowledged in steps of 16 KiB
# A clock that keeps running while the machine sleeps, where `time.monotonic` stops.
_WAKEFUL: Final[int | None] = getattr(
    time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC if sys.platform == "darwin" else None
)

_chance: Final = random.Random()  # its own generator, so that other users of `random` do not affect it


def slept() -> float:
    """Seconds this machine has slept, counted from an arbitrary moment: what `time.monotonic` leaves out."""
    return time.clock_gettime(_WAKEFUL) - time.monotonic() if _WAKEFUL is not None else 0.0


@dataclass(frozen=True, kw_only=True)
class LegTimes:
    """How legs are watched, in seconds.

    `carrying` and `idle`: the time between pings, and the silence after which a leg counts as dead.
    """

    tick: float = 1.0
    carrying: tuple[float, float] = (5.0, 15.0)  # three pings unanswered
    idle: tuple[float, float] = (15.0, 45.0)  # proxies cut idle connections at 55 to 60 s
    doubtful: float = 32.0  # silence, two pings and two ticks long, after which a waiting leg is given no stream
    stuck: float = 15.0  # without the peer taking any unsent byte
    standstill: float = 1.0  # a timer this late, or a machine asleep this long, counts as a standstill
    answer: float = 2.0  # for a suspected leg to answer: most round trips take a tenth
    close: float = 5.0  # for the peer to finish the close handshake or take unsent bytes


class _Watch:
    __slots__ = ("bytes_in", "bytes_moved", "bytes_taken", "heard_at", "messages", "moved_at", "pinged_at")

    def __init__(self, now: float, ping_interval: float) -> None:
        self.bytes_in = 0
        self.bytes_taken = 0
        self.bytes_moved = 0  # both ways, when messages were last counted
        self.messages = 0
        self.heard_at = now  # when the leg last brought a byte
        self.moved_at = now  # when the socket last took one, or nothing was waiting
        # A random time in the past, so that legs opened together are not all pinged in the same tick.
        self.pinged_at = now - _chance.uniform(0, ping_interval)


class LegMonitor:
    """Watches the legs of one process, and measures how late its event loop runs.

    `stood_still` is called after each standstill of this process or machine, with its length in
    seconds. Connections from before it may be dead.
    """

    def __init__(
        self,
        observe_round_trip: Callable[[float], None],
        observe_lag: Callable[[float], None],
        violated: Callable[[], None] = lambda: None,
        stood_still: Callable[[float], None] = lambda seconds: None,
        times: LegTimes = LegTimes(),
    ) -> None:
        self.times = times
        self.close_timeout = times.close
        self.queue = FairQueue()
        self.observe_round_trip = observe_round_trip
        self._observe_lag = observe_lag
        self._violated = violated
        self._stood_still = stood_still
        self._legs: dict[Leg, _Watch] = {}
        self._suspects: dict[Leg, int] = {}  # → its `bytes_in` when it was pinged on suspicion
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self._slept = slept()

    def start(self) -> None:
        self._arm(time.monotonic())

    def stop(self) -> None:
        self._due = float("inf")
        if self._timer is not None:
            self._timer.cancel()

    def watch(self, leg: Leg) -> None:
        self._legs[leg] = _Watch(time.monotonic(), self.times.carrying[0])

    def unwatch(self, leg: Leg) -> None:
        self._legs.pop(leg, None)
        self._suspects.pop(leg, None)

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
        """Seconds since the leg last brought a byte, as of the last tick."""
        watch = self._legs.get(leg)
        return time.monotonic() - watch.heard_at if watch is not None else float("inf")

    def suspect(self, *, idle_only: bool) -> None:
        """Ping the expendable legs, and drop those that do not answer in time.

        `idle_only` leaves out legs that carry a stream.
        """
        asked = {
            leg: leg.bytes_in for leg in self._legs if leg.expendable and leg.reading and (leg.idle or not idle_only)
        }
        for leg in asked:
            leg.ping()
        self._suspects |= asked
        asyncio.get_running_loop().call_later(self.times.answer, self._judge, asked)

    def suspected(self, leg: Leg) -> bool:
        """Whether the leg was pinged on suspicion and has not answered yet."""
        return self._suspects.get(leg) == leg.bytes_in

    def _judge(self, asked: dict[Leg, int]) -> None:
        if self.look():
            return  # a standstill left no time to answer; all were pinged again
        for leg, bytes_in in asked.items():
            if self._suspects.get(leg) != bytes_in:
                continue  # it is gone, or was pinged again since
            del self._suspects[leg]
            if leg.bytes_in == bytes_in:
                leg.lost(f"no sign of life within {self.times.answer:g} s, after a standstill or on another network")

    def look(self) -> bool:
        """Check for a standstill now. Returns whether there was one since the last check."""
        now, asleep = time.monotonic(), slept()
        lag = max(0.0, now - self._due)
        pause = lag + asleep - self._slept
        self._slept = asleep
        if lag > self.times.tick:  # not the peers' fault; time asleep does not count anyway
            self._due = now
            for watch in self._legs.values():
                watch.heard_at += lag
                watch.moved_at += lag
        if pause <= self.times.standstill:
            return False
        self._due = now
        self._stood_still(pause)
        return True

    def _arm(self, now: float) -> None:
        self._due = now + self.times.tick
        self._timer = asyncio.get_running_loop().call_later(self.times.tick, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        self._observe_lag(max(0.0, now - self._due))
        self.look()
        for leg, watch in tuple(self._legs.items()):
            self._check(leg, watch, now)
        self._arm(now)

    def _is_too_fast(self, leg: Leg, watch: _Watch, rate: int) -> bool:
        moved = leg.bytes_in + leg.bytes_out
        explained = (moved - watch.bytes_moved) // BYTES_A_MESSAGE
        messages = leg.messages_in - watch.messages
        watch.bytes_moved = moved
        watch.messages = leg.messages_in
        return messages > rate * self.times.tick + explained

    def _check(self, leg: Leg, watch: _Watch, now: float) -> None:
        times = self.times
        ping_after, dead_after = times.carrying if leg.carrying else times.idle
        if leg.bytes_in != watch.bytes_in or not leg.reading or leg.close_received:
            # A leg we do not read is not silent, and one whose peer has closed has nothing more to send.
            watch.bytes_in = leg.bytes_in
            watch.heard_at = now
        elif now - watch.heard_at >= dead_after - times.tick:  # bytes are noticed up to a tick late
            leg.silent = True
            leg.lost(f"silent for {dead_after:.0f} s")
            return
        if leg.max_rate is not None and self._is_too_fast(leg, watch, leg.max_rate):
            leg.violated(CloseCode.POLICY_VIOLATION, "too many control messages")
            self._violated()
            return
        unsent = leg.unsent
        taken = leg.bytes_out - unsent
        if not unsent or taken != watch.bytes_taken:
            watch.bytes_taken = taken
            watch.moved_at = now
        elif leg.must_read and now - watch.moved_at >= times.stuck:
            leg.lost(f"took nothing for {times.stuck:.0f} s")
            return
        # On a congested leg, a ping would only queue behind the unsent bytes.
        if now - watch.pinged_at >= ping_after and (leg.pings or not leg.reading) and not leg.congested:
            watch.pinged_at = now
            leg.ping()
