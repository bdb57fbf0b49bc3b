"""A local port that leads to a tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunnel_core.net import ports
from tunnel_core.net.address import Address


class Listener:
    """Bound when it is made, so that a port that is taken is known at once; accepts from `start` to `stop`.

    `accept` makes the protocol of each connection.
    """

    def __init__(self, host: str, port: int, tunnel: str, accept: Callable[[], asyncio.BaseProtocol]) -> None:
        self.tunnel = tunnel
        self._accept = accept
        self._sockets = ports.listen(host, port)
        self.addresses = [Address(*sock.getsockname()[:2]) for sock in self._sockets]
        self.address = self.addresses[0]
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        for sock in self._sockets:
            self._servers.append(await ports.accept(self._accept, sock))

    def stop(self) -> None:
        for server in self._servers:
            server.close()
