"""The host's adapter of an evening: a WebSocket that waits; when bytes come, TCP and the next one."""

import asyncio
import contextlib
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

READ = 4096
tasks: set[asyncio.Task[None]] = set()


def wait_for_one(url: str, port: int, compression: str | None) -> None:
    task = asyncio.create_task(serve(url, port, compression))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def serve(url: str, port: int, compression: str | None) -> None:
    async with connect(url, compression=compression, max_size=None) as websocket:
        with contextlib.suppress(ConnectionClosed, OSError):
            first = await websocket.recv(decode=False)
            wait_for_one(url, port, compression)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)

            async def up() -> None:
                async for message in websocket:
                    assert isinstance(message, bytes)
                    writer.write(message)
                    await writer.drain()
                writer.close()

            upward = asyncio.create_task(up())
            while data := await reader.read(READ):
                await websocket.send(data)
            upward.cancel()
            writer.close()


async def main() -> None:
    wait_for_one(sys.argv[1], int(sys.argv[2]), "deflate" if "--deflate" in sys.argv else None)
    await asyncio.Event().wait()


asyncio.run(main())
