"""What one WebSocket connection sends: whole frames, at once, with bounds on what the socket has not taken.

A binary message is one write. Control frames wait until the end of the iteration of the event loop, so
that they leave together, or with the data that follows them.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final, cast

from websockets.frames import Close

from ..protocol.frames import CLOSE, TEXT, CloseCode, control_frame, masked_frame, new_key, plain_frame
from .sockets import forgets_to_pause

# Seconds that a message nobody waits for may wait for others: a write wakes a process at each
# of two hops, and costs more than all else about a message.
LINGER: Final = 0.001
# Bytes that wait for the socket at which whoever feeds the leg is told to pause, and at
# which it may go on.
HIGH_WATER: Final = 256 * 1024
LOW_WATER: Final = 64 * 1024
# After so many small writes the leg is congested, too, if the socket has not taken them all. uvloop keeps 0.8 KB for
# each write that waits: HIGH_WATER in frames of one byte would be 87,000 writes and 70 MB.
MANY_WRITES: Final = 256
# A leg with more unsent bytes is dropped. Feeders that pause when they are told to add at most one read (128 KiB) and
# what was held before the pairing (64 KiB and a read) to HIGH_WATER. More than that, and half as much again, is
# answers that the peer asks for and does not read.
MOST_UNSENT: Final = 1024 * 1024
JOIN: Final = 4096  # bytes up to which copying header and payload together beats a gathering write

# The codes that end a connection in peace: to a raw leg they are a FIN, all others an RST.
PEACEFUL: Final = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)

# The kernel's copy takes up to four times as long from addresses that lie badly to its own
# buffers. Malloc would give each payload the place of the one before: a bad one for ever.
_last_payloads: Final[deque[memoryview | bytes]] = deque(maxlen=3)


class Outgoing(asyncio.BufferedProtocol):
    """The sending half of a leg.

    `client` is whether this end is the WebSocket client, and so the one that masks. The peer has
    `close_timeout` seconds for its half of the close handshake, and to take what is unsent.
    """

    def __init__(self, *, client: bool, close_timeout: float) -> None:
        self._transport: asyncio.Transport | None = None
        self._close_timeout = close_timeout
        self._client = client
        self._frame = masked_frame if client else plain_frame
        self.bytes_out = 0
        self.congested = False  # more than HIGH_WATER bytes wait for the socket
        self._close_sent = False
        self._peace_sent = False  # and it promised that all went well
        self.close_received = False
        self._join = JOIN
        self._writes = 0  # small ones, since they were looked at
        self._corked: list[memoryview | bytes] = []  # control frames that leave together, or with data
        self._lingering = False  # they may all wait
        self.most_unsent = MOST_UNSENT
        self._loss = ""  # why it was dropped, if it was for a reason of our own

    def on_writable(self, writable: bool) -> None:
        """Stop feeding the leg, or go on."""

    @property
    def connected(self) -> bool:
        """Whether there is a socket: `on_gone` is still to come."""
        return self._transport is not None

    @property
    def open(self) -> bool:
        """Whether data can be sent: a leg that is not open is never given a stream or a peer."""
        return self._transport is not None and not self._close_sent and not self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the socket, or for the end of this iteration of the loop."""
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + sum(map(len, self._corked))

    def send(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        """Send one binary message: `size` bytes in pieces.

        A WebSocket client masks them, and so has copied them when this returns. A server keeps the
        pieces until the socket has taken them: nobody may change them.
        """
        transport = self._transport
        if transport is None or self._close_sent:
            return
        if self.congested and self._is_full():
            return
        frame = self._frame(pieces, size)
        self.bytes_out += size + len(frame[0])
        if size <= self._join:
            self._writes += 1
            if self._writes > MANY_WRITES:
                self._look_at_writes()
            if self._corked:
                self._corked += frame
                self._uncork()
            else:
                transport.write(b"".join(frame))
        else:
            self._uncork()
            if not transport.is_closing():  # asyncio's writelines, before 3.14, does not ask that itself
                transport.writelines(frame)
            if self._client:
                _last_payloads.append(frame[1])

    def send_text(self, payload: bytes, *, linger: bool = False) -> None:
        """Send a text message. One that may `linger` waits a moment for others to leave with."""
        self._send_control(TEXT, payload, linger=linger)

    def half_close(self) -> None:
        """Send a close frame after all that was sent; go on receiving until the peer sends its own."""
        self._send_close(CloseCode.NORMAL, "")

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame after all that was sent, and give the peer a while to answer.

        Code 1005 sends an empty one. If one was sent before that promised peace, and this
        one does not, the connection is dropped instead.
        """
        if self._peace_sent and code not in PEACEFUL:
            self.abort()
        elif self._transport is not None:
            self._send_close(code, reason)
            asyncio.get_running_loop().call_later(self._close_timeout, self.abort)

    def _send_close(self, code: int, reason: str) -> None:
        if self._transport is None or self._close_sent:
            return
        # A reason may be foreign text; a control frame has 125 bytes, two of them the code.
        text = reason.encode()[:120].decode(errors="ignore")
        self._send_control(CLOSE, b"" if code == CloseCode.NO_STATUS else Close(code, text).serialize())
        self._close_sent = True
        self._peace_sent = code in PEACEFUL
        if self.close_received:
            self._close_transport()

    def _close_transport(self) -> None:
        """Close once what is unsent has left; the peer may take a while for that, and no longer."""
        if self._transport is not None:
            self._uncork()
            self._transport.close()
            asyncio.get_running_loop().call_later(self._close_timeout, self.abort)

    def abort(self) -> None:
        """Drop the connection, and what the socket has not taken."""
        if self._transport is not None:
            self._uncork()
            self._transport.abort()

    def _send_control(self, opcode: int, payload: bytes, *, linger: bool = False) -> None:
        """Send a control frame or text: with what follows it, or at the end of this iteration of the loop."""
        if self._transport is not None and not self._close_sent:
            if self.congested and self._is_full():
                return
            frame = control_frame(opcode, payload, new_key() if self._client else b"")
            self.bytes_out += len(frame)
            if linger and not self._corked:
                self._lingering = True
                asyncio.get_running_loop().call_later(LINGER, self._uncork)
            elif not linger and (self._lingering or not self._corked):
                self._lingering = False
                loop = asyncio.get_running_loop()
                loop.call_soon(loop.call_soon, self._uncork)  # after the sockets were asked once more
            self._corked.append(frame)

    def _is_full(self) -> bool:
        """Whether too much is unsent to add to it. Then the connection is dropped, and `on_end` follows.

        It follows in the next iteration of the loop: whoever sends may be in the middle of something.
        """
        assert self._transport is not None, "only a connected leg is congested"
        if not self._transport.is_closing():
            if self.unsent <= self.most_unsent:
                return False
            self._loss = f"over {self.most_unsent >> 10} KiB unsent"
            self._corked.clear()
            self._transport.abort()
        return True

    def _uncork(self) -> None:
        if self._corked:
            frames, self._corked, self._lingering = self._corked, [], False
            self._writes += 1
            if self._writes > MANY_WRITES:
                self._look_at_writes()
            if self._transport is not None:
                self._transport.write(b"".join(frames))

    def _look_at_writes(self) -> None:
        """Be congested until the socket has taken everything, if something still waits for it."""
        self._writes = 0
        if self._transport is not None and self._transport.get_write_buffer_size() and not self.congested:
            self._transport.set_write_buffer_limits(0)

    def _set_limits(self) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)

    def pause_writing(self) -> None:
        self.congested = True
        self.on_writable(False)

    def resume_writing(self) -> None:
        self.congested = False
        self._set_limits()
        self.on_writable(True)

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        self._set_limits()
        if forgets_to_pause(transport):
            self._join = sys.maxsize
