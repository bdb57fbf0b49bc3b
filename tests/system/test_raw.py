"""Raw legs: any WebSocket client is a good client or host, with agents and without."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.adapters import client_adapter, hosting
from support.apps import block, close, connect, echo, receive, reset, send, serve, steady, until
from support.attacker import masked
from support.peer import Opcode, Peer, get
from support.system import System, token
from support.wire import Wire
from tunnel_core.net.leg import Leg
from tunnel_core.net.outgoing import HIGH_WATER
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol.endpoints import Role
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosedError

KIB, MIB = 1 << 10, 1 << 20
CLIENT = pytest.mark.parametrize("client", ["raw", "v1"])
HOST = pytest.mark.parametrize("host", ["raw", "v1"])


def url(system: System, role: Role) -> str:
    """Where a raw leg of tunnel `mc` dials."""
    return f"{system.url}/{role}/mc?token={token(role)}"


@contextlib.asynccontextmanager
async def joined(system: System, target: int, client: str, host: str) -> AsyncIterator[int]:
    """The tunnel `mc` to `target` by agents or scripts; gives the port to connect to."""
    async with contextlib.AsyncExitStack() as stack:
        if host == "v1":
            await system.host({"mc": target})
        else:
            await stack.enter_async_context(hosting(url(system, "host"), target, count=3))
        if client == "v1":
            yield (await system.client("mc")).ports[0]
        else:
            yield await stack.enter_async_context(client_adapter(url(system, "client")))


@CLIENT
@HOST
async def test_carries_both_ways_at_once(loop_factory: Any, client: str, host: str) -> None:
    """Megabytes each way, on several streams, with equal hashes."""
    size = 2 * MIB + 17
    seen: list[tuple[int, str, str]] = []

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(1) == b"!"
        sent, (count, got) = await asyncio.gather(send(writer, size, 7, end=False), receive(reader, size))
        seen.append((count, got, sent))
        assert await reader.read() == b""
        writer.write_eof()

    async def uses(port: int, seed: int) -> tuple[int, str, str]:
        reader, writer = await connect(port)
        writer.write(b"!")
        sent, (count, got) = await asyncio.gather(send(writer, size, seed, end=False), receive(reader, size))
        writer.write_eof()
        assert await reader.read() == b""
        await close(writer)
        return count, sent, got

    async with serve(serves) as target, System() as system, joined(system, target, client, host) as port:
        used = await asyncio.gather(*(uses(port, seed) for seed in range(3)))
        await until(lambda: len(seen) == 3)
        assert sorted(used) == sorted(seen)
        assert {count for count, _, _ in used} == {size}


@CLIENT
@HOST
async def test_many_streams_one_after_the_other(loop_factory: Any, client: str, host: str) -> None:
    """Scripts dial anew for each; agents keep up with them."""
    async with serve(echo) as target, System() as system, joined(system, target, client, host) as port:
        for number in range(10):
            reader, writer = await connect(port)
            data = block(10_000, number)
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            await close(writer)
        await until(lambda: not system.relay.pairing.waiting)


@CLIENT
@HOST
async def test_an_end_in_peace_arrives_as_fin(loop_factory: Any, client: str, host: str) -> None:
    """From either side: the bytes before it, then the end, and no error."""
    ended = asyncio.get_running_loop().create_future()

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"s":
            await send(writer, 300_000, 1)  # the server ends first
        else:
            ended.set_result(await receive(reader))

    async with serve(serves) as target, System() as system, joined(system, target, client, host) as port:
        reader, writer = await connect(port)
        writer.write(b"s")
        assert await reader.read() == block(300_000, 1)
        await close(writer)
        reader, writer = await connect(port)
        writer.write(b"c")
        sent = await send(writer, 300_000, 2)
        assert await ended == (300_000, sent)
        assert await reader.read() == b""
        await close(writer)


@CLIENT
@HOST
async def test_a_reset_arrives_as_reset(loop_factory: Any, client: str, host: str) -> None:
    """From either side: no end that was not sent."""
    seen = asyncio.get_running_loop().create_future()

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"s":
            reset(writer)
            return
        writer.write(b"ready")
        try:
            seen.set_result(await reader.read())
        except OSError as exc:
            seen.set_result(exc)

    async with serve(serves) as target, System() as system, joined(system, target, client, host) as port:
        reader, writer = await connect(port)
        writer.write(b"s")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)
        reader, writer = await connect(port)
        writer.write(b"c")
        assert await reader.readexactly(5) == b"ready"
        reset(writer)
        assert isinstance(await seen, ConnectionResetError)


@pytest.mark.parametrize("code", [1011, 3000, 4000, None], ids=str)
@pytest.mark.parametrize("role", ["client", "host"])
async def test_only_an_end_in_peace_is_an_end(loop_factory: Any, role: Role, code: int | None) -> None:
    """Any close code but 1000 and 1001, or none at all, resets the TCP connection of an agent."""
    seen = asyncio.get_running_loop().create_future()

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"hello")
            seen.set_result(await reader.read())
        except OSError as exc:
            seen.set_result(exc)

    async def leave(raw: Peer) -> None:
        if code is None:
            raw.reset()
        else:
            await raw.send_close(code)

    async with serve(serves) as target, System() as system:
        if role == "client":
            await system.host({"mc": target})
            async with await system.dial("client") as raw:
                assert await raw.data(5) == b"hello"
                await leave(raw)
                assert isinstance(await seen, ConnectionResetError)
        else:
            client = await system.client("mc")
            async with await system.dial("host") as raw:
                reader, writer = await connect(client.ports[0])
                writer.write(b"hello")
                assert await raw.data(5) == b"hello"
                await leave(raw)
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                await close(writer)


@pytest.mark.parametrize("code", [1000, 1001, 1005])
async def test_each_end_in_peace_is_a_fin(loop_factory: Any, code: int) -> None:
    """1001 is what a browser says whose page was left; 1005 stands for an empty close frame."""

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + await reader.read())

    async with serve(serves) as target, System() as system:
        await system.host({"mc": target})
        async with await system.dial("client") as raw:
            await raw.send(b"this")
            if code == 1005:
                await raw.send(b"", Opcode.CLOSE)
            else:
                await raw.send_close(code)
            assert await raw.data(8) == b"got this"
            assert (await raw.closed()).code == 1000
            await raw.ended()


@pytest.mark.parametrize("role", ["client", "host"])
async def test_half_close_towards_a_careful_raw_peer(loop_factory: Any, role: Role) -> None:
    """An agent's local end becomes a close frame; what the raw peer still says comes through, and its end."""
    request, answer = block(100_000, 1), block(700_000, 2)

    async def converses(raw: Peer) -> None:
        assert await raw.data(len(request)) == request
        assert (await raw.closed()).code == 1000
        for start in range(0, len(answer), 50_000):
            await raw.send(answer[start : start + 50_000])
        await raw.send_close(1000)
        await raw.ended()

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request)
        writer.write_eof()
        got.set_result(await reader.read())

    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with serve(serves) as target, System() as system:
        if role == "client":
            await system.host({"mc": target})
            async with await system.dial("client") as raw:
                await converses(raw)
        else:
            client = await system.client("mc")
            async with await system.dial("host") as raw:
                reader, writer = await connect(client.ports[0])
                writer.write(request)
                writer.write_eof()
                await converses(raw)
                got.set_result(await reader.read())
                await close(writer)
        assert hashlib.sha256(await got).digest() == hashlib.sha256(answer).digest()
        await until(lambda: {line["outcome"] for line in system.events("stream closed")} == {"finished"})


async def test_half_close_between_careful_raw_peers(loop_factory: Any) -> None:
    """Each close frame ends one direction, on both legs."""
    async with System() as system, await system.dial("host") as host, await system.dial("client") as client:
        await client.send(b"question")
        await client.send_close(1000)
        assert await host.data(8) == b"question"
        assert (await host.closed()).code == 1000
        await host.send(b"answer")
        assert await client.data(6) == b"answer"
        await host.send_close(1000)
        assert (await client.closed()).code == 1000
        await asyncio.gather(host.ended(), client.ended())


@CLIENT
async def test_sending_to_a_raw_peer_that_left_is_reset(loop_factory: Any, client: str) -> None:
    """As with TCP: a raw leg that closed in peace, and then its socket, takes nothing more."""
    async with System() as system, contextlib.AsyncExitStack() as stack:
        host = await stack.enter_async_context(await system.dial("host"))
        if client == "v1":
            port = (await system.client("mc")).ports[0]
        else:
            port = await stack.enter_async_context(client_adapter(url(system, "client")))
        reader, writer = await connect(port)
        writer.write(b"hello")
        assert await host.data(5) == b"hello"
        await host.send(b"bye")
        await host.send_close(1000)
        await close(host.writer)
        assert await reader.read() == b"bye"
        with pytest.raises(OSError):
            while True:
                writer.write(b"are you there?")
                await writer.drain()
                await asyncio.sleep(0.01)
        await close(writer)
        await until(lambda: not [leg for leg in system.relay.pairing.legs if leg.carrying])


@pytest.mark.parametrize("role", ["client", "host"])
async def test_an_idle_local_end_does_not_outlive_its_leg_for_long(loop_factory: Any, role: Role) -> None:
    """A raw peer ended in peace, then the leg was lost: the local end is closed after the resume window."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def idles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"bye"
        await over
        await close(writer)

    async with serve(idles) as target, System() as system:
        if role == "client":
            agent: Any = await system.host({"mc": target}, resume_window=0.2)
        else:
            agent = await system.client("mc", resume_window=0.2)
        raw = await system.dial(role)
        if role == "host":
            idle = asyncio.create_task(idles(*await connect(agent.ports[0])))
        await until(lambda: system.events("stream opened"))
        await raw.send(b"bye")
        await raw.send_close(1000)
        await until(lambda: any(leg.close_received for leg in agent.context.monitor._legs))
        await close(raw.writer)
        for leg in tuple(system.relay.pairing.legs):
            leg.abort()
        await until(lambda: not list(agent.sessions()))
        reason = system.events("stream closed")[0]["reason"]
        assert reason.startswith("the raw peer is gone, and the")
        over.set_result(None)
        if role == "host":
            await idle


async def test_a_raw_reader_that_stops_and_leaves_frees_the_writer(loop_factory: Any) -> None:
    """It closed in peace, without having read: the writer is reset, and not stalled for ever."""
    async with System() as system, await system.dial("host") as host, await system.dial("client") as client:
        flood = asyncio.create_task(client.send(bytes(64 * MIB)))
        await until(lambda: any(not leg.reading for leg in system.relay.pairing.legs))
        await host.send_close(1000)
        await close(host.writer)
        with pytest.raises(OSError):
            await flood


@CLIENT
async def test_a_server_that_speaks_first(loop_factory: Any, client: str) -> None:
    """Its banner waits at the relay until somebody comes, also a long one."""
    banner = block(200_000, 1)
    async with System() as system, await system.dial("host") as host:
        sending = asyncio.create_task(host.send(banner[:50_000]))
        await sending
        sending = asyncio.create_task(host.send(banner[50_000:]))
        await until(lambda: sum(leg.bytes_in for leg in system.relay.pairing.legs) >= 64 * KIB)
        if client == "v1":
            reader, writer = await connect((await system.client("mc")).ports[0])
            assert await reader.readexactly(len(banner)) == banner
            await close(writer)
        else:
            async with await system.dial("client") as raw:
                assert await raw.data(len(banner)) == banner
        await sending


@pytest.mark.parametrize("role", ["client", "host"])
async def test_raw_streams_stay_where_they_are_when_the_relay_drains(loop_factory: Any, role: Role) -> None:
    """They cannot move: no leg is dialed for them at the next relay, and they go on until the drain is over."""
    async with (
        serve(echo) as target,
        System(drain=20.0, drain_alone=20.0) as old,
        System() as system,
        Wire(old.relay.port) as wire,
    ):
        url = f"ws://127.0.0.1:{wire.port}"
        agent: Any
        if role == "host":
            agent = await system.client("mc", relay=url)
            raw = await old.dial("host")
            local = await connect(agent.ports[0])
            local[1].write(b"asked")
            assert await raw.data(5) == b"asked"
            await raw.send(b"answered")
            assert await local[0].readexactly(8) == b"answered"
        else:
            agent = await system.host({"mc": target}, relay=url)
            raw = await old.dial("client")
            await raw.send(b"asked")
            assert await raw.data(5) == b"asked"
        wire.target = system.relay.port
        stopping = asyncio.create_task(old.relay.stop())
        legs = system.relay.pairing.legs
        await until(lambda: len(legs) == agent.context.settings.warm and len(old.relay.pairing.legs) == 2)
        await until(steady(lambda: len(legs)))
        assert len(legs) == agent.context.settings.warm
        await raw.send(b"more")
        if role == "host":
            assert await local[0].readexactly(4) == b"more"
            await close(local[1])
        else:
            assert await raw.data(4) == b"more"
        await close(raw.writer)
        await stopping


async def test_text_is_carried_as_its_bytes(loop_factory: Any) -> None:
    """A raw leg's text messages are UTF-8 bytes to the other side, and no control messages."""
    words = ["grüße", '{"type":"reset","stream":"00000000000000000000000000000000","reason":""}', "", "🧱" * 5000]
    expected = "".join(words).encode()
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        async with connect_websocket(url(system, "client"), proxy=None) as websocket:
            for word in words:
                await websocket.send(word)
            got = b""
            while len(got) < len(expected):
                message = await websocket.recv()
                assert isinstance(message, bytes), "what comes back is binary"
                got += message
            assert got == expected
        async with await system.dial("client") as raw:
            await raw.send(b"\xff\xfe", Opcode.TEXT)
            assert (await raw.closed()).code == 1007


@pytest.mark.parametrize("reader_is", ["raw client", "raw host", "local application"])
async def test_a_reader_that_stops_holds_the_writer(loop_factory: Any, reader_is: str) -> None:
    """What is on its way is bounded in every process; it all arrives once the reader goes on."""
    written = 0
    stop = asyncio.Event()
    sent = hashlib.sha256()

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        data = block(64 * KIB, 1)
        while not stop.is_set():
            writer.write(data)
            await writer.drain()
            sent.update(data)
            written += len(data)
        writer.write_eof()
        await reader.read()

    async def stalls(system: System) -> None:
        await until(lambda: written > 2 * MIB)
        await until(steady(lambda: written))
        legs: list[Leg] = list(system.relay.pairing.legs)
        for agent in system.agents:
            legs += agent.context.monitor._legs
            for session in agent.sessions():
                assert session.stream.local.pending < 2 * HIGH_WATER
        assert max(leg.unsent for leg in legs) < 2 * HIGH_WATER
        stop.set()

    async def drains(raw: Peer) -> bytes:
        got = hashlib.sha256()
        while True:
            frame = await raw.frame()
            if frame.opcode is Opcode.CLOSE:
                await raw.send_close(1000)
                return got.digest()
            if frame.opcode is not Opcode.PING:  # a relay that stood still asks whether its peers are there
                got.update(bytes(frame.data))

    async with serve(floods) as target, System() as system, contextlib.AsyncExitStack() as stack:
        if reader_is == "raw client":
            await system.host({"mc": target})
            raw = await stack.enter_async_context(await system.dial("client"))
            await stalls(system)
            got = await drains(raw)
        elif reader_is == "raw host":
            client = await system.client("mc")
            raw = await stack.enter_async_context(await system.dial("host"))
            streams = await connect(client.ports[0])
            flood = asyncio.create_task(floods(*streams))
            await stalls(system)
            got = await drains(raw)
            await flood
            await close(streams[1])
        else:
            await stack.enter_async_context(hosting(url(system, "host"), target))
            client = await system.client("mc")
            reader, writer = await connect(client.ports[0])
            await stalls(system)
            got = hashlib.sha256(await reader.read()).digest()
            await close(writer)
        assert got == sent.digest()


async def test_much_for_a_target_that_is_slow_to_connect(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw client's first megabyte waits for the connection, is bounded, and then goes on."""
    gate = asyncio.Event()
    connect_now = TcpConnection._connect

    async def slow(self: TcpConnection, *args: Any) -> None:
        await gate.wait()
        await connect_now(self, *args)

    monkeypatch.setattr(TcpConnection, "_connect", slow)
    size = 8 * MIB
    async with serve(echo) as target, System() as system:
        host = await system.host({"mc": target})
        async with client_adapter(url(system, "client")) as port:
            reader, writer = await connect(port)
            sending = asyncio.create_task(send(writer, size, 1, end=False))
            await until(lambda: any(not leg.reading for leg in host.context.monitor._legs))
            gate.set()
            count, got = await receive(reader, size)
            assert (count, got) == (size, await sending)
            await close(writer)


async def test_a_raw_client_waits_for_a_host(loop_factory: Any) -> None:
    """And is served when one comes: what it has said meanwhile is not lost."""
    async with serve(echo) as target, System() as system, await system.dial("client") as raw:
        await raw.send(b"first words")
        await until(lambda: system.relay.pairing.waiting == 1)
        await system.host({"mc": target})
        assert await raw.data(11) == b"first words"


async def test_a_raw_client_that_waits_in_vain_is_closed_with_a_reason(loop_factory: Any) -> None:
    """Close code 1013, with the reason."""
    async with System(wait=0.1) as system:
        async with connect_websocket(url(system, "client"), proxy=None) as websocket:
            with pytest.raises(ConnectionClosedError) as closed:
                await websocket.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
                1013,
                "no host-agent offers this tunnel now",
            )
        async with await system.dial("client") as raw:
            # Also to one that has said so much that it was not read any more.
            for _ in range(4):
                await raw.send(bytes(64 * KIB))
            assert (await raw.closed()).code == 1013


async def test_a_token_in_the_query_is_never_logged(loop_factory: Any) -> None:
    """Neither of those who are let in nor of those who are not."""
    good, wrong = token("client"), token("host")
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        async with await Peer.dial(system.relay.port, f"/client/mc?token={good}&x=1") as raw:
            await raw.send(b"hello")
            assert await raw.data(5) == b"hello"
        for query in (wrong, good[:-4] + "AAAA", good + good):
            answer = await get(system.relay.port, f"/client/mc?token={query}", upgrade=True)
            assert answer.status in (401, 403)
            assert "eyJ" not in answer.text
        assert (await get(system.relay.port, f"/nowhere?token={good}", upgrade=True)).status == 404
        assert (await get(system.relay.port, f"/client/mc?token={good}")).status == 426
        await until(lambda: len(system.events("leg refused")) == 4)
        for part in (good, wrong):
            for piece in part.split("."):
                assert piece not in system.raw_log
        assert "token=" not in system.raw_log


async def test_bare_paths_mean_the_default_tunnel(loop_factory: Any) -> None:
    """`/host` and `/client`, so that a script needs no name at all."""
    async with System(auth="none") as system:
        port = system.relay.port
        async with await Peer.dial(port, "/host") as host, await Peer.dial(port, "/client") as client:
            await client.send(b"hello")
            assert await host.data(5) == b"hello"
        async with serve(echo) as target:
            await system.host({"default": target})
            async with await Peer.dial(port, "/client") as client:
                await client.send(b"hello")
                assert await client.data(5) == b"hello"


async def test_raw_legs_answer_pings_and_nothing_else(loop_factory: Any) -> None:
    """A ping in the middle of a conversation is answered by the relay, and not carried."""
    async with System() as system, await system.dial("host") as host, await system.dial("client") as client:
        await client.send(b"one")
        await client.send(b"are you there", Opcode.PING)
        pong = await client.frame()
        assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"are you there")
        await client.send(b"two")
        assert await host.data(6) == b"onetwo"


async def test_frames_beyond_count_arrive_in_their_order(loop_factory: Any) -> None:
    """More tiny frames in one read than a turn handles, pings among them, and then the end."""
    sent = block(20_000, 3)
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def takes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.set_result(await reader.read())
        writer.write_eof()

    async with serve(takes) as target, System() as system:
        await system.host({"mc": target})
        async with await system.dial("client") as client:
            for at in range(len(sent)):
                client.writer.write(masked(Opcode.BINARY, sent[at : at + 1]))
                if not at % 50:
                    client.writer.write(masked(Opcode.PING, b"?"))
            await client.send_close(1000)
            assert await got == sent
