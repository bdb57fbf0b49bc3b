"""One end of a TCP connection whose other end is a raw leg (PROTOCOL.md, "Raw legs"), without I/O.

No offsets, no acknowledgements, no resume: bytes, a close code for the end, and the leg
itself is paused when the local socket is full. RawStream has the interface of a Stream on
both sides, so an agent handles both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from .budget import Share
from .control import Message
from .frames import CloseCode
from .local import Local, Payload
from .stream import Outcome, Stream

READ: Final = 256 * 1024  # more than any one read of a local socket brings
HIGH_WATER: Final = 256 * 1024  # bytes for the local socket at which the leg is paused


class RawLink(Protocol):
    """What a stream needs of a leg whose other side is raw."""

    def send(self, pieces: Sequence[Payload], size: int) -> object:
        """Send `size` bytes. They are valid only until the call returns."""

    def half_close(self) -> None:
        """Send a close frame after everything sent so far. The other direction stays open until its own."""

    def close(self, code: int, reason: str = "") -> None:
        """Close both directions."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


L = TypeVar("L", bound=RawLink)


class RawStream(Generic[L]):
    """Joins a local socket to a leg that ends at a raw peer."""

    resumable = False
    share: Share | None = None  # it buffers nothing: its leg is paused instead
    window = 0  # it keeps no bytes, since it cannot resend
    credit = READ

    def __init__(
        self,
        local: Local,
        link: L,
        closed: Callable[[Outcome, str], None],
        *,
        sent: int = 0,
        eof: bool = False,
    ) -> None:
        self.local = local
        self.link: L | None = link
        self.sent = sent
        self.received = 0
        self._closed = closed
        self._eof = eof  # the local socket ended
        self._ended = False  # the peer closed in peace
        self._over = False
        self._paused = False

    def refuse(self, reason: str) -> None:
        """The target did not."""
        self._end(Outcome.REFUSED, reason)

    def local_data(self, data: Payload) -> None:
        if self.link is not None:
            self.sent += len(data)
            self.link.send((data,), len(data))
        elif not self._over:
            # As TCP does for data to a closed socket.
            self._end(Outcome.RESET_PEER, "the raw peer has closed")

    def local_eof(self) -> None:
        self._eof = True
        if self.link is not None:
            self.link.half_close()
        if self._ended:
            self._end(Outcome.FINISHED, "")

    def local_broken(self, reason: str, outcome: Outcome = Outcome.RESET_LOCAL) -> None:
        self._end(outcome, reason)

    def local_drained(self) -> None:
        if self._paused and self.local.pending <= HIGH_WATER and self.link is not None:
            self._paused = False
            self.link.resume_reading()

    def link_data(self, pieces: Sequence[Payload], size: int) -> None:
        if self._over:
            return
        self.received += size
        self.local.write(pieces)
        if not self._paused and self.local.pending > HIGH_WATER and self.link is not None:
            self._paused = True
            self.link.pause_reading()

    def on_message(self, message: Message) -> None:
        """A raw peer says nothing: what comes was meant for the stream that this one replaced."""

    def link_closed(self, code: int, reason: str) -> None:
        """The peer sent a close frame, or (code 1006) the leg was lost."""
        if code not in (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS):
            self._end(Outcome.RESET_PEER, reason or f"the raw peer left (close code {code})")
        elif self._eof:
            self._end(Outcome.FINISHED, "")
        else:
            self._ended = True
            self.local.write_eof()

    def link_lost(self) -> None:
        self.link = None

    def expire(self, reason: str) -> None:
        """Close: the peer ended in peace, its leg is gone since, and the local end has not ended in time."""
        self._end(Outcome.FINISHED, reason)

    def _end(self, outcome: Outcome, reason: str) -> None:
        if self._over:
            return
        self._over = True
        if outcome is Outcome.FINISHED:
            self.local.close()
        else:
            self.local.abort()
        if self.link is not None:
            self.link.close(CloseCode.NORMAL if outcome is Outcome.FINISHED else CloseCode.RESET, reason)
        self._closed(outcome, reason)


AnyStream = Stream[Any] | RawStream[Any]
