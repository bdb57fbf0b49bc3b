"""Applications for the ends of a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

from demo.processes import free_port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CHUNK = 64 * 1024
BACKLOG = 100


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and the end after it."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


class Listener:
    """Gives each connection to a task of `handle`, and knows them all: none gets lost on its way there.

    A server of asyncio's has connections of which nobody has been told yet, and which
    outlive the loop if it is closed just then.
    """

    def __init__(self, handle: Callable[[socket.socket], Coroutine[None, None, None]]) -> None:
        self._handle = handle
        self._sock: socket.socket | None = None
        self._tasks: dict[asyncio.Task[None], socket.socket] = {}

    def listen(self, port: int = 0, host: str = "127.0.0.1") -> int:
        """Accept what comes to a port of this address. Returns which it is.

        One that is picked here stays ours when it is shut: no system gives it to anybody else.
        """
        port = port or free_port()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.watch(socket.create_server((host, port), family=family, backlog=BACKLOG))
        return port

    def watch(self, sock: socket.socket) -> None:
        """Accept what comes to a socket that listens."""
        sock.setblocking(False)
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except OSError:
            return  # it is gone again
        sock.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._handle(sock))
        self._tasks[task] = sock
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task).close()  # whatever became of it

    def shut(self) -> None:
        """Accept no more; what is there goes on."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    async def stop(self) -> None:
        """Accept no more, and end what is there."""
        self.shut()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def adopt(sock: socket.socket, context: ssl.SSLContext | None = None) -> Streams:
    """Streams over an accepted connection."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


@contextlib.asynccontextmanager
async def serve(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    path: str | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve `handler` on a port of loopback, or on a Unix socket. Connections end with it."""

    async def handle(sock: socket.socket) -> None:
        writer = None
        try:
            reader, writer = await adopt(sock, context)
            await handler(reader, writer)
        except (OSError, EOFError):
            pass  # the peer reset the connection, or left: some tests mean it
        except asyncio.CancelledError:
            if writer is not None:
                writer.transport.abort()  # the test is over, and nobody reads any more
        except RuntimeError as exc:
            assert "the handler is closed" in str(exc), exc  # uvloop's words for a reset
        finally:
            if writer is not None:
                await close(writer)

    listener = Listener(handle)
    if path is None:
        port = listener.listen(port, host)
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen(BACKLOG)
        listener.watch(sock)
    try:
        yield port
    finally:
        await listener.stop()


async def connect(port: int, host: str = "127.0.0.1") -> Streams:
    """Connect to a local port."""
    return await asyncio.open_connection(host, port, limit=CHUNK)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close, however the connection stands."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, unless it is closed already."""
    sock = writer.get_extra_info("socket")
    if writer.is_closing() or sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def block(size: int, seed: int) -> bytes:
    """`size` bytes that no other seed gives."""
    return random.Random(seed).randbytes(size)


async def send(writer: asyncio.StreamWriter, size: int, seed: int, *, end: bool = True) -> str:
    """Send `size` bytes, and FIN after them. Returns their SHA-256."""
    digest = hashlib.sha256()
    unit = block(min(size, 1 << 20), seed)
    left = size
    while left:
        data = unit[: min(left, CHUNK * 2)]
        unit = unit[len(data) :] + data
        digest.update(data)
        writer.write(data)
        await writer.drain()
        left -= len(data)
    if end:
        writer.write_eof()
    return digest.hexdigest()


async def receive(reader: asyncio.StreamReader, size: int | None = None) -> tuple[int, str]:
    """Read `size` bytes, or to the end. Returns how many came, and their SHA-256."""
    digest = hashlib.sha256()
    count = 0
    while size is None or count < size:
        data = await reader.read(CHUNK if size is None else min(CHUNK, size - count))
        if not data:
            break
        digest.update(data)
        count += len(data)
    return count, digest.hexdigest()


async def exchange(port: int, size: int, seed: int = 0, host: str = "127.0.0.1") -> None:
    """Connect to an echo, send `size` bytes and read them back, both at once; check their hash."""
    reader, writer = await connect(port, host)
    try:
        sent, (count, got) = await asyncio.gather(send(writer, size, seed), receive(reader))
        assert (count, got) == (size, sent)
    finally:
        await close(writer)


async def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Wait for a condition: a generous deadline, never a judgement on time."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.005)


def steady(value: Callable[[], int], looks: int = 50) -> Callable[[], bool]:
    """A condition for `until`: the value has not changed for so many looks at it."""
    last, same = value(), 0

    def condition() -> bool:
        nonlocal last, same
        now = value()
        same = same + 1 if now == last else 0
        last = now
        return same >= looks

    return condition
