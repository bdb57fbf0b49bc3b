"""The least that a hop on uvloop can be: two transports, and what one reads the other writes.

python forward_loop.py PORT TARGET
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

READ = memoryview(bytearray(128 * 1024))


class End(asyncio.BufferedProtocol):
    """One socket of a pair. The one that was accepted makes the other, to port `target`."""

    def __init__(self, target: int = 0, peer: End | None = None) -> None:
        self.target = target
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []  # written before there was a connection
        self.ended = False  # it has sent its FIN
        self.peer = peer or End(peer=self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.target:
            self.dialing = asyncio.get_running_loop().create_task(self.dial(self.transport))
        for data in self.early:
            self.transport.write(data)
        if self.peer.ended:
            self.transport.write_eof()

    async def dial(self, transport: asyncio.Transport) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.peer, "127.0.0.1", self.target)
        except OSError:
            transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return READ

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(READ[:nbytes])
        if self.peer.transport is None:
            self.peer.early.append(data)
        else:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.peer.transport is not None:
            self.peer.transport.write_eof()
        return not self.peer.ended  # once both have said all, both close

    def pause_writing(self) -> None:
        if self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer.transport is not None:
            self.peer.transport.close()


async def main(port: int, target: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: End(target), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
