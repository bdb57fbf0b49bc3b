"""The relay as one writes it with `websockets`' asyncio API: a task a direction. No access, no metrics, no drain.

    python relay_of_tasks.py PORT

It has what ours has besides the pump: uvloop, no compression, no limit of a message's size.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


async def pump(source: ServerConnection, sink: ServerConnection) -> None:
    try:
        async for message in source:
            await sink.send(message)
    except ConnectionClosed:
        pass
    await sink.close()


async def main(port: int) -> None:
    hosts: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path.startswith("/host"):
            hosts.put_nowait(connection)
            await connection.wait_closed()
            return
        host = await hosts.get()
        await asyncio.gather(pump(connection, host), pump(host, connection))

    async with serve(handle, "127.0.0.1", port, compression=None, max_size=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
