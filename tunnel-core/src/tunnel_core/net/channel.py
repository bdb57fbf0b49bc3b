"""A connection before it becomes a leg: first the proxy's handshake, if any, then the WebSocket's."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidMessage
from websockets.http11 import Response

from .leg import Leg

BLANK_LINE: Final = b"\r\n\r\n"
MAX_HEAD: Final = 16 * 1024  # bytes of a status line and its headers: the same limit as for our server


class Channel(asyncio.Protocol):
    """Hands out the bytes asked for, and keeps the rest for the leg."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._received = bytearray()
        self._ended = False
        self._changed = asyncio.Event()

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        """A channel over a connected socket, which it takes over."""
        _, channel = await asyncio.get_running_loop().create_connection(cls, sock=sock)
        return channel

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Start TLS, and check the certificate for `host`. Raises OSError (ssl.SSLError)."""
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(self.transport, self, context, server_hostname=host)
        if transport is None:  # uvloop, if the connection was closed meanwhile
            raise ConnectionResetError("the connection was closed")
        self.transport = transport

    async def read(self) -> bytes:
        """The bytes that have come, or the next ones; empty at EOF."""
        while not self._received and not self._ended:
            await self._change()
        return self._take(len(self._received))

    async def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises ConnectionResetError if EOF comes first."""
        while len(self._received) < size:
            if self._ended:
                raise ConnectionResetError("no whole answer")
            await self._change()
        return self._take(size)

    async def read_head(self) -> bytes:
        """Everything up to and including a blank line, or what there is at EOF or after MAX_HEAD bytes."""
        while (end := self._received.find(BLANK_LINE)) < 0 and len(self._received) < MAX_HEAD and not self._ended:
            await self._change()
        return self._take(end + len(BLANK_LINE) if end >= 0 else len(self._received))

    @property
    def unread(self) -> int:
        """Bytes received and not asked for yet."""
        return len(self._received)

    async def upgrade(self, protocol: ClientProtocol) -> Response:
        """Send the request of `protocol` and return the 101 response. Raises `websockets`' exception for any other."""
        self.transport.write(b"".join(protocol.data_to_send()))
        head = await self.read_head()
        if len(head) >= MAX_HEAD and not head.endswith(BLANK_LINE):
            raise InvalidMessage("headers too large")
        protocol.receive_data(head)
        while not (events := protocol.events_received()) and protocol.handshake_exc is None:
            data = await self.read()  # the body of another response
            if data:
                protocol.receive_data(data)
            else:
                protocol.receive_eof()
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc
        return cast("Response", events[0])

    def become(self, leg: Leg) -> None:
        """Hand the connection over to a leg, with the bytes received for it."""
        self.transport.set_protocol(leg)
        leg.connection_made(self.transport)
        if self._received:
            leg.feed(memoryview(bytes(self._received)))

    def _take(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._changed.set()

    def eof_received(self) -> None:
        self._ended = True
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof_received()
