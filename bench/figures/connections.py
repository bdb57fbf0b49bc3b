"""New connections, one after the other: connect, one byte echoed, close."""

from __future__ import annotations

from ..load import streams
from ..subject import Running
from ..tunnels import REFERENCE
from ..workers import call
from .figure import Figure, Goal, Metric, Pace, Values


def measure(running: Running, pace: Pace) -> Values:
    rate, p50 = call(60, streams.connections, running.address, pace.seconds(2))
    return {"rate": rate.per_second, "p50": p50}


CONNECTIONS = Figure(
    "connections",
    "New connections",
    (Metric("rate", "a second", "", more=True), Metric("p50", "p50", "µs")),
    measure,
    (Goal("rate", 0.6, 1.0, REFERENCE, at_least=True, first=0.4),),
)
