"""Bytes that were sent and not yet acknowledged, kept for a resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from typing import Final

from .budget import Budget, Share

# Small writes are gathered into blocks of this size, so that a million tiny messages
# are not a million objects.
GATHER: Final = 16 * 1024
# Spare blocks for the next reads: about 8 MiB, the windows of eight busy streams.
SPARE: Final = 64

Block = bytes | bytearray | memoryview


class ReplayMemory(Budget):
    """An agent's replay budget, and the blocks that its local sockets are read into.

    A replay buffer keeps a `block` that is at least half full instead of copying it, and the next read
    uses another. Released blocks are reused, the latest first, since it may still be in the cache.
    """

    def __init__(self, limit: int, block_size: int) -> None:
        super().__init__(limit)
        self.block_size = block_size
        self.block = memoryview(bytearray(block_size))
        self._spare: list[memoryview] = []

    def hand_over(self, data: memoryview | bytes) -> bool:
        """Give the block away if `data` lies in it and the budget allows. Returns whether it was given."""
        if not isinstance(data, memoryview) or data.obj is not self.block.obj:
            return False
        if self.limit - self.used < self.block_size:
            return False
        self.block = self._spare.pop() if self._spare else memoryview(bytearray(self.block_size))
        return True

    def give_back(self, block: memoryview) -> None:
        """Take a block back for reuse."""
        if len(self._spare) < SPARE:
            self._spare.append(memoryview(block.obj))


class ReplayBuffer:
    """The bytes of one direction from offset `start` (acknowledged) to `end` (sent)."""

    __slots__ = ("_blocks", "_skip", "end", "memory", "share", "start")

    def __init__(self, memory: ReplayMemory, share: Share) -> None:
        self.start = 0
        self.end = 0
        self.memory = memory
        self.share = share
        self._blocks: deque[Block] = deque()
        self._skip = 0  # released bytes at the front of the first block

    def append(self, data: memoryview | bytes) -> None:
        """Keep `data`: the memory's block itself if `data` fills at least half of it, else a copy."""
        size = len(data)
        memory, blocks = self.memory, self._blocks
        if size * 2 >= memory.block_size and memory.hand_over(data):
            blocks.append(data)
            self.share.take(memory.block_size)
        else:
            last = blocks[-1] if blocks else None
            if size >= GATHER:
                blocks.append(bytes(data))
            elif isinstance(last, bytearray) and len(last) < GATHER:
                last += data
            else:
                blocks.append(bytearray(data))
            self.share.take(size)
        self.end += size

    def release(self, offset: int) -> None:
        """Drop everything below `offset`, which lies between `start` and `end`."""
        count = offset - self.start + self._skip
        self.start = offset
        blocks, over = self._blocks, []
        while blocks and len(blocks[0]) <= count:
            block = blocks.popleft()
            count -= len(block)
            over.append(block)
        self._skip = count
        self._give_back(over)

    def since(self, offset: int) -> Iterator[memoryview]:
        """The bytes from `offset`, which lies between `start` and `end`.

        Each piece is valid until the next one is requested.
        """
        skip = self._skip + offset - self.start
        for block in tuple(self._blocks):
            if skip < len(block):
                yield memoryview(block)[skip:]
            skip = max(0, skip - len(block))

    def clear(self) -> None:
        """Drop everything: the stream is over."""
        blocks, self._blocks = self._blocks, deque()
        self.start = self.end
        self._skip = 0
        self._give_back(blocks)

    def _give_back(self, blocks: Collection[Block]) -> None:
        memory, size = self.memory, 0
        for block in blocks:
            if isinstance(block, memoryview):
                memory.give_back(block)
                size += memory.block_size
            else:
                size += len(block)
        if size:
            self.share.take(-size)
