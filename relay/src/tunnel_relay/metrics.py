"""The relay's metrics."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Collection, Iterator
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from tunnel_core.protocol.endpoints import Role
from tunnel_core.service.metrics import SECONDS, TunnelLabels

from .offers import Offers

# Reasons that alerts watch. Export 0 at start, or `increase()` misses the first event.
WATCHED: Final = (
    *("no-token", "bad-token", "revoked", "not-allowed", "failed-logins"),
    *("legs", "legs-per-address", "legs-per-token", "streams-per-token", "handshakes", "waiting-memory"),
    "no-host",
)


class CountedLeg(Protocol):
    """A leg, as the metrics see it."""

    role: Role
    tunnel: str
    v1: bool
    stream_bytes: int

    @property
    def open(self) -> bool: ...
    @property
    def paired(self) -> bool: ...


class Counted(Protocol):
    """What is counted at each scrape."""

    offers: Offers

    @property
    def legs(self) -> Collection[CountedLeg]: ...
    @property
    def waiting(self) -> int: ...


class _Now:
    """Sums up the legs' own counts at scrape time, so that carrying bytes updates no metric."""

    def __init__(self, counted: Counted, labels: TunnelLabels, gone: Tally[tuple[str, str]]) -> None:
        self._counted = counted
        self._labels = labels
        self._gone = gone

    def collect(self) -> Iterator[Metric]:
        stream_bytes = Tally(self._gone)
        legs: Tally[tuple[str, str, str, str]] = Tally()
        for leg in self._counted.legs:
            tunnel = self._labels(leg.tunnel)
            stream_bytes[tunnel, leg.role] += leg.stream_bytes
            state = "paired" if leg.paired else "closing" if not leg.open else "waiting"
            legs[tunnel, leg.role, "v1" if leg.v1 else "raw", state] += 1
        now = GaugeMetricFamily("relay_legs", "Current legs.", labels=("tunnel", "role", "mode", "state"))
        for labels, count in legs.items():
            now.add_metric(labels, count)
        yield now
        octets = CounterMetricFamily(
            "relay_bytes", "Stream bytes carried, by the role of the leg they came from.", labels=("tunnel", "role")
        )
        for key, count in stream_bytes.items():
            octets.add_metric(key, count)
        yield octets
        # A tunnel whose hosts are gone shows 0; one that never had any is not shown.
        hosts = Tally({tunnel: 0 for tunnel, role in stream_bytes if role == "host"})
        offers = self._counted.offers
        for tunnel in offers:
            hosts[self._labels(tunnel)] += offers.hosts(tunnel)
        agents = GaugeMetricFamily("relay_hosts", "Host-agents that currently offer the tunnel.", labels=("tunnel",))
        for tunnel, count in hosts.items():
            agents.add_metric((tunnel,), count)
        yield agents
        yield GaugeMetricFamily(
            "relay_waiting_clients", "Clients that currently wait for a host.", self._counted.waiting
        )


class RelayMetrics:
    """The relay's counters."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._labels = TunnelLabels()
        self._gone: Tally[tuple[str, str]] = Tally()  # stream bytes of legs that are gone
        self._legs_total = Counter("relay_legs_opened", "Legs opened.", ("role", "mode"), registry=registry)
        self._paired = Counter(
            "relay_pairings", "Pairings of a client leg with a host leg.", ("tunnel",), registry=registry
        )
        self._wait = Histogram(
            "relay_pair_wait_seconds",
            "How long a client leg waited for its host leg.",
            buckets=SECONDS,
            registry=registry,
        )
        self._refused = Counter("relay_refusals", "Requests and clients refused.", ("reason",), registry=registry)
        for reason in WATCHED:
            self._refused.labels(reason)
        self._pages = Counter(
            "relay_pages", "Responses to browsers and package installers.", ("page", "status"), registry=registry
        )

    def watch(self, counted: Counted) -> None:
        """Export the current state of `counted` at each scrape."""
        self._registry.register(_Now(counted, self._labels, self._gone))

    def leg_came(self, leg: CountedLeg) -> None:
        self._legs_total.labels(leg.role, "v1" if leg.v1 else "raw").inc()

    def leg_left(self, leg: CountedLeg) -> None:
        self._gone[self._labels(leg.tunnel), leg.role] += leg.stream_bytes

    def paired(self, tunnel: str, waited: float) -> None:
        self._paired.labels(self._labels(tunnel)).inc()
        self._wait.observe(waited)

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def page(self, name: str, status: int) -> None:
        self._pages.labels(name, f"{int(status)}").inc()
