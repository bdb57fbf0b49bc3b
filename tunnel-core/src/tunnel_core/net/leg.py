"""A leg: one WebSocket connection, from the end of its opening handshake.

Between the socket and whoever carries bytes over it stands nothing but the frame reader:
no task, no queue, no reassembly. What comes in is handed on before control returns to the
event loop; what goes out is one write a frame.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, cast

from websockets.frames import Close

from ..protocol.frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    CloseCode,
    Event,
    FrameReader,
    control_frame,
    mask_keys,
    masked_frame,
    plain_frame,
)
from .buffers import READ_BUFFER
from .fair_queue import FairQueue
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
# Frames of one leg that are handled in one turn: some 0.1 ms, 0.3 ms if they are fragments.
# A read may hold 18,000 of a byte each: the rest of it waits for the leg's next turns.
MANY_FRAMES: Final = 100

# The codes that end a connection in peace: to a raw leg they are a FIN, all others an RST.
PEACEFUL: Final = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)

_keys: Final[Iterator[bytes]] = mask_keys()
# The kernel's copy takes up to four times as long from addresses that lie badly to its own
# buffers. Malloc would give each payload the place of the one before: a bad one for ever.
_last_payloads: Final[deque[memoryview | bytes]] = deque(maxlen=3)


class Monitor(Protocol):
    """Whoever watches legs, as a leg sees it."""

    queue: FairQueue  # of legs with frames left to handle
    close_timeout: float  # seconds for the peer's half of the close handshake, or to take what is unsent

    def watch(self, leg: Leg) -> None: ...
    def unwatch(self, leg: Leg) -> None: ...
    def suspected(self, leg: Leg) -> bool: ...
    def observe_round_trip(self, seconds: float) -> None: ...


class Leg(asyncio.BufferedProtocol):
    """Subclasses say what to do with what comes in: the `on_…` methods.

    `client` is whether this end is the WebSocket client, and so the one that masks. A leg
    that `pings` does so regularly, for signs of life. A leg whose other end `must_read`
    is given up if that takes nothing for a while.
    """

    pings = True
    must_read = False
    max_rate: int | None = None  # messages and pings a second, besides those that its bytes explain

    def __init__(self, monitor: Monitor, *, client: bool, text_limit: int | None) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(masked=not client, text_limit=text_limit)
        self._client = client
        self._frame = masked_frame if client else plain_frame
        self._monitor = monitor
        self.bytes_in = 0  # wire bytes that were taken
        self.bytes_out = 0
        self._events_in = 0
        self.carrying = False  # a stream or a pair depends on it: it is pinged, and given up, sooner
        self.congested = False  # more than HIGH_WATER bytes wait for the socket
        self.reading = True
        self.echo_close = True  # answer the peer's close frame at once; else `close` does
        self._close_sent = False
        self._peace_sent = False  # and it promised that all went well
        self.close_received = False
        self._ping: tuple[bytes, float] | None = None
        self._pong: bytes | None = None  # the latest ping, not answered yet
        self._rest = memoryview(b"")  # what was read, and waits for a turn
        self._queued = False  # for it
        self._join = JOIN
        self._writes = 0  # small ones, since they were looked at
        self._corked: list[memoryview | bytes] = []  # control frames that leave together, or with data
        self._lingering = False  # they may all wait
        self.ended = False  # nothing that comes in is handled any more
        self.silent = False  # it was given up because nothing came
        self.most_unsent = MOST_UNSENT
        self._loss = ""  # why it was dropped, if it was for a reason of our own

    @property
    def idle(self) -> bool:
        """Whether no stream is on it."""
        return not self.carrying

    @property
    def expendable(self) -> bool:
        """Whether its loss costs no more than another leg: it may be given up on suspicion."""
        return False

    @property
    def suspected(self) -> bool:
        """Whether it may be dead, and was asked for a sign of life."""
        return self._monitor.suspected(self)

    @property
    def messages_in(self) -> int:
        """Text, pings, pongs, and frames of nothing."""
        return self._events_in + self._reader.empty

    # What subclasses fill in.

    def on_data(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        """`size` bytes of binary payload came. Slices of the read buffer are good until this returns."""

    def on_text(self, payload: bytes) -> None:
        """A text message came, whole."""

    def on_end(self, code: int, reason: str) -> None:
        """Nothing more will come in: the close code the peer sent, or 1006 for a lost leg. Called once."""

    def on_gone(self) -> None:
        """The socket is closed. Called once, after `on_end`."""

    def on_writable(self, writable: bool) -> None:
        """Stop feeding the leg, or go on."""

    # What is sent.

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
        """Bytes that wait for the socket, or for the end of this turn of the loop."""
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

    def ping(self) -> None:
        """Ask for a sign of life. The answer also measures the round trip."""
        now = time.monotonic()
        payload = next(_keys)
        self._ping = payload, now
        self._send_control(PING, payload)

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
            asyncio.get_running_loop().call_later(self._monitor.close_timeout, self.abort)

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
            asyncio.get_running_loop().call_later(self._monitor.close_timeout, self.abort)

    def abort(self) -> None:
        """Drop the connection, and what the socket has not taken."""
        if self._transport is not None:
            self._uncork()
            self._transport.abort()

    def lost(self, reason: str) -> None:
        """Give the leg up, for a reason of our own."""
        self._end(CloseCode.ABNORMAL, reason)
        self.abort()

    def pause_reading(self) -> None:
        if self.reading and self._transport is not None:
            self.reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.reading and self._transport is not None:
            self.reading = True
            if self._rest:
                self._queue()
            else:
                self._transport.resume_reading()

    def _send_control(self, opcode: int, payload: bytes, *, linger: bool = False) -> None:
        """Send a control frame or text: with what follows it, at the end of this turn of the loop at the latest."""
        if self._transport is not None and not self._close_sent:
            if self.congested and self._is_full():
                return
            frame = control_frame(opcode, payload, next(_keys) if self._client else b"")
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

        It follows in the next turn of the loop: whoever sends may be in the middle of something.
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

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        self._set_limits()
        if forgets_to_pause(transport):
            self._join = sys.maxsize
        self._monitor.watch(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return READ_BUFFER

    def buffer_updated(self, nbytes: int, buffer: memoryview = READ_BUFFER) -> None:
        # All of it in one function: of a process that was asleep, each one that is called costs.
        data = buffer[:nbytes]
        items, event_count, payload_size, consumed = self._reader.feed(data, MANY_FRAMES)
        self.bytes_in += consumed
        if event_count:
            self._mixed(items)
        elif items:
            self.on_data(items, payload_size)  # type: ignore[arg-type]  # no events, only payload
        if consumed < nbytes and not self.ended:
            self._put_off(data[consumed:])

    def feed(self, data: memoryview) -> None:
        """Take bytes that did not come by way of the read buffer: they came with the handshake, or have waited."""
        self.buffer_updated(len(data), data)

    def _put_off(self, rest: memoryview) -> None:
        """Read no more before a turn has come for `rest`."""
        self._rest = rest if rest.readonly else memoryview(bytes(rest))
        if self._transport is not None:
            self._transport.pause_reading()
        self._queue()

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self._monitor.queue.add(self._next_turn)

    def _next_turn(self) -> None:
        self._queued = False
        transport = self._transport
        if transport is None or transport.is_closing() or not self.reading or not self._rest:
            return  # it is over, and so is what it brought; or who lets it read again asks for another turn
        rest, self._rest = self._rest, memoryview(b"")
        self.feed(rest)
        if self._rest or transport.is_closing():
            return
        if self.reading:
            transport.resume_reading()

    def _mixed(self, items: Sequence[memoryview | bytes | Event]) -> None:
        """Hand on payload and events in their order, until one of them ends the leg."""
        pieces: list[memoryview | bytes] = []
        for item in items:
            if not isinstance(item, Event):
                pieces.append(item)
                continue
            if pieces:
                self.on_data(pieces, sum(map(len, pieces)))
                pieces = []
            if not self.ended:
                self._events_in += 1
                if item.opcode == TEXT:
                    self.on_text(item.payload)
                else:
                    self._on_event(item)
            if self.ended:
                return
        if pieces:
            self.on_data(pieces, sum(map(len, pieces)))
        if self._pong is not None and not self.congested:
            self._send_pong()

    def _send_pong(self) -> None:
        """Answer the latest ping alone, as RFC 6455 section 5.5.3 allows: who does not read gets no second answer."""
        pong, self._pong = self._pong, None
        if pong is not None:
            self._send_control(PONG, pong)

    def _set_limits(self) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)

    def pause_writing(self) -> None:
        self.congested = True
        self.on_writable(False)

    def resume_writing(self) -> None:
        self.congested = False
        self._set_limits()
        self._send_pong()
        self.on_writable(True)

    def eof_received(self) -> None:
        """Without a close frame before it, the end of the connection is its loss (RFC 6455 section 7.1.5)."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._monitor.unwatch(self)
        self._transport = None
        self._end(CloseCode.ABNORMAL, self._loss or str(exc or "the connection was closed"))
        self.on_gone()

    # Events.

    def _on_event(self, event: Event) -> None:
        if event.opcode == PING:
            self._pong = event.payload
        elif event.opcode == PONG:
            if self._ping is not None and self._ping[0] == event.payload:
                self._monitor.observe_round_trip(time.monotonic() - self._ping[1])
                self._ping = None
        elif event.violation:
            self.violated(event.code, event.payload.decode())
        else:
            self.close_received = True
            self._end(event.code, event.payload.decode())
            if self._close_sent:
                self._close_transport()
            elif self.echo_close:
                self._send_close(event.code, "")

    def violated(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455 section 7.1.7): the peer broke the protocol."""
        self.close(code, reason)
        self._end(CloseCode.ABNORMAL, f"protocol violation: {reason}")
        self._close_transport()

    def _end(self, code: int, reason: str) -> None:
        if not self.ended:
            self.ended = True
            self._reader.stop()
            self._rest = memoryview(b"")
            self.on_end(code, reason)
