"""A queue of legs that bring many tiny frames: each is served some frames in each iteration of the event loop.

So what such legs cost the other connections does not grow with their number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class FairQueue:
    """Calls one callback in each iteration of the event loop, first come, first served."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()

    def add(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, after those that were added before it."""
        self._queue.append(callback)
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        callback = self._queue.popleft()
        if self._queue:
            asyncio.get_running_loop().call_soon(self._next)
        callback()
