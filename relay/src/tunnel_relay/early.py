"""What a leg brings before it is paired, in order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tunnel_core.protocol.control import Fin, Reset

ITEM: Final = 300  # bytes of memory that a message takes besides its own, with what was decoded of it


class EarlyMessage(NamedTuple):
    """A control message, and what it says, where a raw peer is to know that."""

    payload: bytes
    end: Fin | Reset | None


class Early:
    """Data and messages that wait for a peer. `size` of their bytes were counted, by whoever bounds them."""

    __slots__ = ("items", "size")

    def __init__(self) -> None:
        self.items: list[bytearray | EarlyMessage] = []
        self.size = 0

    def add_data(self, pieces: Sequence[memoryview | bytes], size: int) -> int:
        """Keep `size` bytes of data. Returns the bytes of memory that they take."""
        last = self.items[-1] if self.items else None
        if isinstance(last, bytearray):  # bytes that came one by one would take forty times their size
            for piece in pieces:
                last += piece
            return size
        self.items.append(bytearray().join(pieces))
        return size + ITEM

    def add_message(self, payload: bytes, message: object) -> int:
        """Keep a message. Returns the bytes of memory that it takes."""
        self.items.append(EarlyMessage(payload, message if isinstance(message, Fin | Reset) else None))
        return len(payload) + ITEM
