"""A leg: one WebSocket connection, from the end of its opening handshake.

Only the frame reader stands between the socket and the subclass: no task, no queue, no
reassembly. Input is handed on before control returns to the event loop; each outgoing frame
is one write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

from ..protocol.frames import (
    PING,
    PONG,
    TEXT,
    CloseCode,
    Event,
    FrameReader,
    new_key,
)
from .buffers import READ_BUFFER
from .fair_queue import FairQueue
from .outgoing import Outgoing

# Frames of one leg handled in one go: about 0.1 ms, or 0.3 ms if they are fragments. A single
# read may hold 18,000 one-byte frames; the rest waits in the fair queue.
MANY_FRAMES: Final = 100


class Monitor(Protocol):
    """What a leg needs of its monitor."""

    queue: FairQueue  # of legs with frames left to handle
    close_timeout: float  # seconds the peer has to finish the close handshake or take unsent bytes

    def watch(self, leg: Leg) -> None: ...
    def unwatch(self, leg: Leg) -> None: ...
    def suspected(self, leg: Leg) -> bool: ...
    def observe_round_trip(self, seconds: float) -> None: ...


class Leg(Outgoing):
    """Subclasses handle input by overriding the `on_…` methods.

    `client` says whether this end is the WebSocket client, which masks what it sends. A leg that
    `pings` is pinged regularly, to detect a dead peer. A leg that `must_read` is dropped if its
    peer takes no bytes for a while.
    """

    pings = True
    must_read = False
    max_rate: int | None = None  # messages and pings a second, beyond those that its bytes account for

    def __init__(self, monitor: Monitor, *, client: bool, text_limit: int | None) -> None:
        super().__init__(client=client, close_timeout=monitor.close_timeout)
        self._reader = FrameReader(masked=not client, text_limit=text_limit)
        self._monitor = monitor
        self.bytes_in = 0  # wire bytes consumed
        self._events_in = 0
        self.carrying = False  # a stream or pair depends on it: pinged more often, dropped sooner
        self.reading = True
        self.echo_close = True  # answer the peer's close frame at once; else `close` does
        self._ping: tuple[bytes, float] | None = None
        self._pong: bytes | None = None  # payload of the latest ping, not answered yet
        self._rest = memoryview(b"")  # was read; waits in the fair queue
        self._queued = False  # in the fair queue
        self.ended = False  # input is ignored from now on
        self.silent = False  # it was dropped because nothing came

    @property
    def idle(self) -> bool:
        """Whether no stream is on it."""
        return not self.carrying

    @property
    def expendable(self) -> bool:
        """Whether losing it costs only a new leg, so that it may be dropped on suspicion."""
        return False

    @property
    def suspected(self) -> bool:
        """Whether it may be dead: it was pinged and has not answered yet."""
        return self._monitor.suspected(self)

    @property
    def messages_in(self) -> int:
        """Text messages, pings, pongs and empty frames."""
        return self._events_in + self._reader.empty

    # For subclasses to override.

    def on_data(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        """`size` bytes of binary payload came. Slices of the read buffer are valid until this returns."""

    def on_text(self, payload: bytes) -> None:
        """A complete text message came."""

    def on_end(self, code: int, reason: str) -> None:
        """No more input follows. `code` is the peer's close code, or 1006 for a lost leg. Called once."""

    def on_gone(self) -> None:
        """The socket is closed. Called once, after `on_end`."""

    def ping(self) -> None:
        """Send a ping. The pong also measures the round trip."""
        now = time.monotonic()
        payload = new_key()
        self._ping = payload, now
        self._send_control(PING, payload)

    def lost(self, reason: str) -> None:
        """Drop the leg, for a reason of our own."""
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

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._monitor.watch(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return READ_BUFFER

    def buffer_updated(self, nbytes: int, buffer: memoryview = READ_BUFFER) -> None:
        # Kept in one function: calls are expensive right after a wake-up.
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
        """Take bytes from outside the read buffer: those that came with the handshake, or waited in the fair queue."""
        self.buffer_updated(len(data), data)

    def _put_off(self, rest: memoryview) -> None:
        """Stop reading until the fair queue reaches `rest`."""
        self._rest = rest if rest.readonly else memoryview(bytes(rest))
        if self._transport is not None:
            self._transport.pause_reading()
        self._queue()

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self._monitor.queue.add(self._serve_rest)

    def _serve_rest(self) -> None:
        self._queued = False
        transport = self._transport
        if transport is None or transport.is_closing() or not self.reading or not self._rest:
            return  # the leg is over; or `resume_reading` will queue it again
        rest, self._rest = self._rest, memoryview(b"")
        self.feed(rest)
        if self._rest or transport.is_closing():
            return
        if self.reading:
            transport.resume_reading()

    def _mixed(self, items: Sequence[memoryview | bytes | Event]) -> None:
        """Hand on payload and events in order, until one of them ends the leg."""
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
        """Answer only the latest ping (RFC 6455 section 5.5.3): a peer that does not read gets one pong, not many."""
        pong, self._pong = self._pong, None
        if pong is not None:
            self._send_control(PONG, pong)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._send_pong()

    def eof_received(self) -> None:
        """Do nothing: without a close frame, EOF is a lost connection (RFC 6455 section 7.1.5)."""

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
