"""Holds what a leg sends before it is paired, in order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tunnel_core.protocol.control import Fin, Reset

ITEM: Final = 300  # bytes of memory per message besides its payload, including what was decoded from it


class EarlyMessage(NamedTuple):
    """A control message, decoded if a raw peer needs to know it."""

    payload: bytes
    end: Fin | Reset | None


class Early:
    """Data and messages that wait for a peer. `size`: bytes counted by whoever bounds them."""

    __slots__ = ("items", "size")

    def __init__(self) -> None:
        self.items: list[bytearray | EarlyMessage] = []
        self.size = 0

    def add_data(self, pieces: Sequence[memoryview | bytes], size: int) -> int:
        """Keep `size` bytes of data. Returns the memory they take, in bytes."""
        last = self.items[-1] if self.items else None
        if isinstance(last, bytearray):  # kept apart, single bytes would take forty times their size
            for piece in pieces:
                last += piece
            return size
        self.items.append(bytearray().join(pieces))
        return size + ITEM

    def add_message(self, payload: bytes, message: object) -> int:
        """Keep a message. Returns the memory it takes, in bytes."""
        self.items.append(EarlyMessage(payload, message if isinstance(message, Fin | Reset) else None))
        return len(payload) + ITEM
