"""Turns for legs that bring many tiny frames: some frames of one such leg in each turn of the loop.

So what they cost the other connections does not grow with how many they are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """The queue of those that have frames waiting."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()

    def wait(self, turn: Callable[[], None]) -> None:
        """Have `turn` called when all that wait already have had theirs."""
        self._queue.append(turn)
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        turn = self._queue.popleft()
        if self._queue:
            asyncio.get_running_loop().call_soon(self._next)
        turn()
