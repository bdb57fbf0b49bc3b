"""The classic pair of adapter scripts, plainly written on `websockets`: what a raw leg is made for.

They know nothing of this project but two URLs. A close with code 1000 is the end of the
bytes; any other, and a lost connection, is a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from support.apps import close, connect, reset, serve


async def _to_tcp(websocket: ClientConnection, writer: asyncio.StreamWriter) -> None:
    try:
        async for message in websocket:
            writer.write(message.encode() if isinstance(message, str) else message)
            await writer.drain()
        writer.write_eof()
    except ConnectionClosedError:
        reset(writer)
    except OSError:
        await websocket.close(1011)


async def _to_websocket(reader: asyncio.StreamReader, websocket: ClientConnection) -> None:
    try:
        while data := await reader.read(65536):
            await websocket.send(data)
        await websocket.close()
    except ConnectionClosed:
        pass  # the other half says so, too
    except OSError:
        await websocket.close(1011)


async def _copy(websocket: ClientConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await asyncio.gather(_to_tcp(websocket, writer), _to_websocket(reader, websocket))
    finally:
        await close(writer)


async def host_adapter(url: str, port: int) -> None:
    """Dial `url` and copy to a TCP server, one connection after the other, for ever."""
    while True:
        async with connect_websocket(url, proxy=None, compression=None, close_timeout=None) as websocket:
            reader, writer = await connect(port)
            await _copy(websocket, reader, writer)


@contextlib.asynccontextmanager
async def hosting(url: str, port: int, count: int = 1) -> AsyncIterator[None]:
    """Run so many host adapters."""
    adapters = [asyncio.create_task(host_adapter(url, port)) for _ in range(count)]
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.cancel()
        for result in await asyncio.gather(*adapters, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result


@contextlib.asynccontextmanager
async def client_adapter(url: str) -> AsyncIterator[int]:
    """Listen on a free port, and copy each connection to `url`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connect_websocket(url, proxy=None, compression=None, close_timeout=None) as websocket:
            await _copy(websocket, reader, writer)

    async with serve(handle) as port:
        yield port
