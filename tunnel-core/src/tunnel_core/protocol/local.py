"""The two faces between a local TCP socket and the stream that carries its bytes, without I/O.

    socket ── Carrier ──▶ stream
    socket ◀── Local ──── stream

Whatever transforms the bytes of a stream has both: it is the socket's Carrier and the stream's Local.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

Payload = memoryview | bytes

# Why a local socket is not read at the moment. It is read when none of these holds.
HOLD_WINDOW: Final = 1  # as much as the window allows is unacknowledged
HOLD_MEMORY: Final = 2  # as much as its share of the agent's memory allows is
HOLD_LINK: Final = 4  # the leg does not take more
HOLD_END: Final = 8  # the socket is about to be reset
HOLD_SEAL: Final = 16  # the seal's handshake is not over


class Local(Protocol):
    """The local TCP socket, as a stream sees it."""

    @property
    def pending(self) -> int:
        """Bytes that were written and have not left for the kernel yet."""

    def write(self, pieces: Sequence[Payload]) -> None:
        """Write bytes, which are only good until the call returns."""

    def write_eof(self) -> None:
        """End this direction, after all that was written."""

    def close(self) -> None:
        """Close in peace: both directions have ended."""

    def abort(self) -> None:
        """Close with RST. Does nothing to a socket that is closed."""

    def set_window(self, window: int) -> None:
        """At most `window` bytes will be pending: tell of it when most of many have left."""

    def hold(self, reason: int) -> None:
        """Do not read, for `reason`."""

    def release(self, reason: int) -> None:
        """`reason` is no reason any more."""


class Nowhere:
    """The Local of a stream whose socket is another's now."""

    pending = 0

    def write(self, pieces: Sequence[Payload]) -> None: ...

    def write_eof(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def set_window(self, window: int) -> None: ...

    def hold(self, reason: int) -> None: ...

    def release(self, reason: int) -> None: ...


class Carrier(Protocol):
    """The stream, as the local TCP socket sees it."""

    @property
    def credit(self) -> int:
        """Bytes that may be read now; at least one while the socket is not held."""

    def local_data(self, data: Payload) -> None:
        """Carry what was read: at most `credit` bytes, which are only good until the call returns."""

    def local_eof(self) -> None:
        """The application ended its direction."""

    def local_broken(self, reason: str) -> None:
        """The connection broke. Nothing follows."""

    def local_drained(self) -> None:
        """Much or all of what was pending has left."""
