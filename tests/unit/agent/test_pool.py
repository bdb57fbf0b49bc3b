"""Legs kept ready, with a dialer that a test has in its hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from tunnel_core.agent import pool
from tunnel_core.agent.pool import MAX_DIALS, LegPool
from tunnel_core.errors import AccessDenied, TunnelError
from tunnel_core.net.dialer import Dialed, Dialer
from tunnel_core.service import logs

NOTHING = Dialed("", None, "")


class Leg:
    """A leg, as far as a pool knows it."""

    def __init__(self, dialed: Dialed) -> None:
        self.ended = ""
        self.suspected = False

    @property
    def open(self) -> bool:
        return not self.ended

    def close(self, code: int, reason: str = "") -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class Relay:
    """Answers each dial when the test says so, and with what."""

    def __init__(self) -> None:
        self.dials: list[asyncio.Future[None]] = []
        self.failures: list[str] = []

    async def dial(self, tunnel: str, make_leg: Callable[[Dialed], Leg]) -> Leg:
        answer = asyncio.get_running_loop().create_future()
        self.dials.append(answer)
        await answer
        return make_leg(NOTHING)

    def failed(self, reason: str) -> None:
        self.failures.append(reason)

    async def answers(self, error: Exception | None = None, count: int | None = None) -> None:
        """Answer the dials that are under way, or so many of them."""
        now, self.dials = self.dials[:count], self.dials[len(self.dials[:count]) :]
        for dial in now:
            if error is None:
                dial.set_result(None)
            else:
                dial.set_exception(error)
        await settle()


async def settle() -> None:
    """Let what is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


class Setting:
    """A pool on such a dialer."""

    def __init__(self, wanted: int) -> None:
        self.relay = Relay()
        self.wanted = wanted
        self.came: list[Leg] = []
        self.denied: list[TunnelError] = []
        made: Any = LegPool(
            cast("Dialer", self.relay),
            "mc",
            make_leg=cast("Any", Leg),
            wanted=lambda: self.wanted,
            on_ready=cast("Any", self.came.append),
            denied=self.denied.append,
            log=logs.get(),
        )
        self.pool: LegPool[Any] = made


async def filled(wanted: int) -> Setting:
    """A pool with as many legs as it wants."""
    made = Setting(wanted)
    made.pool.start()
    await settle()
    await made.relay.answers()
    assert made.pool.ready == wanted
    return made


async def test_dials_what_is_missing_and_no_more() -> None:
    """However often it is told; and again for each that is taken."""
    made = Setting(4)
    for _ in range(3):
        made.pool.top_up()
    await settle()
    assert len(made.relay.dials) == 4
    await made.relay.answers(count=1)
    assert (made.pool.ready, len(made.relay.dials)) == (1, 3)
    await made.relay.answers()
    assert (made.pool.ready, made.relay.dials) == (4, [])
    assert made.pool.newest() is made.came[-1]
    await settle()
    assert (made.pool.ready, len(made.relay.dials)) == (3, 1)
    await made.pool.stop()


async def test_many_are_dialed_a_few_at_a_time() -> None:
    """A sudden wish for thousands of legs makes no thousands of tasks; in the end all are there."""
    made = Setting(3000)
    made.pool.start()
    await settle()
    assert len(made.relay.dials) == MAX_DIALS
    while made.pool.ready < 3000:
        before = made.pool.ready
        await made.relay.answers()
        assert before < made.pool.ready
        assert len(made.relay.dials) <= MAX_DIALS
    assert not made.relay.dials
    await made.pool.stop()


async def test_what_is_wanted_may_change() -> None:
    """More are dialed when told; fewer are kept after a trim, and the oldest go."""
    made = await filled(3)
    made.wanted = 5
    made.pool.top_up()
    await settle()
    await made.relay.answers()
    assert made.pool.ready == 5
    made.wanted = 2
    made.pool.trim()
    assert made.pool.ready == 2
    assert [leg.ended for leg in made.came] == ["closed"] * 3 + [""] * 2
    await settle()
    assert not made.relay.dials
    await made.pool.stop()


async def test_a_leg_that_ends_is_replaced() -> None:
    """Soon after its dial that counts as a failed one, so that the next ones wait; later it does not."""
    made = await filled(2)
    made.pool.lost(made.came[0], "the relay is full")
    assert made.relay.failures == ["the relay ended a new leg: the relay is full"]
    await settle()
    await made.relay.answers()
    made.pool._born[made.came[1]] -= 60
    made.pool.lost(made.came[1], "gone")
    assert len(made.relay.failures) == 1
    await settle()
    assert len(made.relay.dials) == 1
    made.pool.lost(Leg(NOTHING), "never was ready")
    assert made.pool.ready == 1
    await made.pool.stop()


async def test_one_silent_leg_makes_all_suspect() -> None:
    """They are let go at once, and dialed anew."""
    made = await filled(3)
    made.pool.distrust()
    assert [leg.ended for leg in made.came] == ["aborted"] * 3
    await settle()
    assert (made.pool.ready, len(made.relay.dials)) == (0, 3)
    await made.pool.stop()


async def test_a_relay_that_never_let_us_in_ends_the_agent() -> None:
    """No retry: the token is wrong."""
    made = Setting(1)
    made.pool.start()
    await settle()
    wrong = AccessDenied("the token is not valid")
    await made.relay.answers(wrong)
    assert made.denied == [wrong]
    await made.pool.stop()


async def test_a_relay_that_now_refuses_the_token_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowly: a token may be renewed."""
    monkeypatch.setattr(pool, "DENIED_RETRY", 0.01)
    made = await filled(1)
    made.pool.newest()
    await settle()
    await made.relay.answers(AccessDenied("the token has expired"))
    assert made.denied == []
    async with asyncio.timeout(20):
        while not made.relay.dials:
            await asyncio.sleep(0.005)
    await made.relay.answers()
    assert made.pool.ready == 1
    await made.pool.stop()


async def test_a_bug_is_reported_and_counts_as_a_failed_dial() -> None:
    """The next dial waits in the dialer, as after any other failure."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
    made = Setting(1)
    made.pool.start()
    await settle()
    await made.relay.answers(RuntimeError("boom"))
    assert made.relay.failures == ["unexpected: boom"]
    assert told == ["RuntimeError('boom')"]
    assert len(made.relay.dials) == 1
    await made.pool.stop()


async def test_stopping_lets_all_go_and_dials_no_more() -> None:
    """Also what is under way."""
    made = await filled(2)
    made.wanted = 4
    made.pool.top_up()
    await settle()
    under_way = list(made.relay.dials)
    await made.pool.stop()
    assert [leg.ended for leg in made.came] == ["closed"] * 2
    assert all(dial.cancelled() for dial in under_way)
    made.pool.top_up()
    await settle()
    assert len(made.relay.dials) == len(under_way)
