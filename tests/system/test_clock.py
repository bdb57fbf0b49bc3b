"""A clock that jumps by an hour, forwards and back: the relay's, then an agent's."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from support.apps import Streams, block, close, connect, echo, exchange, serve, until
from support.peer import Peer, get
from support.system import System, bearer, token
from tunnel_core.agent import base, credentials, pool
from tunnel_core.service.settings import Secret

HOUR = 3600.0


async def all_go_on(streams: list[Streams], round_number: int) -> None:
    """Each stream carries what is its own and nobody else's, all at once."""

    async def ask(number: int) -> None:
        reader, writer = streams[number]
        question = block(50_000, round_number * 1000 + number)
        writer.write(question)
        assert await reader.readexactly(len(question)) == question

    await asyncio.gather(*map(ask, range(len(streams))))


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forwards", "back"])
async def test_live_streams_go_on(loop_factory: Any, jump: float) -> None:
    """Whichever way it jumps, and when it jumps back: nothing stops, nothing mixes."""
    async with serve(echo) as target, System() as system:
        port = await system.pair(target)
        streams = [await connect(port) for _ in range(8)]
        await all_go_on(streams, 0)
        for round_number, moved in enumerate((jump, 0.0, -jump, jump, 0.0), 1):
            system.move_clock(moved)
            await all_go_on(streams, round_number)
        for _, writer in streams:
            await close(writer)
        assert not system.events("leg lost")


async def test_a_jump_forwards_ends_what_new_streams_need(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are judged by the new time: refused while it is wrong, and good again after it."""
    monkeypatch.setattr(pool, "DENIED_RETRY", 0.05)
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        client = await system.client("mc", secret=Secret(), token=Secret(token("client", lasts=HOUR / 2)), warm=1)
        living = await connect(client.ports[0])
        await all_go_on([living], 0)
        system.move_clock(HOUR)
        answer = await get(system.relay.port, "/client/mc", bearer("client", lasts=HOUR / 2), upgrade=True)
        assert (answer.status, answer.text) == (401, "the token has expired: ask for a new one\n")
        reader, writer = await connect(client.ports[0])
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)
        await until(lambda: system.events("leg denied"))
        await all_go_on([living], 1)
        system.move_clock(0)
        await until(lambda: client.context.dialer.reachable)
        await exchange(client.ports[0], 100_000)
        await all_go_on([living], 2)
        await close(living[1])


async def test_a_jump_back_makes_an_old_token_good(loop_factory: Any) -> None:
    """By the relay's clock it is; and no more once that is right again."""
    old = bearer("client", lasts=-HOUR / 2)
    async with System() as system:
        assert (await get(system.relay.port, "/client/mc", old, upgrade=True)).status == 401
        system.move_clock(-HOUR)
        async with await Peer.dial(system.relay.port, "/client/mc", old):
            pass
        system.move_clock(0)
        assert (await get(system.relay.port, "/client/mc", old, upgrade=True)).status == 401


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forwards", "back"])
async def test_an_agent_whose_clock_jumped_comes_back(
    loop_factory: Any, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Its streams go on meanwhile; with the right time it makes tokens that are good again."""
    monkeypatch.setattr(pool, "DENIED_RETRY", 0.05)
    moved = 0.0
    monkeypatch.setattr(credentials, "time", SimpleNamespace(time=lambda: time.time() + moved))
    async with serve(echo) as target, System() as system:
        port = await system.pair(target)
        streams = [await connect(port) for _ in range(4)]
        await all_go_on(streams, 0)
        (host, client) = system.agents
        for round_number, moved in enumerate((jump, 0.0), 1):
            for agent in (host, client):
                agent.context.credentials._made.clear()  # as if the last one had run out
            await all_go_on(streams, round_number)
            if moved >= 0:
                await exchange(port, 100_000)
                await asyncio.gather(*(exchange(port, 10_000, seed) for seed in range(8)))
        for _, writer in streams:
            await close(writer)


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_an_agent_that_starts_with_a_wrong_clock(
    loop_factory: Any, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """The relay's refusal tells the time by which its tokens are good; the log names the clock."""
    monkeypatch.setattr(credentials, "time", SimpleNamespace(time=lambda: time.time() + jump))
    async with serve(echo) as target, System() as system:
        port = await system.pair(target)
        await exchange(port, 100_000)
        for agent in system.agents:
            assert not agent.failed.done()
        words = "60 min ahead of the relay's" if jump > 0 else "60 min behind the relay's"
        assert [line["clock"] for line in system.events("clock differs")] == [words, words]
        assert not system.events("relay unreachable")


async def test_the_log_warns_days_before_a_token_expires(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the relay's clock; at the start and each day, until the file has another."""
    monkeypatch.setattr(base, "DAY", 0.05)
    monkeypatch.setattr(base, "MINUTE", 0.01)
    async with System() as system:
        system.move_clock(-24 * HOUR)
        await system.client("mc", token=Secret(token("client", lasts=24 * HOUR)))
        await until(lambda: len(system.events("token ends soon")) >= 3)
        line = system.events("token ends soon")[0]
        assert (line["level"], line["left"]) == ("warning", "48 h")
        assert "--token-file" in line["hint"]
        await system.stop_agents()
        await system.client("mc", token=Secret(token("client", lasts=3 * 24 * HOUR)))
        await asyncio.sleep(0.1)
        assert {line["left"] for line in system.events("token ends soon")} == {"48 h"}
