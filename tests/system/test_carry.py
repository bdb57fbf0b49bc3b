"""TCP end to end: bytes, ends, resets, stalls."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest
from support.apps import Listener, block, close, connect, echo, exchange, receive, reset, send, serve, until
from support.metrics import Metrics
from support.system import System
from tunnel_core.net.address import Address
from tunnel_core.protocol.endpoints import new_id

MIB = 1 << 20


async def test_echoes_bytes_unchanged(loop_factory: Any) -> None:
    """From one byte to more than any buffer, and nothing at all."""
    async with serve(echo) as target, System() as system:
        port = await system.pair(target)
        for size in (0, 1, 125, 126, 65535, 65536, 65537, 3 * MIB + 7):
            await exchange(port, size, seed=size)


async def test_carries_many_streams_at_once(loop_factory: Any) -> None:
    """Each with its own content, none mixed with another."""
    async with serve(echo) as target, System() as system:
        port = await system.pair(target)
        async with asyncio.TaskGroup() as group:
            for seed in range(40):
                group.create_task(exchange(port, 300_000, seed=seed))


async def test_a_server_that_writes_before_it_reads(loop_factory: Any) -> None:
    """10 MiB each way at once, the server reading only after it has written: no deadlock."""
    size = 10 * MIB
    got: list[tuple[int, str]] = []

    async def writes_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = await send(writer, size, seed=2, end=False)
        got.append((size, digest))
        got.append(await receive(reader))
        writer.write_eof()

    async with serve(writes_first) as target, System() as system:
        port = await system.pair(target)
        reader, writer = await connect(port)
        sent, received = await asyncio.gather(send(writer, size, seed=1), receive(reader))
        await close(writer)
        assert got == [received, (size, sent)]


async def test_half_close_from_the_client(loop_factory: Any) -> None:
    """The request ends, the answer comes after that."""

    async def answers_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()
        writer.write(hashlib.sha256(request).digest() * 1000)
        await writer.drain()

    async with serve(answers_at_the_end) as target, System() as system:
        port = await system.pair(target)
        reader, writer = await connect(port)
        await send(writer, 200_000, seed=3)
        answer = await reader.read()
        await close(writer)
        assert answer == hashlib.sha256(block(200_000, 3)).digest() * 1000


async def test_half_close_from_the_server(loop_factory: Any) -> None:
    """The server ends first and goes on reading."""
    got = asyncio.get_running_loop().create_future()

    async def ends_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that is all")
        writer.write_eof()
        got.set_result(await reader.read())

    async with serve(ends_first) as target, System() as system:
        port = await system.pair(target)
        reader, writer = await connect(port)
        assert await reader.read() == b"that is all"
        await send(writer, 100_000, seed=4)
        assert await got == block(100_000, 4)
        await close(writer)


async def test_a_reset_by_the_client_resets_the_target(loop_factory: Any) -> None:
    """RST in, RST out: the server sees an error and no end that was not sent."""
    seen = asyncio.get_running_loop().create_future()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(5)
            seen.set_result(await reader.read())
        except OSError as exc:
            seen.set_result(exc)

    async with serve(waits) as target, System() as system:
        port = await system.pair(target)
        _, writer = await connect(port)
        writer.write(b"hello")
        await writer.drain()
        await until(lambda: system.events("stream opened"))
        reset(writer)
        assert isinstance(await seen, ConnectionResetError)


async def test_a_reset_by_the_target_resets_the_client(loop_factory: Any) -> None:
    """The other way round."""

    async def slams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        reset(writer)

    async with serve(slams) as target, System() as system:
        port = await system.pair(target)
        reader, writer = await connect(port)
        writer.write(b"hello")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)


async def test_a_target_that_refuses_resets_the_client_at_once(loop_factory: Any) -> None:
    """And both logs say why."""
    async with serve(echo) as closed:
        pass
    async with System() as system:
        port = await system.pair(closed)
        reader, writer = await connect(port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)
        (refused,) = system.events("target refused")
        assert refused["target"] == f"127.0.0.1:{closed}"
        reasons = {line["reason"] for line in system.events("stream closed") if line["outcome"] == "refused"}
        assert reasons == {"the target refused the connection"}


async def test_a_target_on_a_unix_socket(loop_factory: Any, tmp_path: Path) -> None:
    """`--tunnel db=unix:/run/db.sock`."""
    path = str(tmp_path / "target.sock")
    async with serve(echo, path=path), System() as system:
        port = await system.pair(Address(path, 0))
        await exchange(port, 200_000)


async def test_a_target_by_name(loop_factory: Any) -> None:
    """Resolved at the dial, both families raced."""
    async with serve(echo) as target, System() as system:
        port = await system.pair(Address("localhost", target))
        await exchange(port, 1000)


async def test_a_reader_that_stops_stalls_its_own_stream_only(loop_factory: Any) -> None:
    """What is on its way for it is bounded by the window; the others do not notice."""
    written = 0

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        if await reader.readexactly(1) == b"e":
            await echo(reader, writer)
            return
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            written += 65536

    async with serve(floods) as target, System() as system:
        host = await system.host({"mc": target})
        client = await system.client("mc")
        _, stalled = await connect(client.ports[0])
        stalled.write(b"f")
        await until(lambda: written > 2 * MIB)
        steady = -1
        while steady != written:  # it stops by itself
            steady = written
            for seed in range(3):
                other, writer = await connect(client.ports[0])
                writer.write(b"e")
                sent, got = await asyncio.gather(send(writer, 200_000, seed), receive(other))
                assert got == (200_000, sent)
                await close(writer)
        # Once the others' last acks are here. A block may be half full.
        await until(lambda: host.context.streams.memory.used <= 2 * host.context.settings.window)
        await until(lambda: client.context.streams.memory.used <= 2 * client.context.settings.window)
        reset(stalled)


async def test_two_tunnels_lead_to_two_targets(loop_factory: Any) -> None:
    """By their names."""

    def says(word: bytes) -> Any:
        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(word)

        return say

    async with serve(says(b"one")) as one, serve(says(b"two")) as two, System() as system:
        await system.host({"first": one, "second": two})
        client = await system.client("second", "first")
        for port, word in zip(client.ports, (b"two", b"one"), strict=True):
            reader, writer = await connect(port)
            assert await reader.read() == word
            await close(writer)


async def test_a_finished_pair_carries_the_next_stream(loop_factory: Any) -> None:
    """One after the other they need no new legs: a handshake is saved for each."""
    async with serve(echo) as target, System() as system:
        port = await system.pair(target)
        for seed in range(20):
            await exchange(port, 1000, seed)
        opened = [line for line in system.events("stream opened") if "target" in line]
        assert len(opened) == 20
        assert len(system.events("paired")) <= 3


async def test_logs_follow_one_stream_through_all_three_services(loop_factory: Any) -> None:
    """By its id, which each of them logs; its key and the tokens are nowhere."""
    async with serve(echo) as target, System() as system:
        port = await system.pair(target)
        await exchange(port, 1000)
        await until(lambda: len(system.events("stream closed")) == 2)
        (stream,) = {line["stream"] for line in system.events("stream opening")}
        events = [line["event"] for line in system.log if line.get("stream") == stream]
        assert sorted(events) == [
            "paired", "stream closed", "stream closed", "stream opened", "stream opened", "stream opening",
        ]  # fmt: skip
        assert "eyJ" not in system.raw_log
        assert '"key"' not in system.raw_log


async def test_logs_name_an_ipv4_peer_as_such(loop_factory: Any) -> None:
    """Also where the client-agent listens on both families, as its image does."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        client = await system.client("mc", listen_address="::")
        await exchange(client.ports[0], 1000)
        await until(lambda: len(system.events("stream closed")) == 2)
        names = {line["client"].rpartition(":")[0] for line in system.events("stream opened")}
        assert names == {"127.0.0.1", ""}  # the client's own address; the host is told one without a port


async def test_unknown_messages_are_passed_on_and_ignored(loop_factory: Any) -> None:
    """A newer peer's messages go through the relay whole and in order; agents ignore and count them."""
    async with serve(echo) as target, System() as system:
        host = await system.host({"mc": target}, admin_port=0)
        async with await system.dial("client", v1=True) as client:
            await client.say("hello", since=2)  # before there is anybody to pass it on to
            stream = new_id()
            await client.say("open", stream=stream, key=new_id(), window=65536)
            await client.say("colour", shade={"deep": ["blue"]})
            await client.send(b"data")
            await client.say("colour", shade="red")
            assert [(await client.heard())["type"] for _ in range(2)] == ["paired", "accepted"]
            assert await client.data(4) == b"data"
            assert host.admin is not None
            unknown = (await Metrics.scrape(host.admin.port)).value("tunnel_agent_unknown_messages_total")
            assert unknown == 2

        async with await system.dial("host", tunnel="db", v1=True) as by_hand:
            await by_hand.say("hello")
            agent = await system.client("db", admin_port=0)
            reader, writer = await connect(agent.ports[0])
            paired, opened = await by_hand.heard(), await by_hand.heard()
            assert (paired["type"], opened["type"]) == ("paired", "open")
            await by_hand.say("colour")
            await by_hand.say("accepted", stream=opened["stream"], window=65536)
            await by_hand.say("colour")
            await by_hand.send(b"data")
            assert await reader.readexactly(4) == b"data"
            assert agent.admin is not None
            assert (await Metrics.scrape(agent.admin.port)).value("tunnel_agent_unknown_messages_total") == 2
            reset(writer)


async def test_urgent_data_stays_in_the_stream(loop_factory: Any) -> None:
    """Both ways, even what a target sends the moment it accepts."""
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def speak(sock: socket.socket, name: bytes) -> None:
        sock.send(b"!", socket.MSG_OOB)
        sock.send(name)

    async def listen(sock: socket.socket) -> bytes:
        sock.setblocking(False)
        got = b""
        while len(got) < 7:
            data = await asyncio.get_running_loop().sock_recv(sock, 7)
            assert data, got
            got += data
        return got

    async def accepted(sock: socket.socket) -> None:
        speak(sock, b"target")
        heard.set_result(await listen(sock))

    target = Listener(accepted)
    async with System() as system:
        port = await system.pair(target.listen())
        with socket.create_connection(("127.0.0.1", port)) as client:
            speak(client, b"client")
            assert await listen(client) == b"!target"
            assert await heard == b"!client"
        await target.stop()
