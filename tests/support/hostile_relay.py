"""A relay that says whatever a test wants, in whatever pieces, to agents that dial it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
from types import TracebackType
from typing import Any, Self

from tunnel_core.protocol.endpoints import LEG_HEADER, SUBPROTOCOL, new_id
from websockets.frames import Frame, Opcode

from support.apps import Listener, adopt, close

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


def frame(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A server's frame."""
    return Frame(opcode, payload, fin=fin).serialize(mask=False)


def says(kind: str, **fields: Any) -> bytes:
    """A control message as a server's frame."""
    return frame(Opcode.TEXT, json.dumps({"type": kind, **fields}).encode())


class DialedLeg:
    """A leg that an agent has dialed, from the relay's side. Nothing is answered but by the test."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.over = asyncio.Event()  # the agent has closed the connection
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def heard(self) -> dict[str, Any]:
        """The next control message."""
        return await self._heard.get()

    def hears(self, message: dict[str, Any]) -> None:
        self._heard.put_nowait(message)


class HostileRelay:
    """Listens on a free port and upgrades each leg, with `greeting` in the segment of the 101 response."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.port = 0
        # Which leg a client-agent opened which stream on.
        self.opened: asyncio.Queue[tuple[DialedLeg, str]] = asyncio.Queue()
        self._legs: asyncio.Queue[DialedLeg] = asyncio.Queue()
        self._listener = Listener(self._serve)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def leg(self) -> DialedLeg:
        """The next leg that is not over, in the order in which they were dialed."""
        while True:
            leg = await self._legs.get()
            if not leg.over.is_set():
                return leg

    async def __aenter__(self) -> Self:
        self.port = self._listener.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.stop()

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await adopt(sock)
        leg = DialedLeg(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            key = next(
                line.split()[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")
            )
            lines = [
                "HTTP/1.1 101 Switching Protocols",
                "Upgrade: websocket",
                "Connection: Upgrade",
                f"Sec-WebSocket-Accept: {base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()}",
                f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
                f"{LEG_HEADER}: {new_id()}",
            ]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + self.greeting)
            self._legs.put_nowait(leg)
            while True:
                await self._read(reader, leg)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the agent has gone, or the test is over
        finally:
            leg.over.set()
            writer.transport.abort()
            await close(writer)

    async def _read(self, reader: asyncio.StreamReader, leg: DialedLeg) -> None:
        """Read one frame of the agent's."""
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
        key = await reader.readexactly(4)
        payload = await reader.readexactly(length)
        if first & 0x0F == Opcode.TEXT:
            message = json.loads(bytes(byte ^ key[i % 4] for i, byte in enumerate(payload)))
            leg.hears(message)
            if message["type"] == "open":
                self.opened.put_nowait((leg, message["stream"]))
