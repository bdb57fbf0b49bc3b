"""Round trips of 100 bytes on 50 connections at once."""

from __future__ import annotations

from ..load import streams
from ..subject import Running
from ..tunnels import REFERENCE
from ..workers import call
from .figure import Figure, Goal, Metric, Pace, Values

CONNECTIONS = 50


def measure(running: Running, pace: Pace) -> Values:
    rate = call(60, streams.trips, running.address, CONNECTIONS, pace.seconds(2), running.stage.cpu)
    return {"rate": rate.per_second, "cpu": rate.cpu_each * 1e6}


TRIPS = Figure(
    "trips",
    f"Round trips, {CONNECTIONS} connections",
    (Metric("rate", "a second", "", more=True), Metric("cpu", "CPU each", "µs")),
    measure,
    (Goal("rate", 0.75, 1.0, REFERENCE, at_least=True),),
)
