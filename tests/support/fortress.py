"""A relay with honest streams on it, in a thread of its own, for a test that attacks it from outside."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from tunnel_core.protocol import tokens
from tunnel_core.protocol.endpoints import INSTANCE_KEY_HEADER, SUBPROTOCOL, Role, new_id
from websockets.frames import Frame, Opcode

from support.apps import block, close, connect, echo, serve, until
from support.system import SECRET, System

HONEST = 20
QUESTION = 3000  # bytes


class Fortress:
    """Stands until the test leaves it. `check` asserts that the honest streams are whole and moving."""

    def __init__(self, **relay: Any) -> None:
        self._settings = relay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._stop: asyncio.Event
        self._life: Any = None
        self._ready = threading.Event()
        self.answers = [0] * HONEST
        self.longest = 0.0  # seconds that an honest stream waited for an answer
        self.failures: list[str] = []
        self.system: System

    def __enter__(self) -> Self:
        self._thread.start()
        self._life = asyncio.run_coroutine_threadsafe(self._live(), self._loop)
        while not self._ready.wait(0.1):
            if self._life.done():
                self._life.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._life.result(60)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        async with serve(echo) as target, System(**self._settings) as self.system:
            port = await self.system.pair(target)
            async with asyncio.TaskGroup() as group:
                for number in range(HONEST):
                    group.create_task(self._honest(port, number))
                await until(lambda: all(self.answers) or self.failures)
                self._ready.set()

    async def _honest(self, port: int, number: int) -> None:
        reader, writer = await connect(port)
        try:
            while not self._stop.is_set():
                question = block(QUESTION, number * 1_000_000 + self.answers[number])
                asked = time.monotonic()
                writer.write(question)
                if await reader.readexactly(QUESTION) != question:
                    self.failures.append(f"stream {number}: another answer than the question")
                    return
                self.answers[number] += 1
                self.longest = max(self.longest, time.monotonic() - asked)
                await asyncio.sleep(0.02)  # a player's pace
        except (OSError, EOFError) as exc:
            self.failures.append(f"stream {number}: {exc!r}")
        finally:
            await close(writer)

    def check(self, patience: float = 20.0) -> None:
        """All honest streams are whole, and each gets a further answer."""
        before = list(self.answers)

        async def moved() -> None:
            await until(
                lambda: self.failures or all(now > then for now, then in zip(self.answers, before, strict=True)),
                patience,
            )

        self.run(moved())
        assert self.failures == []
        assert self.system.events("bug") == []

    def run(self, coroutine: Any) -> Any:
        """Run something in the fortress' own event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    @property
    def port(self) -> int:
        return self.system.relay.port

    @property
    def legs(self) -> int:
        return len(self.system.relay.pairing.legs)


def token(role: Role, tunnel: str = "mc", subject: str = "mallory") -> str:
    """A genuine token, for an attacker who has one."""
    return tokens.issue(SECRET.encode(), role=role, tunnels=[tunnel], subject=subject, expires=4e9)


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
    """A TCP connection to the relay, by hand."""

    count = 0  # of all so far

    def __init__(self, port: int) -> None:
        Attacker.count += 1
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
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
