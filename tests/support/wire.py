"""A TCP proxy on loopback that can be cut, frozen and closed: the network, where it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self, cast


class _Side(asyncio.Protocol):
    """One socket of a carried connection."""

    def __init__(self, wire: Wire, other: _Side | None = None) -> None:
        self.wire = wire
        self.other = other
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.wire.sides.add(self)
        for data in self._early:
            self.transport.write(data)
        self._early.clear()
        if self.wire.frozen:  # uvloop starts reading after this method, whatever is said in it
            asyncio.get_running_loop().call_soon(self.transport.pause_reading)
        if self.other is None:
            self.wire.dial(self)

    def data_received(self, data: bytes) -> None:
        self.wire.carried += len(data)
        assert self.other is not None
        if self.other.transport is None:
            self.other._early.append(data)
        else:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        if self.other is not None and self.other.transport is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.wire.frozen and self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.wire.sides.discard(self)
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def reset(self) -> None:
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
        self._server: asyncio.Server | None = None
        self._dials: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shut()
        dials = tuple(self._dials)
        for task in dials:
            task.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
        while self.sides:
            self.cut()  # again: some were just being accepted
            await asyncio.sleep(0.01)

    async def open(self) -> None:
        """Listen: at first on any port, later on the same again."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Side(self), "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def shut(self) -> None:
        """Refuse new connections; those that are there go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

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

    def dial(self, side: _Side) -> None:
        """Connect the other side of a new connection."""
        side.other = _Side(self, side)
        task = asyncio.get_running_loop().create_task(self._dial(side, side.other))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, side: _Side, other: _Side) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: other, "127.0.0.1", self.target)
        except OSError:
            side.reset()
        except asyncio.CancelledError:
            self.sides.discard(other)  # uvloop closes what it had connected, and tells nobody
            raise
