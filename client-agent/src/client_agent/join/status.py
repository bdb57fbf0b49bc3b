"""The status line of `join`, updated every second: connected or why not, round trip, traffic, pauses survived."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TextIO

from prometheus_client import CollectorRegistry
from tunnel_core.service.settings import show_duration

INTERVAL: Final = 1.0  # seconds
# What it shows is what the metrics count: sample, label that tells it from its likes, name here.
_SAMPLES: Final = {
    ("tunnel_agent_streams", ""): "streams",
    ("tunnel_agent_bytes_total", "sent"): "sent",
    ("tunnel_agent_bytes_total", "received"): "received",
    ("tunnel_agent_resumes_total", "resumed"): "pauses",
    ("tunnel_leg_round_trip_seconds_sum", ""): "trip_seconds",
    ("tunnel_leg_round_trip_seconds_count", ""): "trips",
}


class Counts(NamedTuple):
    """Of all streams so far, but for `streams`, which are those of now."""

    streams: float = 0
    sent: float = 0  # bytes
    received: float = 0
    pauses: float = 0
    trip_seconds: float = 0
    trips: float = 0


def read(registry: CollectorRegistry) -> Counts:
    """The counts of now."""
    found: dict[str, float] = {}
    for family in registry.collect():
        for sample in family.samples:
            label = sample.labels.get("direction") or sample.labels.get("outcome") or ""
            name = _SAMPLES.get((sample.name, label))
            if name is not None:
                found[name] = found.get(name, 0) + sample.value
    return Counts(**found)


def show_bytes(count: float) -> str:
    """Bytes for people: `0 kB`, `340 kB`, `1.2 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _number(count: float, one: str, many: str) -> str:
    return f"{count:.0f} {one if count == 1 else many}"


class StatusLine:
    """Writes to `out`, which is a terminal. `relay`: what it connects to."""

    def __init__(self, out: TextIO, relay: str) -> None:
        self._out = out
        self._relay = relay
        self._timer: asyncio.TimerHandle | None = None
        self._registry = CollectorRegistry()
        self._absence: Callable[[], str | None] = lambda: ""
        self._before = Counts()
        self._looked = self._began = time.monotonic()
        self._round_trip = 0.0  # seconds: the mean of the last pings; 0 until there was one

    def start(self, registry: CollectorRegistry, absence: Callable[[], str | None]) -> None:
        """Show what `registry` counts. `absence`: why the relay is away, empty if it is not, None if not known yet."""
        self._registry, self._absence = registry, absence
        self._tick()

    def stop(self) -> None:
        """End the line with a summary."""
        if self._timer is None:
            return
        self._timer.cancel()
        counts = read(self._registry)
        lasted = show_duration(time.monotonic() - self._began)
        self.say(
            f"disconnected after {lasted}: {show_bytes(counts.received)} received, {show_bytes(counts.sent)} sent"
            + (f", {_number(counts.pauses, 'pause', 'pauses')} survived" if counts.pauses else "")
        )

    def say(self, text: str) -> None:
        """Print a line that stays, above the status."""
        self._write(text, _width())
        self._out.write("\n")
        self._out.flush()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick)
        width = _width()
        self._write(self._text()[:width], width)
        self._out.flush()

    def _text(self) -> str:
        now, looked = read(self._registry), time.monotonic()
        seconds = max(looked - self._looked, 0.001)
        before, self._before, self._looked = self._before, now, looked
        if now.trips > before.trips:
            self._round_trip = (now.trip_seconds - before.trip_seconds) / (now.trips - before.trips)
        streams = _number(now.streams, "connection", "connections")
        survived = [f"{_number(now.pauses, 'pause', 'pauses')} survived"] if now.pauses else []
        absence = self._absence()
        if absence is None:
            return f"connecting to {self._relay} ..."
        if absence:
            waiting = [f"{streams} held"] if now.streams else []
            reason = absence.removeprefix(f"cannot reach {self._relay}: ")  # last, where a narrow terminal cuts it off
            return " | ".join(["connecting again", *waiting, *survived, reason])
        trip = [f"{self._round_trip * 1000:.0f} ms to the relay"] if self._round_trip else []
        down = show_bytes((now.received - before.received) / seconds)
        up = show_bytes((now.sent - before.sent) / seconds)
        return " | ".join(["connected", *trip, f"{down}/s down, {up}/s up", streams, *survived])

    def _write(self, text: str, width: int) -> None:
        """Overwrite the line. Control characters in a peer's reason do not reach the terminal."""
        shown = "".join(c if c.isprintable() else "?" for c in text)
        self._out.write(f"\r{shown.ljust(width)}")


def _width() -> int:
    return shutil.get_terminal_size().columns - 1  # a full line would wrap
