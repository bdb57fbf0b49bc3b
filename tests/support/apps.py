"""Applications for the ends of a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CHUNK = 64 * 1024


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and the end after it."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@contextlib.asynccontextmanager
async def serve(handler: Handler, *, path: str | None = None) -> AsyncIterator[int]:
    """Serve `handler` on a free port of 127.0.0.1, or on a Unix socket. Connections end with it."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the peer reset the connection, or left: some tests mean it; or the test is over
        except RuntimeError as exc:
            assert "the handler is closed" in str(exc), exc  # uvloop's words for the same
        finally:
            await close(writer)

    if path is None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=CHUNK)
        port = int(server.sockets[0].getsockname()[1])
    else:
        server = await asyncio.start_unix_server(accept, path, limit=CHUNK)
        port = 0
    try:
        yield port
    finally:
        server.close()
        await asyncio.sleep(0.01)  # connections that were just being accepted
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
