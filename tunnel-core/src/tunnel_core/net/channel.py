"""A connection before it is a leg: a proxy and the WebSocket handshake are spoken to on it, one after the other."""

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
MAX_HEAD: Final = 16 * 1024  # bytes of a status line with its headers: as a server here takes them


class Channel(asyncio.Protocol):
    """Gives out what is asked for, and keeps the rest for the leg: nothing is read on its behalf."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._received = bytearray()
        self._ended = False
        self._changed = asyncio.Event()

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        """A channel on a connected socket, which is its own from now on."""
        _, channel = await asyncio.get_running_loop().create_connection(cls, sock=sock)
        return channel

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on, with whoever has a certificate for `host`. Raises OSError (ssl.SSLError)."""
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(self.transport, self, context, server_hostname=host)
        if transport is None:  # uvloop, of a connection that was closed meanwhile
            raise ConnectionResetError("the connection was closed")
        self.transport = transport

    async def read(self) -> bytes:
        """What has come, or comes next; empty at the end."""
        while not self._received and not self._ended:
            await self._change()
        return self._take(len(self._received))

    async def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises ConnectionResetError if there are no more."""
        while len(self._received) < size:
            if self._ended:
                raise ConnectionResetError("no whole answer")
            await self._change()
        return self._take(size)

    async def read_head(self) -> bytes:
        """All up to a blank line, with that. It lacks where there is an end before, or none in MAX_HEAD bytes."""
        while (end := self._received.find(BLANK_LINE)) < 0 and len(self._received) < MAX_HEAD and not self._ended:
            await self._change()
        return self._take(end + len(BLANK_LINE) if end >= 0 else len(self._received))

    @property
    def unread(self) -> int:
        """Bytes that have come, and that nobody has asked for."""
        return len(self._received)

    async def upgrade(self, protocol: ClientProtocol) -> Response:
        """Send the request of `protocol`; its 101 response. Raises what `websockets` has for any other."""
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
        """Give the connection to a leg, with what has come for it."""
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
