"""How the relay grows with its players: 100 to 1,000 raw leg pairs, each at a player's pace."""

from __future__ import annotations

import time

from ..load import legs
from ..relays import RELAY_REFERENCE
from ..subject import Relay, Running
from .figure import Figure, Metric, Pace, Values

PLAYERS = (100, 200, 500, 1000)
PACE = 20.0  # messages a second each way, a player
SATURATED = 0.9  # of a core
KEPT = 0.98  # of the pace: below it, something was too slow
MB = 1e6


def measure(running: Running, pace: Pace) -> Values:
    time.sleep(0.5)
    values = {"idle": running.stage.memory() / MB}
    for players in PLAYERS:
        messages, paced = highest_pace(running, players, pace.seconds(5))
        values |= {
            f"pace_{players}": messages,
            f"cpu_{players}": paced.rate * paced.cpu_each * 100,
            f"each_{players}": paced.cpu_each * 1e6,
            f"memory_{players}": paced.memory / MB,
            f"p99_{players}": paced.times.p99 / 1e3,
        }
    return values


def highest_pace(running: Running, players: int, seconds: float) -> tuple[float, legs.Paced]:
    """The pace, or half of it, or half of that: the first at which the relay is not saturated."""
    pace, stage = PACE, running.stage
    while True:
        paced = legs.paced(running.address, players, pace, seconds, stage.cpu, stage.memory)
        saturated = paced.rate * paced.cpu_each > SATURATED or paced.rate < KEPT * 2 * players * pace
        if not saturated or pace < 2:
            return pace, paced
        pace /= 2


SCALE = Figure(
    "scale",
    "Relay alone: players",
    (
        Metric("idle", "memory, idle", "MB", digits=1),
        *(
            metric
            for players in PLAYERS
            for metric in (
                Metric(f"pace_{players}", f"{players}: messages each way", "/s", digits=1),
                Metric(f"cpu_{players}", f"{players}: CPU", "% of a core", digits=1),
                Metric(f"each_{players}", f"{players}: CPU a message", "µs", digits=1),
                Metric(f"memory_{players}", f"{players}: memory", "MB", digits=1),
                Metric(f"p99_{players}", f"{players}: p99", "ms", digits=2),
            )
        ),
    ),
    measure,
    suits=lambda subject: isinstance(subject, Relay) and subject.name != RELAY_REFERENCE,
    fresh=True,
    full=True,
    rounds=3,
)
