"""A limit on retries."""

from __future__ import annotations


class Pace:
    """Allows `burst` tries at once, and one more every `seconds`. Pure: the caller passes the time."""

    __slots__ = ("_burst", "_full", "_seconds")

    def __init__(self, burst: int, seconds: float) -> None:
        self._burst = burst
        self._seconds = seconds
        self._full = 0.0  # when the full burst is available again

    def take(self, now: float) -> float:
        """Take one try. Returns the seconds to wait for it."""
        self._full = max(self._full, now) + self._seconds
        return max(0.0, self._full - now - self._burst * self._seconds)
