"""What was sent and not yet acknowledged, kept so that a resume can send it again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from .frames import apply_mask

# Small writes are gathered into blocks of this size, so that a million tiny messages
# do not cost a million objects.
BLOCK: Final = 16 * 1024


class ReplayBudget:
    """The bytes that all replay buffers of one agent may hold together.

    At the limit nothing is dropped: whoever filled it stops reading, and is called back once
    there is room again.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: list[Callable[[], None]] = []

    @property
    def room(self) -> int:
        return self.limit - self.used

    def when_free(self, callback: Callable[[], None]) -> None:
        """Call back once, when there is room again."""
        self._waiting.append(callback)

    def give_back(self, count: int) -> None:
        self.used -= count
        # An eighth of slack, so that a full budget does not wake everybody for each byte.
        if self._waiting and self.used <= self.limit - self.limit // 8:
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()


class Masked:
    """Payload as a leg sent it: masked with `key`. The buffer keeps that instead of another copy."""

    __slots__ = ("_key", "_payload")

    def __init__(self, payload: bytes, key: bytes) -> None:
        self._payload = payload
        self._key = key

    def __len__(self) -> int:
        return len(self._payload)

    def unmasked(self) -> bytes:
        return apply_mask(self._payload, self._key)


class ReplayBuffer:
    """The bytes of one direction from offset `start` (acknowledged) to `end` (sent)."""

    __slots__ = ("_blocks", "_skip", "budget", "end", "start")

    def __init__(self, budget: ReplayBudget) -> None:
        self.start = 0
        self.end = 0
        self.budget = budget
        self._blocks: deque[bytes | bytearray | Masked] = deque()
        self._skip = 0  # released bytes at the front of the first block

    def append(self, data: memoryview | bytes, sent: Masked | None = None) -> None:
        """Keep a copy of `data`, or what a leg made of it."""
        size = len(data)
        blocks = self._blocks
        last = blocks[-1] if blocks else None
        if sent is not None:
            blocks.append(sent)
        elif size >= BLOCK:
            blocks.append(bytes(data))
        elif type(last) is bytearray and len(last) < BLOCK:
            last += data
        else:
            blocks.append(bytearray(data))
        self.end += size
        self.budget.used += size

    def release(self, offset: int) -> None:
        """Forget all below `offset`, which lies between `start` and `end`."""
        count = offset - self.start
        self.start = offset
        self.budget.give_back(count)
        blocks = self._blocks
        count += self._skip
        while blocks and len(blocks[0]) <= count:
            count -= len(blocks.popleft())
        self._skip = count

    def since(self, offset: int) -> Iterator[memoryview]:
        """The bytes from `offset`, which lies between `start` and `end`.

        Each piece is good until the next is asked for.
        """
        skip = self._skip + offset - self.start
        for block in tuple(self._blocks):
            if skip < len(block):
                yield memoryview(block.unmasked() if isinstance(block, Masked) else block)[skip:]
            skip = max(0, skip - len(block))

    def clear(self) -> None:
        """Forget everything: the stream is over."""
        self.budget.give_back(self.end - self.start)
        self.start = self.end
        self._blocks.clear()
        self._skip = 0
