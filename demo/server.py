"""A sample TCP server: echoes everything, and closes when the other side has.

python -m demo.server [ADDRESS:]PORT
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

CHUNK = 256 * 1024


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    with contextlib.suppress(OSError):  # reset by the other side
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    server = await asyncio.start_server(echo, host, port, limit=CHUNK, backlog=1024)
    print(f"echo on {host}:{server.sockets[0].getsockname()[1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


def main() -> int:
    """Run the command."""
    if len(sys.argv) != 2 or not sys.argv[1].rpartition(":")[2].isdigit():
        print("usage: python -m demo.server [ADDRESS:]PORT", file=sys.stderr)
        return 2
    host, _, port = sys.argv[1].rpartition(":")
    asyncio.run(serve(host or "127.0.0.1", int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
