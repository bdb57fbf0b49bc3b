"""What the other end of a stream may send (PROTOCOL.md, "Windows"), without I/O.

Theory of operation. A window is a promise: whatever comes within it has to be kept, even if the local
reader never takes it. So a stream starts with little, and the window doubles as acks fall due a quarter
of it at a time, within half a second each: a reader that stops gets no further, and one that is slow gets no more than
some two seconds of its own pace. What is promised beyond the start is taken from the stream's share of the
memory at once, what waits for the reader within the start when it does. So promises are kept however
many readers stop at the same moment.

A promise cannot be taken back while the other end may be using it. It is asked to give back: by an ack with
a smaller window, when the stream has been idle, or has more than its share. Its `use` does so, as it may by itself,
and what it gives back is free from there on.
"""

from __future__ import annotations

from typing import Final

from .budget import Share
from .control import EARLY_DATA

# A peer that gave back for want of memory gets no more for so many windows: it would only give it back again.
PATIENCE: Final = 16
IDLE: Final = 2  # ticks without a byte, after which a window is asked back: a second
LEAST: Final = 16 * 1024  # bytes of the smallest window, and that an ack is worth unless it would be over half of one


def ack_step(window: int) -> int:
    """The bytes of each ack of a `window`: a quarter; of small ones half, so that the sender is never out of it."""
    return max(window >> 2, min(window >> 1, LEAST))


class Window:
    """`size` bytes from what is acknowledged, or more that was promised before: all below the offset `edge`."""

    __slots__ = ("_asked", "_charged", "_grow_at", "_idle", "_most", "_seen", "_share", "edge", "size")

    def __init__(self, share: Share) -> None:
        self.size = EARLY_DATA
        self.edge = EARLY_DATA
        self._most = 0  # the size that it may grow to; 0 if the other end knows none but the first
        self._share = share
        self._charged = 0  # bytes of the share that are taken for it
        self._grow_at = 0  # offset from which on it may
        self._asked = False  # to give back
        self._seen = 0  # what had come at the last tick
        self._idle = 0  # ticks since more came

    def agree(self, most: int) -> None:
        """The other end adapts: from EARLY_DATA up to `most` bytes."""
        self._most = most

    def fix(self, size: int) -> None:
        """The other end does not: it has `size` bytes, for ever."""
        self.size = self.edge = size
        self.charge(0)

    @property
    def adapts(self) -> bool:
        return self._most > 0

    def charge(self, waiting: int) -> None:
        """Take from the share what is promised, or what is `waiting` for the local reader if that is more."""
        size = max(self.size - EARLY_DATA, waiting)
        if size != self._charged:
            self._share.take(size - self._charged)
            self._charged = size

    def acknowledge(self, offset: int, waiting: int, *, due: bool) -> int:
        """All below `offset` is acknowledged, `waiting` bytes not yet; `due`: as much as falls due at once.

        Returns a window to say with it, or 0.
        """
        announced = 0
        if due and offset >= self._grow_at and self._most:
            announced = self._grow_or_ask(offset)
        self.charge(waiting)
        self.edge = max(self.edge, offset + self.size)
        return announced

    def _grow_or_ask(self, offset: int) -> int:
        room = self._share.room
        more = min(self.size, self._most - self.size)
        if more > 0 and room >= 3 * more:  # which it takes from the stream's, the account's and all that is free
            self.size += more
            self._grow_at = offset + ack_step(self.size)
            self._asked = False
            return self.size
        if room < 0 and self.size > EARLY_DATA:
            return max(EARLY_DATA, self.size >> 1)
        return 0

    def given_back(self, use: int, offset: int, waiting: int) -> bool:
        """The other end has at most `use` bytes beyond the acknowledged `offset`, until it is granted more.

        `waiting` as in `acknowledge`. Returns whether that is less than before: then it is to be told.
        """
        if not LEAST <= use < self.size or not self._most:
            return False
        if not self._asked:
            self._grow_at = offset + PATIENCE * use
        self.size = use
        self.edge = offset + use
        self._asked = False
        self.charge(waiting)
        return True

    def tick(self, received: int) -> int:
        """Half a second has passed, and all below `received` is acknowledged. Returns a window to ask for, or 0."""
        if received != self._seen:
            self._seen = received
            self._idle = 0
            self._asked = False
        elif self.ticks:
            self._idle += 1
            if self._idle >= IDLE:
                self._asked = True
                return EARLY_DATA
        return 0

    @property
    def ticks(self) -> bool:
        """Whether there is something to ask back, once the stream is idle."""
        return self.size > EARLY_DATA and self._most > 0 and not self._asked
