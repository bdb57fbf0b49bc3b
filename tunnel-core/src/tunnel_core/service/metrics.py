"""Metrics that all three services share."""

from __future__ import annotations

import asyncio
import platform
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from .. import __version__

MAX_TUNNELS: Final = 200  # values of the label `tunnel`: each is a time series in every metric
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class TunnelLabels:
    """Bounds the label `tunnel`: beyond 200 names, the rest share `other`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, tunnel: str) -> str:
        if tunnel not in self._known:
            if len(self._known) >= MAX_TUNNELS:
                return "other"
            self._known.add(tunnel)
        return tunnel


class ProcessMetrics:
    """Build info, process and event loop metrics of a service. Create it inside the loop."""

    def __init__(self, registry: CollectorRegistry, service: str, loop: str) -> None:
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        info = Gauge(
            "tunnel_build_info",
            "Version, Python and event loop of the service; always 1.",
            ("service", "version", "python", "loop"),
            registry=registry,
        )
        info.labels(service, __version__, platform.python_version(), loop).set(1)
        running = asyncio.get_running_loop()
        Gauge("tunnel_asyncio_tasks", "Current tasks of the event loop.", registry=registry).set_function(
            lambda: len(asyncio.all_tasks(running))
        )
        self.loop_lag = Histogram(
            "tunnel_event_loop_lag_seconds",
            "How late the event loop ran a timer, measured once a second.",
            buckets=SECONDS,
            registry=registry,
        )
        self.leg_round_trip = Histogram(
            "tunnel_leg_round_trip_seconds",
            "Time from a ping on a leg to its pong.",
            buckets=SECONDS,
            registry=registry,
        )
