"""An attacker's side of a connection, frame by frame. It imports little: many are started at once."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from tunnel_core.protocol.endpoints import INSTANCE_KEY_HEADER, SUBPROTOCOL, new_id
from websockets.frames import Frame, Opcode


def request(path: str, *, headers: dict[str, str] | None = None, bearer: str = "", v1: bool = False) -> bytes:
    """An upgrade request."""
    fields = {
        "Host": "relay",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    if bearer:
        fields["Authorization"] = f"Bearer {bearer}"
    if v1:
        fields |= {"Sec-WebSocket-Protocol": SUBPROTOCOL, INSTANCE_KEY_HEADER: new_id()}
    fields |= headers or {}
    return f"GET {path} HTTP/1.1\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in fields.items()) + b"\r\n"


class Attacker:
    """A TCP connection to the relay, by hand: from `source`, and with a receive buffer of so many bytes."""

    count = 0  # of all so far

    def __init__(self, port: int, *, source: str = "127.0.0.1", receives: int = 0) -> None:
        Attacker.count += 1
        self.sock = socket.socket()
        self.sock.settimeout(20)
        if receives:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        try:
            self.sock.bind((source, 0))
            self.sock.connect(("127.0.0.1", port))
        except BaseException:
            self.sock.close()
            raise
        self._got = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send, unless the relay has had enough."""
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def upgrade(self, path: str, **options: Any) -> None:
        """Become a leg."""
        self.send(request(path, **options))
        head = self.head()
        assert head.startswith(b"HTTP/1.1 101"), head

    def head(self) -> bytes:
        """The head of the relay's HTTP answer; less, if it closed before."""
        while b"\r\n\r\n" not in self._got:
            data = self._read()
            if not data:
                break
            self._got += data
        head, _, self._got = self._got.partition(b"\r\n\r\n")
        return head

    def _read(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except ConnectionResetError:
            return b""

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The frames that come, until the relay closes the connection."""
        while True:
            while True:
                frame, rest = _split(self._got)
                if frame is None:
                    break
                self._got = rest
                yield frame
            data = self._read()
            if not data:
                return
            self._got += data

    def heard(self) -> dict[str, Any]:
        """The next control message; what else comes before it is passed over. Raises EOFError if none comes."""
        for opcode, payload in self.frames():
            if opcode == Opcode.TEXT:
                message: dict[str, Any] = json.loads(payload)
                return message
        raise EOFError

    def close_code(self) -> int | None:
        """The close code that the relay ends the connection with; None if it just ends."""
        code = None
        for opcode, payload in self.frames():
            if opcode == Opcode.CLOSE and len(payload) >= 2:
                (code,) = struct.unpack("!H", payload[:2])
        return code


def _split(data: bytes) -> tuple[tuple[int, bytes] | None, bytes]:
    """The first whole frame of what a server sent, and the rest."""
    if len(data) < 2:
        return None, data
    length, start = data[1] & 0x7F, 2
    if length == 126:
        if len(data) < 4:
            return None, data
        (length,), start = struct.unpack("!H", data[2:4]), 4
    elif length == 127:
        if len(data) < 10:
            return None, data
        (length,), start = struct.unpack("!Q", data[2:10]), 10
    if len(data) < start + length:
        return None, data
    return (data[0] & 0x0F, data[start : start + length]), data[start + length :]


def masked(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's frame."""
    return Frame(opcode, payload, fin=fin).serialize(mask=True)


def said(kind: str, **fields: Any) -> bytes:
    """A control message as a client's frame."""
    return masked(Opcode.TEXT, json.dumps({"type": kind, **fields}).encode())
