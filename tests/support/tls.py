"""TLS in front of a port, as a platform or a proxy puts it there."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import trustme

from support.apps import CHUNK, close, connect, serve


class Authority:
    """A certificate authority of a test's own; `file` is what --ca-file takes."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def context(self, *names: str) -> ssl.SSLContext:
        """For a server of these names."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*names).configure_cert(context)
        return context


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end or an error, and then close."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    await close(writer)


async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, host: str = "127.0.0.1") -> None:
    """Copy a connection to a port, and back."""
    there, back = await connect(port, host)
    try:
        await asyncio.gather(pipe(reader, back), pipe(there, writer))
    finally:
        back.transport.abort()  # both are closed by now, or nobody waits for more
        await close(back)


@contextlib.asynccontextmanager
async def terminating(port: int, context: ssl.SSLContext, *, listen: int = 0) -> AsyncIterator[int]:
    """Take TLS off on the way to `port`. Gives the port with TLS."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join(reader, writer, port)

    async with serve(handle, port=listen, context=context) as outside:
        yield outside
