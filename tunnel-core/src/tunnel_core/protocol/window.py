"""What the other end of a stream may send (PROTOCOL.md, "Windows"), without I/O.

Theory of operation. A window is a promise to buffer whatever arrives within it, even if the local reader
never takes it. So a stream starts with a small window, which doubles whenever a quarter of it falls due for
an ack at once, within half a second. A reader that stops gets no further, and a slow one gets at most about
two seconds of its own pace. Whatever is promised beyond the initial window is charged to the stream's share
of the memory at once; below it, only bytes that wait for the reader are charged. So all promises can be
kept, however many readers stop at the same moment.

A promise cannot be withdrawn while the other end may be using it. An ack with a smaller window asks for the
difference, when the stream has been idle or exceeds its share. The other end returns it with `use`, as it
may also do on its own, and the memory is free from then on.
"""

from __future__ import annotations

from typing import Final

from .budget import Share
from .control import EARLY_DATA

# A peer that returned window for lack of memory gets none for this many windows: it would only return it again.
PATIENCE: Final = 16
IDLE: Final = 2  # ticks without a byte until a window is asked back: a second
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
        self._grow_at = 0  # offset from which it may grow
        self._asked = False  # the other end was asked to return some
        self._seen = 0  # bytes received as of the last tick
        self._idle = 0  # ticks since the last byte

    def agree(self, most: int) -> None:
        """The other end adapts: from EARLY_DATA up to `most` bytes."""
        self._most = most

    def fix(self, size: int) -> None:
        """The other end does not adapt: its window stays `size` bytes."""
        self.size = self.edge = size
        self.charge(0)

    @property
    def adapts(self) -> bool:
        return self._most > 0

    def charge(self, waiting: int) -> None:
        """Charge the share for what is promised, or for what is `waiting` for the local reader if that is more."""
        size = max(self.size - EARLY_DATA, waiting)
        if size != self._charged:
            self._share.take(size - self._charged)
            self._charged = size

    def acknowledge(self, offset: int, waiting: int, *, due: bool) -> int:
        """All below `offset` is acknowledged, `waiting` bytes not yet; `due`: as much as falls due at once.

        Returns the window to announce with the ack, or 0.
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

        `waiting` as in `acknowledge`. Returns whether that is less than before, and so must be confirmed.
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
