"""The two interfaces between a local TCP socket and its stream, without I/O.

    socket ── Carrier ──▶ stream
    socket ◀── Local ──── stream

A layer that transforms a stream's bytes implements both: it is the socket's Carrier and the stream's Local.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

Payload = memoryview | bytes

# Reasons to pause reading a local socket. It is read when none of these holds.
HOLD_WINDOW: Final = 1  # as much as the window allows is unacknowledged
HOLD_MEMORY: Final = 2  # as much as the stream's share of the memory allows is unacknowledged
HOLD_LINK: Final = 4  # the leg is congested
HOLD_END: Final = 8  # the socket is about to be reset
HOLD_SEAL: Final = 16  # the seal's handshake is not over


class Local(Protocol):
    """What a stream needs of its local TCP socket."""

    @property
    def pending(self) -> int:
        """Bytes written that the kernel has not taken yet."""

    def write(self, pieces: Sequence[Payload]) -> None:
        """Write bytes, which are valid only until the call returns."""

    def write_eof(self) -> None:
        """Send FIN after everything written."""

    def close(self) -> None:
        """Close cleanly: both directions have ended."""

    def abort(self) -> None:
        """Close with RST. Does nothing if the socket is closed."""

    def set_window(self, window: int) -> None:
        """At most `window` bytes will be pending: tell of it when most of many have left."""

    def hold(self, reason: int) -> None:
        """Stop reading, for `reason`."""

    def release(self, reason: int) -> None:
        """Clear `reason`, and read if no other holds."""


class Nowhere:
    """The Local of a stream that has handed its socket over."""

    pending = 0

    def write(self, pieces: Sequence[Payload]) -> None: ...

    def write_eof(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def set_window(self, window: int) -> None: ...

    def hold(self, reason: int) -> None: ...

    def release(self, reason: int) -> None: ...


class Carrier(Protocol):
    """What a local TCP socket needs of its stream."""

    @property
    def credit(self) -> int:
        """Bytes that may be read now; at least one while the socket is not held."""

    def local_data(self, data: Payload) -> None:
        """Send what was read: at most `credit` bytes, which are valid only until the call returns."""

    def local_eof(self) -> None:
        """The application sent FIN."""

    def local_broken(self, reason: str) -> None:
        """The connection broke. Nothing follows."""

    def local_drained(self) -> None:
        """Much or all of what was pending has left."""
