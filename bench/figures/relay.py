"""The relay alone, between raw legs."""

from __future__ import annotations

from ..load import legs
from ..relays import RELAY_REFERENCE
from ..subject import Relay, Running
from .figure import Figure, Goal, Metric, Pace, Values

PAIRS = 50
PACE = 100.0  # messages a second and leg: 10,000 in all, less than half of what saturates the reference
TICK = 5  # messages that a game's tick has for a leg, at 20 ticks a second
GB = 1e9


def measure_messages(running: Running, pace: Pace) -> Values:
    """Each message by itself: it wakes the relay, which finds nothing else to do."""
    return _paced(running, pace, 1)


def measure_ticks(running: Running, pace: Pace) -> Values:
    """As many messages, as games send them."""
    return _paced(running, pace, TICK)


def _paced(running: Running, pace: Pace, at_once: int) -> Values:
    stage = running.stage
    paced = legs.paced(running.address, PAIRS, PACE, pace.seconds(4), stage.cpu, stage.memory, at_once)
    return {"cpu": paced.cpu_each * 1e6, "p50": paced.times.p50, "p99": paced.times.p99, "rate": paced.rate}


def measure_flood(running: Running, pace: Pace) -> Values:
    rate = legs.flood(running.address, pace.seconds(3), running.stage.cpu)
    return {"cpu": rate.cpu_each * GB, "down": rate.per_second / 1e6}


_PACED = (
    Metric("cpu", "CPU a message", "µs", digits=1),
    Metric("p50", "p50", "µs"),
    Metric("p99", "p99", "µs"),
    Metric("rate", "messages", "/s", more=True),
)

MESSAGES = Figure(
    "messages",
    f"Relay alone: 100-byte messages, one at a time, {PAIRS} leg pairs",
    _PACED,
    measure_messages,
    (Goal("cpu", 1 / 3, None, RELAY_REFERENCE),),
    suits=lambda subject: isinstance(subject, Relay),
)

TICKS = Figure(
    "ticks",
    f"Relay alone: 100-byte messages, {TICK} a tick, {PAIRS} leg pairs",
    _PACED,
    measure_ticks,
    (Goal("cpu", 1 / 3, None, RELAY_REFERENCE),),
    suits=lambda subject: isinstance(subject, Relay),
)

FLOOD = Figure(
    "flood",
    "Relay alone: 64 KiB frames, one leg pair",
    (Metric("cpu", "CPU a GB", "s", digits=2), Metric("down", "rate", "MB/s", more=True)),
    measure_flood,
    (Goal("cpu", 1.2),),
    suits=lambda subject: isinstance(subject, Relay),
)
