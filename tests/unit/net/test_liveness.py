"""Standstills, and legs that are asked whether they live: with a clock that a test has in its hands."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tunnel_core.net import liveness
from tunnel_core.net.leg import Leg
from tunnel_core.net.liveness import LegMonitor, LegTimes


class Clock:
    """Monotonic time, and how long the machine slept."""

    now = 1000.0
    asleep = 0.0


class Watched:
    """A leg, as far as the monitor knows it."""

    pings = close_received = carrying = False
    max_rate: int | None = None
    unsent = bytes_out = 0

    def __init__(self, *, expendable: bool = True, idle: bool = True) -> None:
        self.expendable = expendable
        self.idle = idle
        self.reading = True
        self.bytes_in = 0
        self.asked = 0
        self.end = ""

    def ping(self) -> None:
        self.asked += 1

    def lost(self, reason: str) -> None:
        self.end = reason


class Setting:
    """A monitor that watches some legs."""

    def __init__(self, *legs: Watched) -> None:
        self.pauses: list[float] = []
        self.legs = legs
        self.monitor = LegMonitor(
            lambda _: None, lambda _: None, stood_still=self.pauses.append, times=LegTimes(answer=0.01)
        )
        self.monitor.start()
        for leg in legs:
            self.monitor.watch(cast("Leg", leg))

    def suspected(self) -> list[bool]:
        return [self.monitor.suspected(cast("Leg", leg)) for leg in self.legs]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(liveness, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr(liveness, "slept", lambda: made.asleep)
    return made


async def test_a_standstill_is_noticed_once(clock: Clock) -> None:
    """Whether the clock went on meanwhile (SIGSTOP, a busy machine) or not (sleep), and also by those who ask."""
    made = Setting(Watched())
    for lag, asleep, told in ((0.9, 0, []), (0, 0.9, []), (5, 0, [4.0]), (0, 60, [60.0]), (3, 60, [62.0])):
        made.pauses.clear()
        clock.now += lag
        clock.asleep += asleep
        assert made.monitor.look() == bool(told)
        assert not made.monitor.look()
        assert made.pauses == pytest.approx(told)
        made.monitor._tick()
    made.monitor.stop()
    clock.now += 100
    assert not made.monitor.look()


async def test_a_standstill_is_no_silence(clock: Clock) -> None:
    """Nobody is given up for what this process did not hear."""
    made = Setting(Watched())
    clock.now += 300
    made.monitor._tick()
    assert made.legs[0].end == ""
    assert made.monitor.silence(cast("Leg", made.legs[0])) == pytest.approx(1)
    made.monitor.stop()


async def test_legs_that_do_not_answer_are_given_up(clock: Clock) -> None:
    """And those that have brought a byte are trusted again at once."""
    alive, dead, raw, busy = Watched(), Watched(), Watched(expendable=False), Watched(idle=False)
    made = Setting(alive, dead, raw, busy)
    made.monitor.suspect(idle_only=True)
    assert [leg.asked for leg in made.legs] == [1, 1, 0, 0]
    assert made.suspected() == [True, True, False, False]
    alive.bytes_in += 1
    assert made.suspected() == [False, True, False, False]
    await asyncio.sleep(0.02)
    assert [bool(leg.end) for leg in made.legs] == [False, True, False, False]
    assert made.suspected() == [False] * 4
    made.monitor.suspect(idle_only=False)
    assert [leg.asked for leg in made.legs] == [2, 2, 0, 1]
    made.monitor.stop()


async def test_a_standstill_postpones_the_verdict_on_suspects(clock: Clock) -> None:
    """A standstill while answers are awaited: all are asked anew."""
    leg = Watched()
    made = Setting(leg)
    again: Any = made.pauses

    def ask_again(pause: float) -> None:
        again.append(pause)
        made.monitor.suspect(idle_only=True)

    made.monitor._stood_still = ask_again
    made.monitor.suspect(idle_only=True)
    clock.now += 30
    await asyncio.sleep(0.012)
    assert (made.pauses, leg.asked, leg.end) == ([29.0], 2, "")
    leg.bytes_in += 1
    await asyncio.sleep(0.02)
    assert leg.end == ""
    made.monitor.stop()


async def test_a_leg_that_is_gone_is_not_judged(clock: Clock) -> None:
    """Its end was told already."""
    leg = Watched()
    made = Setting(leg)
    made.monitor.suspect(idle_only=True)
    made.monitor.unwatch(cast("Leg", leg))
    await asyncio.sleep(0.02)
    assert leg.end == ""
    made.monitor.stop()
