"""Memory (Pss) that a tunnel holds: idle, and with idle streams."""

from __future__ import annotations

import time

from ..load import streams
from ..subject import Running
from .figure import Figure, Goal, Metric, Pace, Values

SOME, MANY = 200, 2000
SETTLE = 0.5  # seconds until warm legs are dialed and buffers let go
PATIENCE = 30.0  # seconds to open the streams
PARTS = ("relay", "host-agent", "client-agent")  # ours, one by one
MB, KIB = 1e6, 1024


def measure(running: Running, pace: Pace) -> Values:
    stage = running.stage
    time.sleep(SETTLE)
    idle = stage.memory()
    values = {"idle": idle / MB}
    parts = {name: stage.memory(name) for name in PARTS if name in stage.names()}
    socks = streams.open_idle(running.address, SOME, PATIENCE)
    try:
        time.sleep(SETTLE)
        some = stage.memory()
        values |= {"some": some / MB, "some_ratio": some / idle if idle else 0.0}
        if not pace.quick:
            socks += streams.open_idle(running.address, MANY - SOME, PATIENCE)
            time.sleep(SETTLE)
        many = stage.memory()
        values["each"] = (many - idle) / len(socks) / KIB
        if not pace.quick:
            values["many"] = many / MB
        for name, before in parts.items():
            values[f"each_{name}"] = (stage.memory(name) - before) / len(socks) / KIB
    finally:
        streams.close(socks)
    return values


MEMORY = Figure(
    "memory",
    "Memory",
    (
        Metric("idle", "idle", "MB", digits=1),
        Metric("some", f"{SOME} idle streams", "MB", digits=1),
        Metric("some_ratio", f"{SOME} idle streams, to idle", "×", digits=2),
        Metric("many", f"{MANY} idle streams", "MB", digits=1),
        Metric("each", "an idle stream", "KiB", digits=1),
        *(Metric(f"each_{name}", f"an idle stream, {name}", "KiB", digits=1) for name in PARTS),
    ),
    measure,
    (Goal("some_ratio", 1.3, 1.1), *(Goal(f"each_{name}", 24) for name in PARTS)),
    fresh=True,
)
