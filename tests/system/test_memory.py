"""Streams whose far ends do not read, beside others that do, in one agent's memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.apps import block, close, connect, echo, serve, until
from support.system import System, token
from tunnel_core.net.tcp import MANY_WRITES, TcpConnection
from tunnel_core.protocol.replay import ReplayMemory
from tunnel_core.service.settings import Secret

MIB = 1 << 20
MEMORY = 2 * MIB
HOARDERS = 12


@contextlib.asynccontextmanager
async def hoard(port: int, connections: int) -> AsyncIterator[list[int]]:
    """Connections that write as much as they can, and never read. Gives how many bytes each has written."""
    loop = asyncio.get_running_loop()
    written = [0] * connections
    piece = bytes(64 * 1024)

    async def write(number: int, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            await loop.sock_connect(sock, ("127.0.0.1", port))
            while True:
                await loop.sock_sendall(sock, piece)
                written[number] += len(piece)

    async with contextlib.AsyncExitStack() as stack:
        tasks = []
        for number in range(connections):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            tasks.append(asyncio.create_task(write(number, sock)))
        try:
            yield written
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def download(port: int, size: int) -> None:
    """Ask for `size` bytes, and compare them."""
    reader, writer = await connect(port)
    writer.write(f"{size}\n".encode())
    whole = await reader.readexactly(size)
    assert whole == block(size, 1)
    await close(writer)


async def gives(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server of downloads: as many bytes as it is asked for."""
    with contextlib.suppress(OSError):
        writer.write(block(int(await reader.readline()), 1))
        await writer.drain()
        await reader.read()


def friend(subject: str) -> dict[str, Any]:
    """The settings of a client-agent with a token of its own."""
    return {"secret": Secret(), "token": Secret(token("client", "echo", "files", subject=subject))}


async def test_a_hoarder_takes_nothing_from_others(loop_factory: Any) -> None:
    """One friend's connections write to an echo and never read; another's downloads go on, and so do uploads."""
    async with serve(echo) as target, serve(gives) as server, System() as system:
        host = await system.host({"echo": target, "files": server}, replay_memory=MEMORY)
        bad = await system.client("echo", **friend("hoarder"), replay_memory=MEMORY)
        good = await system.client("echo", "files", **friend("honest"), replay_memory=MEMORY)
        async with hoard(bad.ports[0], HOARDERS):
            memory = host.context.streams.memory
            await until(lambda: memory.used > MEMORY // 3 and memory.starved > HOARDERS // 4, 90)
            async with asyncio.timeout(90):
                await asyncio.gather(*(download(good.ports[1], 4 * MIB) for _ in range(4)))
            for agent in (host, bad, good):
                assert agent.context.streams.memory.used <= MEMORY
        for agent in (host, bad):
            await until(lambda agent=agent: not list(agent.sessions()), 60)  # type: ignore[misc]
            assert agent.context.streams.memory.used == 0


async def test_more_streams_than_there_is_memory_for_are_refused(loop_factory: Any) -> None:
    """The streams of another token are served meanwhile."""
    async with serve(echo) as target, System() as system:
        host = await system.host({"echo": target}, replay_memory=MIB)
        bad = await system.client("echo", **friend("hoarder"))
        good = await system.client("echo", **friend("honest"))
        host.context.streams.memory.share("hoarder").take(MIB * 5 // 8)
        reader, writer = await connect(bad.ports[0])
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)
        assert any("no memory" in line["reason"] for line in system.events("stream closed"))
        reader, writer = await connect(good.ports[0])
        for number in range(10):
            writer.write(block(1000, number))
            assert await reader.readexactly(1000) == block(1000, number)
        await close(writer)


class _Listens:
    """A carrier that brings nothing."""

    credit = 1

    def local_data(self, data: memoryview | bytes) -> None:
        raise AssertionError("nothing was sent")

    def local_eof(self) -> None: ...
    def local_broken(self, reason: str) -> None: ...
    def local_drained(self) -> None: ...


class _Counts:
    """A transport that counts its writes."""

    def __init__(self, transport: Any) -> None:
        self.writes = 0
        self._transport = transport

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_small_writes_for_a_reader_that_stops_become_one(loop_factory: Any) -> None:
    """However many wait, they cost their bytes alone; all of them arrive, in order, and the end after them."""
    go, whole = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def reads_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        whole.set_result(await reader.read(-1))

    async with serve(reads_late) as port:
        tcp = TcpConnection(ReplayMemory(MIB, 1000))
        tcp.carrier = _Listens()
        await asyncio.get_running_loop().create_connection(lambda: tcp, "127.0.0.1", port)
        tcp._transport = counts = _Counts(tcp._transport)  # type: ignore[assignment]
        tcp.set_window(MIB)
        sent = bytearray(16 * MIB)
        tcp.write([bytes(sent)])
        assert tcp.pending, "the kernel takes less"
        for number in range(10_000):
            before = tcp.pending
            tcp.write([b"%d," % number])
            sent += b"%d," % number
            assert tcp.pending == before + len(b"%d," % number)
        assert counts.writes <= MANY_WRITES + 1
        tcp.write_eof()
        go.set()
        assert await asyncio.wait_for(whole, 60) == sent
        tcp.close()
