"""A bounded, expiring memory in which no owner can displace another's entries."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class Remembered(Generic[V]):
    """Values by id. Each is kept for `seconds`, at most `most` in total.

    Each value has an owner. Beyond `most`, the owner with the most values loses the oldest one, so
    a flood evicts only the flooder's own.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._values: dict[str, tuple[float, str, V]] = {}  # id → (when to forget, owner, value), oldest first
        self._owned: dict[str, dict[str, None]] = {}  # owner → ids, oldest first

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def put(self, key: str, owner: str, value: V, now: float) -> None:
        """Remember `value` from `now` on."""
        self.forget(key)
        self._values[key] = now + self._seconds, owner, value
        self._owned.setdefault(owner, {})[key] = None
        self._expire(now)
        if len(self._values) > self._most:
            most = max(self._owned.values(), key=len)
            self.forget(next(iter(most)))

    def get(self, key: str, now: float) -> V | None:
        """The value of `key`, or None if it is unknown or expired."""
        self._expire(now)
        entry = self._values.get(key)
        return entry[2] if entry is not None else None

    def forget(self, key: str) -> None:
        entry = self._values.pop(key, None)
        if entry is not None:
            owner = entry[1]
            del self._owned[owner][key]
            if not self._owned[owner]:
                del self._owned[owner]

    def _expire(self, now: float) -> None:
        while self._values:
            key = next(iter(self._values))
            if self._values[key][0] > now:
                return
            self.forget(key)
