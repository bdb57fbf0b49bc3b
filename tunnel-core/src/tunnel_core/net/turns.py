"""Turns for legs that bring many tiny frames: one small read of one of them in each turn of the loop.

So what they cost the other connections does not grow with how many they are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """A queue of those that want to read again."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()

    def wait(self, resume: Callable[[], None]) -> None:
        """Have `resume` called when all that wait already have had their turns."""
        self._queue.append(resume)
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        resume = self._queue.popleft()
        if self._queue:
            asyncio.get_running_loop().call_soon(self._next)
        resume()
