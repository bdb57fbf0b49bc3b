"""Ticks for the streams that owe something: an ack that was too small to be sent at once, mostly."""

from __future__ import annotations

import asyncio
from typing import Final

from ..protocol.stream import Stream

INTERVAL: Final = 0.5  # seconds: what is owed waits no longer, and a second was promised


class StreamClock:
    """One timer for all streams of an agent; none while nothing is owed."""

    def __init__(self) -> None:
        self._owing: set[Stream] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Stream) -> None:
        """Call `stream.tick` every interval until it returns False."""
        self._owing.add(stream)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = None
        owing, self._owing = self._owing, set()
        for stream in owing:
            if stream.tick():
                self.add(stream)
