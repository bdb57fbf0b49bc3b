"""Ticks for streams that owe something: mostly an ack that was too small to send at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from ..protocol.stream import Stream

INTERVAL: Final = 0.5  # seconds: PROTOCOL.md promises acks within one second
TOGETHER: Final = 0.01  # seconds within which ticks are batched: at most a hundred wake-ups a second


class StreamClock:
    """One timer for all streams of an agent; none while nothing is owed.

    Each stream has half seconds of its own, so that a thousand do not owe at the same moment.
    """

    def __init__(self) -> None:
        self._owing: deque[tuple[float, Stream[Any]]] = deque()  # (when to tick, stream), earliest first
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Stream[Any]) -> None:
        """Call `stream.tick` every interval until it returns False."""
        loop = asyncio.get_running_loop()
        self._owing.append((loop.time() + INTERVAL, stream))
        if self._timer is None:
            self._timer = loop.call_later(INTERVAL, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._owing and self._owing[0][0] <= now + TOGETHER:
            stream = self._owing.popleft()[1]
            if stream.tick():
                self._owing.append((now + INTERVAL, stream))
        self._timer = loop.call_at(self._owing[0][0], self._tick) if self._owing else None
