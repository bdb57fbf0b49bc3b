"""Bulk: what a stream, and eight of them, carry a second, and what a GB costs."""

from __future__ import annotations

from ..load import streams
from ..subject import Running
from ..tunnels import FLOOR, REFERENCE
from ..workers import call
from .figure import Figure, Goal, Metric, Pace, Values

GB = 1e9


def measure_one(running: Running, pace: Pace) -> Values:
    seconds, probe = pace.seconds(2), running.stage.cpu
    down = call(60, streams.download, running.address, 1, seconds, probe)
    up = call(60, streams.upload, running.address, seconds, probe)
    return {
        "down": down.per_second / 1e6,
        "up": up.per_second / 1e6,
        "cpu_down": down.cpu_each * GB,
        "cpu_up": up.cpu_each * GB,
    }


def measure_eight(running: Running, pace: Pace) -> Values:
    down = call(60, streams.download, running.address, 8, pace.seconds(2), running.stage.cpu)
    return {"down": down.per_second / 1e6}


BULK = Figure(
    "bulk",
    "Bulk, one stream",
    (
        Metric("down", "down", "MB/s", more=True),
        Metric("up", "up", "MB/s", more=True),
        Metric("cpu_down", "CPU a GB down", "s", digits=2),
        Metric("cpu_up", "CPU a GB up", "s", digits=2),
    ),
    measure_one,
    (
        Goal("down", 0.9, 1.0, REFERENCE, at_least=True, first=0.75),
        Goal("up", 0.9, 1.0, REFERENCE, at_least=True, first=0.75),
        Goal("down", 5, 7, FLOOR, at_least=True),
        Goal("cpu_down", 1.2, 1.0, REFERENCE),
        Goal("cpu_up", 1.2, 1.0, REFERENCE),
    ),
)

EIGHT = Figure(
    "eight",
    "Bulk, eight streams",
    (Metric("down", "down, sum", "MB/s", more=True),),
    measure_eight,
)
