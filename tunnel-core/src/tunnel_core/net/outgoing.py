"""The sending half of one WebSocket connection. It sends whole frames at once and bounds what is unsent.

A binary message is one write. Control frames wait until the end of the event loop's iteration, so that
they leave together, or with the data that follows them.
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

# Seconds that a message which is not urgent may wait to be sent with others. A write wakes a process at
# each of two hops, which costs more than everything else about the message.
LINGER: Final = 0.001
# Unsent bytes at which the leg's feeder must pause, and at which it may resume.
HIGH_WATER: Final = 256 * 1024
LOW_WATER: Final = 64 * 1024
# After this many small writes, the leg also counts as congested if any are unsent. uvloop needs 0.8 KB for each
# waiting write: HIGH_WATER in one-byte frames would be 87,000 writes and 70 MB.
MANY_WRITES: Final = 256
# A leg with more unsent bytes is dropped. A feeder that pauses on request adds at most one read (128 KiB) and what
# was held before pairing (64 KiB and a read) to HIGH_WATER. Anything well beyond that is answers that the peer
# requests but does not read.
MOST_UNSENT: Final = 1024 * 1024
JOIN: Final = 4096  # bytes up to which copying header and payload together beats a gathering write

# Close codes of a clean end: a raw leg turns these into a FIN, all others into an RST.
PEACEFUL: Final = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)

# Some address alignments make the kernel's copy up to four times slower. Holding three payloads makes malloc
# rotate addresses, instead of reusing a bad one forever.
_last_payloads: Final[deque[memoryview | bytes]] = deque(maxlen=3)


class Outgoing(asyncio.BufferedProtocol):
    """The sending half of a leg.

    `client` says whether this end is the WebSocket client, which masks what it sends. The peer has
    `close_timeout` seconds to finish the close handshake and to take unsent bytes.
    """

    def __init__(self, *, client: bool, close_timeout: float) -> None:
        self._transport: asyncio.Transport | None = None
        self._close_timeout = close_timeout
        self._client = client
        self._frame = masked_frame if client else plain_frame
        self.bytes_out = 0
        self.congested = False  # more than HIGH_WATER bytes wait for the socket
        self._close_sent = False
        self._peace_sent = False  # its code was one of PEACEFUL
        self.close_received = False
        self._join = JOIN
        self._writes = 0  # small writes since the last check
        self._corked: list[memoryview | bytes] = []  # control frames that leave together, or with data
        self._lingering = False  # all of them may wait
        self.most_unsent = MOST_UNSENT
        self._loss = ""  # why this end dropped the connection, if it did

    def on_writable(self, writable: bool) -> None:
        """Stop feeding the leg, or go on."""

    @property
    def connected(self) -> bool:
        """Whether there is a socket: `on_gone` is still to come."""
        return self._transport is not None

    @property
    def open(self) -> bool:
        """Whether data can be sent. A leg that is not open never gets a stream or a peer."""
        return self._transport is not None and not self._close_sent and not self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the socket or for the end of the loop's iteration."""
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + sum(map(len, self._corked))

    def send(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        """Send one binary message: `size` bytes in pieces.

        A WebSocket client masks into a copy, so the pieces are free when this returns. A server keeps
        the pieces until the socket has taken them: they must not change.
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
            if not transport.is_closing():  # before 3.14, asyncio's writelines does not check this
                transport.writelines(frame)
            if self._client:
                _last_payloads.append(frame[1])

    def send_text(self, payload: bytes, *, linger: bool = False) -> None:
        """Send a text message. With `linger` it may wait up to LINGER, to leave together with others."""
        self._send_control(TEXT, payload, linger=linger)

    def half_close(self) -> None:
        """Send a close frame after everything sent so far; keep receiving until the peer sends its own."""
        self._send_close(CloseCode.NORMAL, "")

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame after everything sent so far, and give the peer `close_timeout` to answer.

        Code 1005 sends an empty one. If a clean close was already sent and `code` is not clean,
        the connection is dropped instead.
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
        """Close once everything unsent has left, within `close_timeout`."""
        if self._transport is not None:
            self._uncork()
            self._transport.close()
            asyncio.get_running_loop().call_later(self._close_timeout, self.abort)

    def abort(self) -> None:
        """Drop the connection and what is unsent."""
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
                loop.call_soon(loop.call_soon, self._uncork)  # after one more poll of the sockets
            self._corked.append(frame)

    def _is_full(self) -> bool:
        """Whether too much is unsent to add to it. If so, the connection is dropped and `on_end` follows.

        `on_end` is called in the loop's next iteration, since the sender may be in the middle of something.
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
        """Count as congested until the socket has taken everything, if anything is unsent."""
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
