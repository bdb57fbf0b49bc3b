"""What is measured, in this order. A new figure is a file here, and a line below."""

from __future__ import annotations

from . import bulk, connections, distance, memory, ping, relay, replay, resume, scale, stall, trips
from .figure import Figure

FIGURES: tuple[Figure, ...] = (
    ping.PING,
    ping.LOADED,
    connections.CONNECTIONS,
    trips.TRIPS,
    bulk.BULK,
    bulk.EIGHT,
    replay.REPLAY,
    stall.STALL,
    memory.MEMORY,
    resume.RESUME,
    relay.MESSAGES,
    relay.TICKS,
    relay.FLOOD,
    scale.SCALE,
    *distance.FIGURES,
)
