"""Round trips of 100 bytes on one connection: alone, and beside the download of another."""

from __future__ import annotations

from ..load import streams
from ..subject import Running
from ..tunnels import REFERENCE
from ..workers import Worker, call
from .figure import Figure, Goal, Metric, Pace, Values


def measure_alone(running: Running, pace: Pace) -> Values:
    times = call(60, streams.ping, running.address, pace.seconds(2), running.stage.cpu)
    return {"p50": times.p50, "p99": times.p99, "cpu": times.cpu_each * 1e6}


def measure_loaded(running: Running, pace: Pace) -> Values:
    seconds = pace.seconds(3)
    with Worker(streams.held_download, running.address, seconds) as download:
        # Within the download's time: it begins WARM seconds before it counts.
        times = call(60, streams.ping, running.address, seconds - streams.WARM, running.stage.cpu)
        held = download.result(60)
    return {"p50": times.p50, "p99": times.p99, "held": held.per_second / 1e6}


PING = Figure(
    "ping",
    "Round trip, 100 bytes",
    (
        Metric("p50", "p50", "µs"),
        Metric("p99", "p99", "µs"),
        Metric("cpu", "CPU each", "µs"),
    ),
    measure_alone,
    (Goal("p50", 1.25, 1.0, REFERENCE, first=1.5), Goal("p99", 1.5, 1.0, REFERENCE)),
)

LOADED = Figure(
    "loaded",
    "Round trip beside a download of 20 MB/s",
    (
        Metric("p50", "p50", "µs"),
        Metric("p99", "p99", "µs"),
        Metric("held", "the download", "MB/s", more=True),
    ),
    measure_loaded,
    (Goal("p99", 2, 1.0, REFERENCE),),
)
