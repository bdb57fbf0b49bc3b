"""Streams outlive their legs: cut, frozen, drained, in one process."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from client_agent import session
from support.apps import close, connect, echo, exchange, receive, reset, send, serve, until
from support.system import System
from support.wire import Wire
from tunnel_core.net.liveness import LegTimes
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.protocol.identity import resume_proof
from tunnel_core.protocol.stream import ALWAYS, MIN_READ
from tunnel_relay import pairing

MIB = 1 << 20


def is_empty(system: System) -> bool:
    """Whether no stream, and no byte of one, is kept anywhere."""
    return all(not list(agent.sessions()) and not agent.context.streams.memory.used for agent in system.agents)


@pytest.mark.parametrize("which", ["client", "host", "both"])
async def test_a_transfer_survives_cut_legs(loop_factory: Any, which: str) -> None:
    """The client's legs, the host's, or both, cut with RST again and again while bytes go both ways."""
    chance = random.Random(7)
    window = 8.0  # a cut may take the very last ack of a stream: its host then keeps it for so long
    async with (
        serve(echo) as target,
        System() as system,
        Wire(system.relay.port) as near,
        Wire(system.relay.port) as far,
    ):
        await system.host({"mc": target}, relay=f"ws://127.0.0.1:{far.port}", resume_window=window)
        client = await system.client("mc", relay=f"ws://127.0.0.1:{near.port}", resume_window=window)
        wires = {"client": [near], "host": [far], "both": [near, far]}[which]
        transfers = asyncio.gather(*(exchange(client.ports[0], 6 * MIB, seed) for seed in range(3)))
        # One that has sent bytes and was not paired yet is reset: nobody knows what became of them.
        await until(lambda: len(system.events("stream opened")) == 6)
        for _ in range(8):
            mark = near.carried + chance.randrange(2 * MIB)
            await until(lambda: near.carried > mark or transfers.done())
            assert not transfers.done(), "the transfer was over before the legs were cut"
            for wire in wires:
                wire.cut()
        await transfers
        assert system.events("stream resumed")
        await until(lambda: is_empty(system))


async def test_half_closed_streams_survive(loop_factory: Any) -> None:
    """The client has ended; the legs are cut; the server's answer still comes, whole."""

    async def answers_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()
        wire.cut()
        writer.write(request[::-1] * 10)
        await writer.drain()

    async with serve(answers_at_the_end) as target, System() as system, Wire(system.relay.port) as wire:
        port = await system.pair(target, relay=f"ws://127.0.0.1:{wire.port}")
        reader, writer = await connect(port)
        writer.write(b"the question" * 1000)
        writer.write_eof()
        assert await reader.read() == (b"the question" * 1000)[::-1] * 10
        await close(writer)
        await until(lambda: is_empty(system))


async def test_a_reset_while_the_legs_are_down_arrives_later(loop_factory: Any) -> None:
    """RST at either end is delivered by the resume."""
    seen: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ready")
        try:
            seen.set_result(await reader.read())
        except OSError as exc:
            seen.set_result(exc)

    async with serve(waits) as target, System() as system, Wire(system.relay.port) as wire:
        port = await system.pair(target, relay=f"ws://127.0.0.1:{wire.port}")
        reader, writer = await connect(port)
        assert await reader.readexactly(5) == b"ready"
        wire.shut()
        wire.cut()
        await until(lambda: system.events("leg lost"))
        reset(writer)
        await wire.open()
        assert isinstance(await seen, ConnectionResetError)
        await until(lambda: is_empty(system))


@pytest.mark.parametrize("which", ["client", "host"])
async def test_a_silent_leg_is_noticed(loop_factory: Any, which: str) -> None:
    """A cable is pulled: no RST, no FIN, nothing. The stream moves to a leg that works."""
    times = LegTimes(tick=0.05, carrying=(0.2, 0.8))
    async with serve(echo) as target, System(legs=times) as system, Wire(system.relay.port) as wire:
        through = f"ws://127.0.0.1:{wire.port}"
        await system.host({"mc": target}, relay=through if which == "host" else system.url)
        client = await system.client("mc", relay=through if which == "client" else system.url)
        reader, writer = await connect(client.ports[0])
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        wire.freeze()
        writer.write(b"after")
        wire.frozen = False  # new connections work; those of before stay silent
        assert await reader.readexactly(5) == b"after"
        assert system.events("stream resumed")
        await close(writer)


async def test_a_stream_that_is_not_resumed_in_time_is_reset(loop_factory: Any) -> None:
    """Past the window both ends break their connections, say why, and keep nothing."""
    ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ready")
        try:
            ended.set_result(await reader.read())
        except OSError as exc:
            ended.set_result(exc)

    async with serve(waits) as target, System() as system, Wire(system.relay.port) as wire:
        port = await system.pair(target, relay=f"ws://127.0.0.1:{wire.port}", resume_window=0.5)
        reader, writer = await connect(port)
        assert await reader.readexactly(5) == b"ready"
        wire.shut()
        wire.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert isinstance(await ended, ConnectionResetError)
        await until(lambda: is_empty(system))
        reasons = {(line["outcome"], line["reason"]) for line in system.events("stream closed")}
        assert reasons == {("lost", "no resume within 0.5 s")}
        await close(writer)
        await wire.open()


async def test_a_client_that_vanishes_frees_the_host(loop_factory: Any) -> None:
    """As after kill -9 of the client-agent: the target's connection ends with the resume window."""
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        host = await system.host({"mc": target}, resume_window=0.5)
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        writers = [(await connect(client.ports[0]))[1] for _ in range(5)]
        for writer in writers:
            writer.write(b"x" * 1000)
        await until(lambda: len(list(host.sessions())) == 5)
        wire.shut()
        wire.cut()
        await until(lambda: not list(host.sessions()) and not host.context.streams.memory.used)
        for writer in writers:
            reset(writer)
        await wire.open()


async def test_streams_opened_while_the_relay_is_away_wait_for_it(loop_factory: Any) -> None:
    """And carry what was sent meanwhile."""
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        port = await system.pair(target, relay=f"ws://127.0.0.1:{wire.port}")
        wire.shut()
        wire.cut()
        transfers = asyncio.gather(*(exchange(port, 200_000, seed) for seed in range(5)))
        await until(lambda: system.events("relay unreachable"))
        await wire.open()
        await transfers


async def test_draining_moves_every_stream_without_a_pause(loop_factory: Any) -> None:
    """A new relay behind the same address, then the old one is told to stop: make before break."""
    async with (
        serve(echo) as target,
        System(drain=50.0, drain_alone=50.0) as old,
        System() as system,
        Wire(old.relay.port) as wire,
    ):
        port = await system.pair(target, relay=f"ws://127.0.0.1:{wire.port}")
        streams = [await connect(port) for _ in range(30)]

        async def ask(number: int) -> None:
            reader, writer = streams[number]
            question = f"{number} asks\n".encode() * 50
            writer.write(question)
            assert await reader.readexactly(len(question)) == question

        await asyncio.gather(*map(ask, range(30)))
        wire.target = system.relay.port
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(old.relay.stop())
            while not stopping.done():
                await asyncio.gather(*map(ask, range(30)))
        await asyncio.gather(*map(ask, range(30)))
        # Both agents log each move.
        await until(lambda: len(system.events("stream resumed")) == 60)
        assert not system.events("leg lost")
        for _, writer in streams:
            await close(writer)


async def test_a_drain_without_another_relay_ends_at_once(loop_factory: Any) -> None:
    """Nobody can move, and streams that end meanwhile prove nothing: the others pause until a relay is back."""
    drain: dict[str, Any] = {"drain": 3600.0, "drain_alone": 0.3}
    async with serve(echo) as target, System(**drain) as system, Wire(system.relay.port) as wire:
        port = await system.pair(target, relay=f"ws://127.0.0.1:{wire.port}")
        reader, writer = await connect(port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        _, other_writer = await connect(port)
        await until(lambda: len(system.events("stream opened")) == 4)
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(system.relay.stop())
            await until(lambda: system.events("draining"))
            await close(other_writer)
            await stopping
        (line,) = system.events("drained")
        assert line["left"] >= 2
        writer.write(b"after")
        async with System() as other:
            wire.target = other.relay.port
            assert await reader.readexactly(5) == b"after"
            await close(writer)
            await until(lambda: is_empty(system), 40.0)
            for agent in tuple(system.agents):
                await system.stop(agent)


async def test_agents_that_stop_reset_their_streams(loop_factory: Any) -> None:
    """Never a FIN that the application did not send; and the other end hears of it at once."""
    for which in ("client", "host"):
        seen: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"ready")
            try:
                seen.set_result(await reader.read())  # one at a time
            except OSError as exc:
                seen.set_result(exc)

        async with serve(waits) as target, System() as system:
            host = await system.host({"mc": target})
            client = await system.client("mc")
            reader, writer = await connect(client.ports[0])
            assert await reader.readexactly(5) == b"ready"
            await system.stop(client if which == "client" else host)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert isinstance(await seen, ConnectionResetError)
            outcomes = {line["outcome"] for line in system.events("stream closed")}
            assert outcomes == {"stopped", "reset-peer"}
            await close(writer)


async def test_a_host_agent_that_stops_opens_nothing_more(loop_factory: Any) -> None:
    """Not on a pair that is free either: what it opened now would end with the process, in a false FIN."""
    opened = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await echo(reader, writer)

    async with serve(counts) as target, System() as system, Wire(system.relay.port) as wire:
        host = await system.host({"mc": target}, stop_timeout=30.0)
        silent = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        client = await system.client("mc")
        await exchange(client.ports[0], 1000)  # its pair is free now
        reader, writer = await connect(silent.ports[0])
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        wire.freeze()  # so that the stop has somebody to wait for
        system.agents.remove(host)
        stopping = asyncio.create_task(host.stop())
        await asyncio.sleep(0)
        late = await connect(client.ports[0])
        late[1].write(b"too late")
        with pytest.raises(ConnectionResetError):
            await late[0].read()
        assert opened == 2
        wire.thaw()
        await stopping
        for _, each in (late, (reader, writer)):
            await close(each)


async def test_replay_memory_is_bounded_for_the_agent(loop_factory: Any) -> None:
    """With no leg, ten writers together are read up to the bound and no further; nothing is dropped."""
    bound = 256 * 1024
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        await system.host({"mc": target})
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}", replay_memory=bound)
        streams = [await connect(client.ports[0]) for _ in range(10)]
        for reader, writer in streams:
            writer.write(b"x")
            await reader.readexactly(1)
        wire.shut()
        wire.cut()
        transfers = [asyncio.create_task(send(writer, 60_000, seed)) for seed, (_, writer) in enumerate(streams)]
        # One tunnel may have half of it, and each stream a little in any case.
        await until(lambda: client.context.streams.memory.used >= bound // 2)
        used = -1
        while used != client.context.streams.memory.used:
            used = client.context.streams.memory.used
            await until(lambda: len(system.events("relay unreachable")) > 0)
        assert used <= bound // 2 + 10 * (ALWAYS + MIN_READ)
        await wire.open()
        for task, (reader, writer) in zip(transfers, streams, strict=True):
            (count, got), sent = await asyncio.gather(receive(reader), task)
            assert (count, got) == (60_000, sent)
            await close(writer)
        await until(lambda: is_empty(system))


async def test_an_open_that_its_resume_overtook_is_refused(loop_factory: Any) -> None:
    """The client was told that its stream is unknown, and opens anew: the target must not get its data twice."""
    targets = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal targets
        targets += 1
        await reader.read()

    async with serve(counts) as target, System() as system:
        await system.host({"mc": target})
        stream, key = new_id(), new_id()
        async with await system.dial("client", v1=True) as other:
            await other.say("open", stream=new_id(), key=new_id(), window=65536)
            instance = (await other.heard())["instance"]
            assert (await other.heard())["type"] == "accepted"
        async with await system.dial("client", v1=True) as later:
            proof = resume_proof(key, stream=stream, leg=later.leg, attempt=1, received=0)
            await later.say("resume", stream=stream, proof=proof, instance=instance, attempt=1, received=0)
            assert (await later.heard())["type"] == "paired"
            answer = await later.heard()
            assert (answer["type"], answer["unknown"]) == ("gone", True)
        async with await system.dial("client", v1=True) as earlier:
            await earlier.say("open", stream=stream, key=key, window=65536)
            await earlier.send(b"the data")
            assert (await earlier.heard())["type"] == "paired"
            assert (await earlier.heard())["type"] == "refused"
        assert targets == 1


# Legs that are lost before the client knows of a host.


async def test_a_leg_that_is_lost_before_there_is_a_host(loop_factory: Any) -> None:
    """The stream is opened anew, with what was sent: the relay says that it passed nothing on."""
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        talks, is_mute = await connect(client.ports[0]), await connect(client.ports[0])
        talks[1].write(b"hello")
        await until(lambda: system.relay.pairing.waiting == 2 and sum(it.stream.sent for it in client.sessions()) == 5)
        for opened in (4, 6):
            wire.cut()
            await until(lambda: len(system.events("stream opening")) >= opened and system.relay.pairing.waiting == 2)
        await system.host({"mc": target})
        assert await talks[0].readexactly(5) == b"hello"
        is_mute[1].write(b"hello")
        assert await is_mute[0].readexactly(5) == b"hello"
        for _, writer in (talks, is_mute):
            await close(writer)


async def test_a_leg_that_died_unnoticed_is_replaced(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay still holds the old leg, with the stream's data: it is closed, and the target gets the data once."""
    monkeypatch.setattr(session, "OPEN_TIMEOUT", 0.2)
    got = []

    async def takes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readexactly(5))
        await echo(reader, writer)

    async with serve(takes) as target, System() as system, Wire(system.relay.port) as wire:
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        reader, writer = await connect(client.ports[0])
        writer.write(b"hello")
        await until(lambda: system.relay.pairing.waiting == 1 and sum(it.stream.sent for it in client.sessions()) == 5)
        wire.freeze()
        wire.frozen = False  # new connections work; those of before stay silent
        await until(lambda: len(system.events("stream opening")) >= 2)
        monkeypatch.undo()
        assert system.relay.pairing.waiting == 1
        await system.host({"mc": target})
        writer.write(b", and more")
        assert await reader.readexactly(10) == b", and more"
        assert got == [b"hello"]
        await close(writer)


async def test_a_leg_that_is_lost_when_it_was_paired(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client has not heard of it. The relay tells which host has the stream, and it is resumed there."""
    connections = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await echo(reader, writer)

    async with serve(counts) as target, System() as system, Wire(system.relay.port) as wire:
        await system.host({"mc": target})
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        pair = pairing.Pairing._pair

        def cut_at_once(*arguments: Any) -> None:
            pair(*arguments)
            monkeypatch.undo()
            wire.cut()

        monkeypatch.setattr(pairing.Pairing, "_pair", cut_at_once)
        await exchange(client.ports[0], 200_000)
        refused = [line["reason"] for line in system.events("client refused")]
        assert refused == ["a host has this stream already"]
        assert connections == 1


async def test_a_relay_that_knows_nothing_of_the_leg(loop_factory: Any) -> None:
    """It was restarted: what has sent is reset, since nobody knows what became of it; the others are opened anew."""
    async with serve(echo) as target, System() as old, System() as system, Wire(old.relay.port) as wire:
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        talks, is_mute = await connect(client.ports[0]), await connect(client.ports[0])
        talks[1].write(b"hello")
        await until(lambda: old.relay.pairing.waiting == 2 and sum(it.stream.sent for it in client.sessions()) == 5)
        wire.target = system.relay.port
        wire.cut()
        with pytest.raises(ConnectionResetError):
            await talks[0].read()
        await close(talks[1])
        (line,) = system.events("stream closed")
        assert line["outcome"] == "refused"
        assert line["reason"] == "nobody knows whether a host has this stream"
        await system.host({"mc": target})
        is_mute[1].write(b"hello")
        assert await is_mute[0].readexactly(5) == b"hello"
        await close(is_mute[1])


async def test_a_relay_that_stops_sends_those_who_wait_to_the_next(loop_factory: Any) -> None:
    """With what they have sent: the relay has passed nothing on, and says so."""
    async with serve(echo) as target, System(drain=0.0) as old, System() as system, Wire(old.relay.port) as wire:
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        reader, writer = await connect(client.ports[0])
        writer.write(b"hello")
        await until(lambda: old.relay.pairing.waiting == 1)
        wire.target = system.relay.port
        await old.relay.stop()
        await system.host({"mc": target})
        assert await reader.readexactly(5) == b"hello"
        await close(writer)
