"""A side that answers and closes while the other is still sending: as over TCP, the answer arrives before the reset.

The applications are blocking sockets in threads: they see what curl or a browser sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.apps import Listener, until
from support.peer import Peer
from support.system import System
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol.endpoints import Role
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.replay import ReplayMemory

MIB = 1 << 20
UPLOAD = bytes(12 * MIB)
ANSWER = b"HTTP/1.1 413 Content Too Large\r\n\r\n" + b"too large" * 1000
TIMES = 15

Use = Callable[[socket.socket], Any]


def answer_early(sock: socket.socket) -> None:
    """Read a little, answer, and close. What is unread then makes the kernel send a reset."""
    sock.recv(1000)
    sock.sendall(ANSWER)


def upload(sock: socket.socket) -> bytes:
    """Send for as long as the other side takes it. Returns what it sent back before the end."""
    with contextlib.suppress(OSError):
        sock.sendall(UPLOAD)
    got = b""
    with contextlib.suppress(OSError):
        while data := sock.recv(65536):
            got += data
    return got


@contextlib.contextmanager
def serving(use: Use) -> Iterator[tuple[int, list[Any]]]:
    """Serve connections in a thread, one after the other. Yields the port, and what `use` has returned so far."""
    results: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listening.accept()
                    with sock:
                        results.append(use(sock))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], results
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def connecting(port: int, use: Use) -> Any:
    """Connect to a port and return what `use` does."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        return use(sock)


def test_tcp_loses_no_early_answer() -> None:
    """What the tunnel is measured against."""
    with serving(answer_early) as (port, _):
        assert [connecting(port, upload) for _ in range(TIMES)] == [ANSWER] * TIMES


@pytest.mark.parametrize("answers", ["server", "client"])
async def test_an_early_answer_arrives(loop_factory: Any, answers: str) -> None:
    """Through both agents, from either side."""
    server, client = (answer_early, upload) if answers == "server" else (upload, answer_early)
    with serving(server) as (target, served):
        async with System() as system:
            port = await system.pair(target)
            for number in range(1, TIMES + 1):
                heard = await asyncio.to_thread(connecting, port, client)
                await until(lambda number=number: len(served) == number)  # type: ignore[misc]
                assert (heard if answers == "server" else served[-1]) == ANSWER
            outcomes = {line["outcome"] for line in system.events("stream closed")}
            assert outcomes == {"reset-local", "reset-peer"}


@pytest.mark.parametrize("answers", ["application", "raw peer"])
@pytest.mark.parametrize("role", ["host", "client"])
async def test_an_early_answer_crosses_a_raw_leg(loop_factory: Any, role: Role, answers: str) -> None:
    """Between an application at an agent and a raw peer in `role`."""
    use = answer_early if answers == "application" else upload
    with serving(use) as (target, served):
        async with System() as system:
            if role == "host":
                port = (await system.client("mc")).ports[0]
                raw = await system.dial("host")
                application = asyncio.create_task(asyncio.to_thread(connecting, port, use))
            else:
                await system.host({"mc": target})
                raw = await system.dial("client")
            async with raw:
                if answers == "application":
                    await _upload_raw(raw)
                else:
                    await raw.frame()
                    await raw.send(ANSWER)
                    await raw.send_close(CloseCode.INTERNAL_ERROR)
                if role == "host":
                    heard = await application
                else:
                    await until(lambda: served)
                    heard = served[0]
                assert answers == "application" or heard == ANSWER


async def _upload_raw(raw: Peer) -> None:
    async def send() -> None:
        with contextlib.suppress(OSError):
            for start in range(0, len(UPLOAD), MIB):
                await raw.send(UPLOAD[start : start + MIB])

    sending = asyncio.create_task(send())
    assert await raw.data(len(ANSWER)) == ANSWER
    assert (await raw.closed()).code == CloseCode.RESET
    raw.writer.transport.abort()
    await sending


class _Reader:
    """A carrier that takes one read, and no more until it is told to."""

    credit = 1 << 20

    def __init__(self, tcp: TcpConnection) -> None:
        self.got = b""
        self.broken = ""
        self._tcp = tcp

    def local_data(self, data: memoryview | bytes) -> None:
        assert not self.broken, "nothing follows the break"
        self.got += data
        self._tcp.hold(1)

    def local_eof(self) -> None:
        raise AssertionError("the other side reset the connection")

    def local_broken(self, reason: str) -> None:
        self.broken = reason

    def local_drained(self) -> None:
        pass


async def test_an_answer_waits_for_a_carrier_that_is_not_ready(loop_factory: Any) -> None:
    """What the kernel has received is read at the carrier's pace, and the break is reported after it."""
    size = 10_000
    ready = asyncio.Event()

    async def serve(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_recv(sock, 1)
        await loop.sock_sendall(sock, bytes(3 * size))
        sock.close()
        ready.set()

    listener = Listener(serve)
    port = listener.listen()
    tcp = TcpConnection(ReplayMemory(MIB, size))
    tcp.carrier = reader = _Reader(tcp)
    tcp.hold(1)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: tcp, "127.0.0.1", port)
    tcp.write([b"ask"])
    await ready.wait()
    while tcp.peer != "a Unix socket":  # until a write has failed
        tcp.write([b"more"])
        await asyncio.sleep(0)
    for reads in range(3):
        assert (len(reader.got), reader.broken) == (reads * size, "")
        tcp.release(1)
        await until(lambda reads=reads: len(reader.got) > reads * size)  # type: ignore[misc]
    assert not reader.broken
    tcp.release(1)
    await until(lambda: reader.broken)
    await listener.stop()
