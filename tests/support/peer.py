"""A WebSocket peer by hand, frame by frame: it does what no library would. And single HTTP requests."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tunnel_core.protocol.endpoints import INSTANCE_KEY_HEADER, LEG_HEADER, SUBPROTOCOL, new_id
from websockets.frames import Close, Frame, Opcode

from support.apps import Streams, close, connect, reset

__all__ = ["Answer", "Opcode", "Peer", "ask", "get", "handshake"]


@dataclass(frozen=True)
class Answer:
    """An HTTP response. `headers` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str = ""


async def ask(streams: Streams, path: str, headers: Mapping[str, str]) -> Answer:
    """Send a GET and read the response up to its blank line."""
    reader, writer = streams
    lines = [f"GET {path} HTTP/1.1", "Host: test", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.split(": ", 1) for line in head[1:] if line)
    return Answer(int(head[0].split()[1]), {name.lower(): value for name, value in fields})


async def get(
    port: int, path: str, headers: Mapping[str, str] | None = None, *, upgrade: bool = False, host: str = "127.0.0.1"
) -> Answer:
    """One request, as a WebSocket upgrade or not, on a connection of its own."""
    streams = await connect(port, host)
    try:
        answer = await ask(streams, path, {**(headers or {}), **(handshake() if upgrade else {})})
        if answer.status == 101:
            return answer
        body = await streams[0].readexactly(int(answer.headers["content-length"]))
        assert await streams[0].read() == b"", "one answer, and the end"
        return Answer(answer.status, answer.headers, body.decode())
    finally:
        await close(streams[1])


def handshake() -> dict[str, str]:
    """The headers of a WebSocket handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
    }


class Peer:
    """A leg to a relay: raw, or v1 if it was dialed so. It answers nothing by itself, neither ping nor close."""

    def __init__(self, streams: Streams, leg: str = "") -> None:
        self.reader, self.writer = streams
        self.leg = leg  # its id, of a v1 leg

    @classmethod
    async def dial(
        cls, port: int, path: str, headers: Mapping[str, str] | None = None, *, v1: bool = False, instance_key: str = ""
    ) -> Self:
        """Open a leg. `instance_key` is made up for a v1 host leg that is given none."""
        streams = await connect(port)
        offered = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if v1 else {}
        if v1 and path.startswith("/host"):
            offered[INSTANCE_KEY_HEADER] = instance_key or new_id()
        answer = await ask(streams, path, {**handshake(), **offered, **(headers or {})})
        assert answer.status == 101, answer
        assert answer.headers.get("sec-websocket-protocol") == (SUBPROTOCOL if v1 else None)
        return cls(streams, answer.headers.get(LEG_HEADER.lower(), ""))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await close(self.writer)

    async def send(self, payload: bytes, opcode: Opcode = Opcode.BINARY) -> None:
        """Send one frame, masked. Raises OSError once the connection is gone."""
        if self.writer.transport.is_closing():
            raise ConnectionResetError  # uvloop raises RuntimeError instead
        self.writer.write(Frame(opcode, payload).serialize(mask=True))
        await self.writer.drain()

    async def say(self, kind: str, **fields: Any) -> None:
        """Send a control message."""
        await self.send(json.dumps({"type": kind, **fields}).encode(), Opcode.TEXT)

    async def send_close(self, code: int) -> None:
        """Send a close frame, and nothing else."""
        await self.send(Close(code, "").serialize(), Opcode.CLOSE)

    async def frame(self) -> Frame:
        """The next frame. Raises IncompleteReadError at the end of the connection."""
        first, second = await self.reader.readexactly(2)
        assert not second & 0x80, "a server does not mask"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return Frame(Opcode(first & 0x0F), await self.reader.readexactly(length), fin=bool(first & 0x80))

    async def heard(self) -> dict[str, Any]:
        """The next frame, which must be a control message."""
        frame = await self.frame()
        assert frame.opcode is Opcode.TEXT, frame
        message: dict[str, Any] = json.loads(bytes(frame.data))
        return message

    async def closed(self) -> Close:
        """The next frame, which must be a close."""
        frame = await self.frame()
        assert frame.opcode is Opcode.CLOSE, frame
        return Close.parse(bytes(frame.data))

    async def data(self, size: int) -> bytes:
        """The next `size` bytes of binary payload."""
        got = b""
        while len(got) < size:
            frame = await self.frame()
            assert frame.opcode is Opcode.BINARY, frame
            got += bytes(frame.data)
        return got

    async def ended(self) -> None:
        """Wait for the end of the connection, after which nothing came."""
        assert await self.reader.read() == b""

    def reset(self) -> None:
        """Leave with RST."""
        reset(self.writer)
