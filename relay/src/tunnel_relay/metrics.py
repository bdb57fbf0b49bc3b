"""The relay's metrics."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from tunnel_core.service.metrics import SECONDS, TunnelLabels

from .offers import Offers

if TYPE_CHECKING:
    from .leg import RelayLeg


# Reasons that alerts watch. From 0, and not from the first time: a counter that appears as 1 has
# not risen, to an alert.
WATCHED: Final = (
    *("no-token", "bad-token", "revoked", "not-allowed", "failed-logins"),
    *("legs", "legs-per-address", "legs-per-token", "streams-per-token", "handshakes", "waiting-memory"),
    "no-host",
)


class _Legs:
    """Counts at scrape time what the legs count themselves, so that no byte costs a metric."""

    def __init__(
        self, live: Callable[[], Iterable[RelayLeg]], offers: Callable[[], Offers], labels: TunnelLabels
    ) -> None:
        self._live = live
        self._offers = offers
        self._labels = labels
        self.carried: Tally[tuple[str, str]] = Tally()  # by legs that are gone

    def over(self, leg: RelayLeg) -> None:
        self.carried[self._labels(leg.tunnel), leg.role] += leg.carried

    def collect(self) -> Iterator[Metric]:
        carried = Tally(self.carried)
        legs: Tally[tuple[str, str, str, str]] = Tally()
        for leg in self._live():
            tunnel = self._labels(leg.tunnel)
            carried[tunnel, leg.role] += leg.carried
            state = "paired" if leg.peer is not None else "closing" if not leg.open else "waiting"
            legs[tunnel, leg.role, "v1" if leg.v1 else "raw", state] += 1
        now = GaugeMetricFamily("relay_legs", "Legs now.", labels=("tunnel", "role", "mode", "state"))
        for labels, count in legs.items():
            now.add_metric(labels, count)
        yield now
        octets = CounterMetricFamily(
            "relay_bytes", "Stream bytes carried, by the role of the leg they came from.", labels=("tunnel", "role")
        )
        for key, count in carried.items():
            octets.add_metric(key, count)
        yield octets
        # A tunnel whose hosts have gone has 0 of them; one that never had any is not known.
        hosts = Tally({tunnel: 0 for tunnel, role in carried if role == "host"})
        offers = self._offers()
        for tunnel in offers:
            hosts[self._labels(tunnel)] += offers.hosts(tunnel)
        agents = GaugeMetricFamily("relay_hosts", "Host-agents that offer the tunnel now.", labels=("tunnel",))
        for tunnel, count in hosts.items():
            agents.add_metric((tunnel,), count)
        yield agents


class RelayMetrics:
    """Counts what the relay does. `live` gives its legs, `offers` who offers which tunnel, `waiting` who waits."""

    def __init__(
        self,
        registry: CollectorRegistry,
        live: Callable[[], Iterable[RelayLeg]],
        offers: Callable[[], Offers],
        waiting: Callable[[], int],
    ) -> None:
        self._labels = TunnelLabels()
        self._legs = _Legs(live, offers, self._labels)
        registry.register(self._legs)
        self._legs_total = Counter("relay_legs_opened", "Legs that came in.", ("role", "mode"), registry=registry)
        self._paired = Counter(
            "relay_pairings", "Pairings of a client leg with a host leg.", ("tunnel",), registry=registry
        )
        self._wait = Histogram(
            "relay_pair_wait_seconds",
            "How long a client leg waited for its host leg.",
            buckets=SECONDS,
            registry=registry,
        )
        self._refused = Counter("relay_refusals", "Requests and clients turned away.", ("reason",), registry=registry)
        for reason in WATCHED:
            self._refused.labels(reason)
        self._pages = Counter(
            "relay_pages", "Answers to browsers and package installers.", ("page", "status"), registry=registry
        )
        Gauge("relay_waiting_clients", "Clients that wait for a host now.", registry=registry).set_function(waiting)

    def leg_came(self, leg: RelayLeg) -> None:
        self._legs_total.labels(leg.role, "v1" if leg.v1 else "raw").inc()

    def leg_left(self, leg: RelayLeg) -> None:
        self._legs.over(leg)

    def paired(self, tunnel: str, waited: float) -> None:
        self._paired.labels(self._labels(tunnel)).inc()
        self._wait.observe(waited)

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def page(self, name: str, status: int) -> None:
        self._pages.labels(name, f"{int(status)}").inc()
