"""What blocked an event loop, and for how long, as its debug mode tells (PYTHONASYNCIODEBUG=1)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

BOUND = 0.5  # seconds for which nothing may hold the loop, on the slowest machine
NOTED = 0.05  # from which on a callback is noted
TICK = 0.02
_SLOW = re.compile(r"Executing (.*) took ([\d.]+) seconds", re.DOTALL)


def waited(pid: int | str = "thread-self") -> float:
    """Seconds that a thread was ready to run while others had the processors; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def slow(lines: Iterable[str]) -> list[tuple[float, str]]:
    """(seconds, what) of each callback of which such a line tells, the worst first."""
    found = (match for match in map(_SLOW.search, lines) if match is not None)
    return sorted(((float(match[2]), match[1]) for match in found), reverse=True)


class Watch(logging.Handler):
    """Listens to what the running loop tells of slow callbacks, less what other processes took of their time.

    `ours` names a test's own task, which may do what it likes.
    """

    worst: ClassVar[list[tuple[float, str]]] = []  # of all tests

    def __init__(self, ours: str) -> None:
        super().__init__()
        self._ours = ours
        self._loop = asyncio.get_running_loop()
        self._waited = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.over: list[tuple[float, str]] = []

    def __enter__(self) -> Self:
        self._loop.slow_callback_duration = NOTED
        logging.getLogger("asyncio").addHandler(self)
        self._tick()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("asyncio").removeHandler(self)
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._waited = waited()
        self._timer = self._loop.call_later(TICK, self._tick)

    def emit(self, record: logging.LogRecord) -> None:
        for seconds, what in slow([record.getMessage()]):
            if self._ours in what:
                continue
            held = seconds - (waited() - self._waited)
            Watch.worst = sorted([*Watch.worst, (held, what)], reverse=True)[:5]
            if held >= BOUND:
                self.over.append((held, what))


def worst() -> list[str]:
    """What held a loop the longest, in words."""
    return [f"held the loop for {seconds:.3f} s: {what[:300]}" for seconds, what in Watch.worst]
