"""A local TCP connection: from the client application, or to the target."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final, cast

from ..protocol.local import HOLD_END, Carrier
from ..protocol.replay import ReplayMemory
from .address import Address, is_ip
from .connecting import connect
from .sockets import reset_on_close, tune, unread_of

# Writes of at least this many bytes go straight to the socket; the transport would copy them.
LARGE_WRITE: Final = 16 * 1024 if hasattr(os, "writev") else sys.maxsize
# Writes that may wait for the socket; further ones are gathered. uvloop needs 0.8 KB for each, however small.
MANY_WRITES: Final = 64


class TcpConnection(asyncio.BufferedProtocol):
    """Connects a socket to the `carrier` of its bytes. Reads go into the block of `memory`.

    Bytes written before the connection is established are queued. When a write fails, whatever the other
    side sent before it closed is still read and carried; only then is the connection reported broken.
    """

    carrier: Carrier

    def __init__(self, memory: ReplayMemory, connected: Callable[[], None] | None = None) -> None:
        self._memory = memory
        self._connected = connected  # called once, before any byte can arrive
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []  # written before there was a socket; at most EARLY_DATA
        self._early_eof = False
        self._holds = 0
        self._limits = (0, 0)
        self._writes = 0  # since the socket had taken everything
        self._gathered = bytearray()  # what will be written once it has taken what waits
        self._closing = False  # no more writes
        self._dial: asyncio.Task[None] | None = None
        self._peer_eof = False
        self._failure = ""  # why the connection broke, while `_unread` is being read
        self._unread: socket.socket | None = None  # holds what the peer sent before the break

    def dial(
        self, address: Address, patience: float, connected: Callable[[], None], failed: Callable[[OSError], None]
    ) -> None:
        """Connect to `address`, then call `connected` or `failed`, unless the connection is closed first.

        `failed` gets the OSError: TimeoutError after `patience` seconds.
        """
        self._connected = connected
        self._dial = asyncio.get_running_loop().create_task(self._connect(address, patience, failed))

    async def _connect(self, address: Address, patience: float, failed: Callable[[OSError], None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            if not address.is_unix and is_ip(address.host):
                # For a single IP address the loop's own connect is a third faster.
                async with asyncio.timeout(patience):
                    await loop.create_connection(lambda: self, *address)
                return
            sock = await connect(address, patience)
            try:
                await loop.create_connection(lambda: self, sock=sock)
            except BaseException:
                sock.close()
                raise
        except OSError as exc:
            failed(exc)
        finally:
            self._dial = None

    @property
    def peer(self) -> str:
        """The address at the other end, for logs."""
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        # Show an IPv4 peer of a dual-stack socket in IPv4 notation.
        return str(Address(peer[0].removeprefix("::ffff:"), peer[1])) if isinstance(peer, tuple) else "a Unix socket"

    # Local, as a stream sees it.

    @property
    def pending(self) -> int:
        if self._transport is not None:
            return self._transport.get_write_buffer_size() + len(self._gathered)
        return sum(map(len, self._early))

    def write(self, pieces: Sequence[memoryview | bytes]) -> None:
        if self._closing:
            return
        taken = self._write_at_once(pieces) if len(pieces[0]) >= LARGE_WRITE else 0
        if taken and taken == sum(map(len, pieces)):
            return
        # Copy: a transport that cannot write everything keeps a reference, and
        # the read buffer is about to be reused.
        data = b"".join(pieces)[taken:]
        if self._transport is None:
            self._early.append(data)
        elif self._gathered or self._must_gather(self._transport):
            self._gathered += data
        else:
            self._transport.write(data)

    def _must_gather(self, transport: asyncio.Transport) -> bool:
        """Whether so many writes wait for the socket that the next ones have to become one."""
        if not transport.get_write_buffer_size():
            self._writes = 0
            return False
        self._writes += 1
        if self._writes < MANY_WRITES:
            return False
        transport.set_write_buffer_limits(0)  # `resume_writing` is called once all has left
        return True

    def _write_gathered(self) -> None:
        data, self._gathered, self._writes = bytes(self._gathered), bytearray(), 0
        if data and self._transport is not None:
            self._transport.write(data)

    def _write_at_once(self, pieces: Sequence[memoryview | bytes]) -> int:
        """Write to the socket, unless bytes are queued for it. Returns how many bytes it took."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return 0
        try:
            return os.writev(transport.get_extra_info("socket").fileno(), pieces)
        except OSError:
            return 0  # the transport will run into it as well

    def write_first(self, data: bytes) -> None:
        """Write what is not the stream's, as soon as there is a socket: it counts as nothing that is pending."""
        transport = self._transport
        assert transport is not None, "to be called from `connected`"
        sock = transport.get_extra_info("socket")
        plain = socket.socket(sock.family, sock.type, sock.proto, sock.fileno())  # that of a transport cannot send
        try:
            sent = plain.send(data)
        except OSError:
            sent = 0
        finally:
            plain.detach()
        if sent < len(data):  # of a socket that is new: the other side is gone already
            transport.abort()

    def write_eof(self) -> None:
        if self._closing:
            return
        if self._transport is None:
            self._early_eof = True
            return
        # The FIN is acknowledged once the last byte has left: have the transport report that.
        self._write_gathered()
        self._transport.set_write_buffer_limits(0)
        self._transport.write_eof()

    def set_window(self, window: int) -> None:
        """Call `local_drained` when the pending bytes, once above half a window, fall to a quarter."""
        self._limits = (window // 2, window // 4)
        if self._transport is not None:
            self._transport.set_write_buffer_limits(*self._limits)

    def close(self) -> None:
        self._forget_rest()
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._forget_rest()
        if self._closing:
            return
        self._closing = True
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size():
            # uvloop writes after handling all events: let bytes from before the reset leave first.
            self.hold(HOLD_END)
            asyncio.get_running_loop().call_soon(self._reset)
        else:
            self._reset()

    def _reset(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            reset_on_close(self._transport.get_extra_info("socket"))
            self._transport.abort()

    def hold(self, reason: int) -> None:
        if not self._holds and self._transport is not None:
            self._transport.pause_reading()
        self._holds |= reason

    def release(self, reason: int) -> None:
        if self._holds:
            self._holds &= ~reason
            if self._holds:
                return
            if self._unread is not None:
                asyncio.get_running_loop().call_soon(self._read_rest)
            elif self._transport is not None and not self._closing:
                self._transport.resume_reading()

    def _read_rest(self) -> None:
        """Carry what the broken connection still holds, as fast as credit allows; then report the break."""
        while self._unread is not None:
            if self._holds:
                return
            size = 0
            with contextlib.suppress(OSError):
                size = self._unread.recv_into(self.get_buffer(-1))
            if size:
                self.carrier.local_data(self._memory.block[:size])
            else:
                self._forget_rest()
                self.carrier.local_broken(self._failure)

    def _forget_rest(self) -> None:
        """Stop dialing, and stop reading a broken connection."""
        if self._dial is not None:
            self._dial.cancel()
        if self._unread is not None:
            self._unread.close()
            self._unread = None

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        if self._closing:
            self._closing = False
            self.abort()
            return
        if self._dial is not None:
            tune(transport.get_extra_info("socket"))
        connected, self._connected = self._connected, None
        if connected is not None:
            connected()
        if self._limits[0]:
            transport.set_write_buffer_limits(*self._limits)
        if self._early:
            transport.write(b"".join(self._early))  # asyncio's writelines may forget to tell when it has left
            self._early = []
            self.carrier.local_drained()  # the transport only reports after its buffer was above the limit
        if self._early_eof:
            self.write_eof()
        if self._holds:
            # uvloop starts reading after this method, even if it is paused in it.
            asyncio.get_running_loop().call_soon(self._pause_if_held)

    def _pause_if_held(self) -> None:
        if self._holds and self._transport is not None:
            self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        memory, credit = self._memory, self.carrier.credit
        return memory.block if credit >= memory.block_size else memory.block[:credit]

    def buffer_updated(self, nbytes: int) -> None:
        self.carrier.local_data(self._memory.block[:nbytes])

    def eof_received(self) -> bool:
        self._peer_eof = True
        self.carrier.local_eof()
        return True  # the other direction continues

    def resume_writing(self) -> None:
        if self._gathered and self._transport is not None:
            self._transport.set_write_buffer_limits(*(self._limits if self._limits[0] else (None, None)))
            self._write_gathered()
        self.carrier.local_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        transport, self._transport = self._transport, None
        if self._closing:
            return
        self._closing = True
        self._failure = str(exc or "connection closed")
        if exc is not None and transport is not None and not self._peer_eof:
            self._unread = unread_of(transport.get_extra_info("socket"))
        if self._unread is not None:
            self._read_rest()
        else:
            self.carrier.local_broken(self._failure)
