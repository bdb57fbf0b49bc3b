"""A TCP proxy on loopback that can be cut, frozen and closed: the network, where it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine
from types import TracebackType
from typing import Self, cast

from support.apps import Listener


class _Side(asyncio.Protocol):
    """One socket of a carried connection."""

    other: _Side

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.wire.sides.add(self)  # from now on: a cut breaks what is still being connected, too
        self._cut = False
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._cut:
            self.reset()
            return
        for data in self._early:
            self.transport.write(data)
        self._early.clear()
        if self.wire.frozen:  # uvloop starts reading after this method, whatever is said in it
            asyncio.get_running_loop().call_soon(self.transport.pause_reading)

    def data_received(self, data: bytes) -> None:
        self.wire.carried += len(data)
        if self.other.transport is None:
            self.other._early.append(data)
        else:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        if self.other.transport is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.wire.frozen and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.wire.sides.discard(self)
        self.transport = None
        self.gone.set_result(None)
        if self.other.transport is not None:
            self.other.transport.close()

    def reset(self) -> None:
        self._cut = True
        if self.transport is not None and not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            if sock is None or sock.fileno() < 0:
                return  # uvloop has closed it, and is about to say so
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


class Wire:
    """Listens on a free port of 127.0.0.1 and carries to `port`, which may change."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.sides: set[_Side] = set()
        self.frozen = False
        self.carried = 0  # bytes, both ways
        self._listener = Listener(self._carry)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        await self._listener.stop()

    async def open(self) -> None:
        """Listen: at first on any port, later on the same again."""
        self.port = self._listener.listen(self.port)

    def shut(self) -> None:
        """Refuse new connections; those that are there go on."""
        self._listener.shut()

    def cut(self) -> None:
        """Break every connection, with RST to both ends."""
        for side in tuple(self.sides):
            side.reset()

    def freeze(self) -> None:
        """Carry nothing more, and say nothing of it: as if a cable had been pulled."""
        self.frozen = True
        for side in self.sides:
            if side.transport is not None:
                side.transport.pause_reading()

    def thaw(self) -> None:
        """Carry on."""
        self.frozen = False
        for side in self.sides:
            if side.transport is not None:
                side.transport.resume_reading()

    def _carry(self, sock: socket.socket) -> Coroutine[None, None, None]:
        near, far = _Side(self), _Side(self)
        near.other, far.other = far, near
        return self._join(sock, near, far)

    async def _join(self, sock: socket.socket, near: _Side, far: _Side) -> None:
        loop = asyncio.get_running_loop()
        joined = []
        try:
            await loop.connect_accepted_socket(lambda: near, sock)
            joined.append(near.gone)
            await loop.create_connection(lambda: far, "127.0.0.1", self.target)
            joined.append(far.gone)
            if near.transport is None and far.transport is not None:
                far.transport.close()  # nobody is there any more
            await asyncio.gather(*map(asyncio.shield, joined))
        except (OSError, asyncio.CancelledError):
            pass  # nobody listens there; or the test is over
        finally:
            self.sides -= {near, far}  # uvloop closes what it was connecting, and tells nobody
            near.reset()
            far.reset()
            await asyncio.gather(*joined)
