"""The client's adapter of an evening: a WebSocket for each TCP connection."""

import asyncio
import contextlib
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

READ = 4096


async def main(url: str, port: int, compression: str | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connect(url, compression=compression, max_size=None) as websocket:

            async def down() -> None:
                async for message in websocket:
                    assert isinstance(message, bytes)
                    writer.write(message)
                    await writer.drain()
                writer.close()

            downward = asyncio.create_task(down())
            with contextlib.suppress(ConnectionClosed, OSError):
                while data := await reader.read(READ):
                    await websocket.send(data)
            downward.cancel()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), "deflate" if "--deflate" in sys.argv else None))
