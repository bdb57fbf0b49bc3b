"""What was sent and not yet acknowledged, kept so that a resume can send it again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

# Small writes are gathered into blocks of this size, so that a million tiny messages
# do not cost a million objects.
GATHER: Final = 16 * 1024
# Blocks that lie ready for what is read next: some 8 MiB, the windows of eight busy streams.
SPARE: Final = 64

Block = bytes | bytearray | memoryview


class ReplayMemory:
    """The memory that all replay buffers of one agent use together: `limit` bytes at most.

    Local sockets are read into `block`. A replay buffer keeps a block that is at least half
    full as it is, instead of a copy; the next read goes to another then. Blocks that are not
    needed any more are read into again, the last one first: it may still be in the cache.

    At the limit nothing is dropped: whoever filled it stops reading, and is called back once
    there is room again.
    """

    def __init__(self, limit: int, block_size: int) -> None:
        self.limit = limit
        self.used = 0
        self.block_size = block_size
        self.block = memoryview(bytearray(block_size))
        self._spare: list[memoryview] = []
        self._waiting: list[Callable[[], None]] = []

    @property
    def room(self) -> int:
        return self.limit - self.used

    def hand_over(self, data: memoryview | bytes) -> bool:
        """Give the block to a replay buffer, if `data` lies in it and there is room. Returns whether it did."""
        if not isinstance(data, memoryview) or data.obj is not self.block.obj or self.room < self.block_size:
            return False
        self.used += self.block_size
        self.block = self._spare.pop() if self._spare else memoryview(bytearray(self.block_size))
        return True

    def give_back(self, blocks: Iterable[Block]) -> None:
        """Have blocks back, and all that lies in them forgotten."""
        for block in blocks:
            if isinstance(block, memoryview):
                self.used -= self.block_size
                if len(self._spare) < SPARE:
                    self._spare.append(memoryview(block.obj))
            else:
                self.used -= len(block)
        # An eighth of slack, so that a full memory does not wake everybody for each block.
        if self._waiting and self.used <= self.limit - self.limit // 8:
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()

    def when_free(self, callback: Callable[[], None]) -> None:
        """Call back once, when there is room again."""
        self._waiting.append(callback)


class ReplayBuffer:
    """The bytes of one direction from offset `start` (acknowledged) to `end` (sent)."""

    __slots__ = ("_blocks", "_skip", "end", "memory", "start")

    def __init__(self, memory: ReplayMemory) -> None:
        self.start = 0
        self.end = 0
        self.memory = memory
        self._blocks: deque[Block] = deque()
        self._skip = 0  # released bytes at the front of the first block

    def append(self, data: memoryview | bytes) -> None:
        """Keep `data`: as it lies in the memory's block, if it fills half of that at least, else a copy."""
        size = len(data)
        memory, blocks = self.memory, self._blocks
        if size * 2 >= memory.block_size and memory.hand_over(data):
            blocks.append(data)
        else:
            last = blocks[-1] if blocks else None
            if size >= GATHER:
                blocks.append(bytes(data))
            elif isinstance(last, bytearray) and len(last) < GATHER:
                last += data
            else:
                blocks.append(bytearray(data))
            memory.used += size
        self.end += size

    def release(self, offset: int) -> None:
        """Forget all below `offset`, which lies between `start` and `end`."""
        count = offset - self.start + self._skip
        self.start = offset
        blocks, over = self._blocks, []
        while blocks and len(blocks[0]) <= count:
            block = blocks.popleft()
            count -= len(block)
            over.append(block)
        self._skip = count
        self.memory.give_back(over)

    def since(self, offset: int) -> Iterator[memoryview]:
        """The bytes from `offset`, which lies between `start` and `end`.

        Each piece is good until the next is asked for.
        """
        skip = self._skip + offset - self.start
        for block in tuple(self._blocks):
            if skip < len(block):
                yield memoryview(block)[skip:]
            skip = max(0, skip - len(block))

    def clear(self) -> None:
        """Forget everything: the stream is over."""
        blocks, self._blocks = self._blocks, deque()
        self.start = self.end
        self._skip = 0
        self.memory.give_back(blocks)
