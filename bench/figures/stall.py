"""A client that stops reading: what grows, and what the others notice."""

from __future__ import annotations

from ..load import sink, streams
from ..subject import Running
from ..workers import Worker, call
from .figure import Figure, Goal, Metric, Pace, Values

MB = 1e6
# Of one stream's download: the window where it is kept for a resume, once more where it waits
# for the reader, and the write buffers of three processes.
BOUND = 2 * 1.05 + 3 * 0.4  # MB


def measure(running: Running, pace: Pace) -> Values:
    seconds, probe = pace.seconds(2), running.stage.cpu
    undisturbed = call(60, streams.ping, running.address, seconds, probe)
    before = peak = running.stage.memory()
    with (
        streams.connect(running.address, sink.DOWN),  # and never read
        Worker(streams.ping, running.address, max(1.0, seconds), probe) as pings,
    ):
        while not pings.wait(0.2):
            peak = max(peak, running.stage.memory())
        beside = pings.result(60)
    return {
        "growth": (peak - before) / MB,
        "p50": beside.p50,
        "p50_ratio": beside.p50 / undisturbed.p50,
    }


STALL = Figure(
    "stall",
    "A client stops reading",
    (
        Metric("growth", "growth", "MB", digits=1),
        Metric("p50", "others' p50", "µs"),
        Metric("p50_ratio", "the same, to undisturbed", "×", digits=2),
    ),
    measure,
    (Goal("p50_ratio", 1.2, 1.0), Goal("growth", BOUND)),
)
