"""The metrics of an agent, client or host alike."""

from __future__ import annotations

import functools
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..protocol.raw import AnyStream
from ..protocol.replay import ReplayMemory
from ..protocol.seal.errors import Fault
from ..protocol.stream import Outcome
from ..service.metrics import SECONDS, TunnelLabels

RESUMES: Final = ("resumed", "moved", "lost")  # what became of a stream that lost its leg


class _Streams:
    """Counts at scrape time what the streams count themselves, so that no byte costs a metric."""

    def __init__(self, live: Callable[[], Iterable[tuple[str, AnyStream]]], labels: TunnelLabels) -> None:
        self._live = live
        self._labels = labels
        self.sent: Tally[str] = Tally()  # by streams that are over
        self.received: Tally[str] = Tally()

    def known(self, tunnel: str) -> None:
        """Export 0 and not nothing for a tunnel that nobody has used yet."""
        self.sent[tunnel] += 0
        self.received[tunnel] += 0

    def over(self, tunnel: str, stream: AnyStream) -> None:
        tunnel = self._labels(tunnel)
        self.sent[tunnel] += stream.sent
        self.received[tunnel] += stream.received

    def collect(self) -> Iterator[Metric]:
        sent, received = Tally(self.sent), Tally(self.received)
        streams, detached = Tally(dict.fromkeys(sent, 0)), Tally(dict.fromkeys(sent, 0))
        for name, stream in self._live():
            tunnel = self._labels(name)
            streams[tunnel] += 1
            detached[tunnel] += stream.link is None
            sent[tunnel] += stream.sent
            received[tunnel] += stream.received
        yield _family(GaugeMetricFamily, "tunnel_agent_streams", "Streams now.", streams)
        yield _family(
            GaugeMetricFamily, "tunnel_agent_detached_streams", "Streams that have no leg at the moment.", detached
        )
        octets = CounterMetricFamily(
            "tunnel_agent_bytes",
            "Stream bytes, from the local socket (sent) and to it (received).",
            labels=("tunnel", "direction"),
        )
        for tunnel, count in sent.items():
            octets.add_metric((tunnel, "sent"), count)
        for tunnel, count in received.items():
            octets.add_metric((tunnel, "received"), count)
        yield octets


def _family(kind: type[GaugeMetricFamily], name: str, about: str, values: Tally[str]) -> Metric:
    family = kind(name, about, labels=("tunnel",))
    for tunnel, value in values.items():
        family.add_metric((tunnel,), value)
    return family


class AgentMetrics:
    """Counts what an agent does. `live` gives its streams, each with its tunnel."""

    def __init__(
        self,
        registry: CollectorRegistry,
        labels: TunnelLabels,
        memory: ReplayMemory,
        live: Callable[[], Iterable[tuple[str, AnyStream]]],
    ) -> None:
        self._labels = labels
        self._streams = _Streams(live, labels)
        registry.register(self._streams)
        ended = Counter(
            "tunnel_agent_streams_ended",
            "Streams that are over, by outcome.",
            ("tunnel", "outcome"),
            registry=registry,
        )
        opened = Counter(
            "tunnel_agent_streams_opened",
            "Streams whose target answered; of sealed ones, at a client, whose host did.",
            ("tunnel", "sealed"),
            registry=registry,
        )
        self._sealed: set[str] = set()  # tunnels
        # Each tunnel's own, found once: `labels` costs more than `inc`. An agent has few tunnels.
        self._opened: Callable[[str], Counter] = functools.cache(
            lambda tunnel: opened.labels(labels(tunnel), "yes" if tunnel in self._sealed else "no")
        )
        self._ended: Callable[[str, str], Counter] = functools.cache(
            lambda tunnel, outcome: ended.labels(labels(tunnel), outcome)
        )
        self.open_seconds = Histogram(
            "tunnel_agent_open_seconds",
            "From a local connection, or an `open`, to the target's answer.",
            buckets=SECONDS,
            registry=registry,
        )
        self._resumes = Counter(
            "tunnel_agent_resumes",
            "Streams that lost their leg: resumed, moved in time, or lost for good.",
            ("tunnel", "outcome"),
            registry=registry,
        )
        self.pause_seconds = Histogram(
            "tunnel_agent_pause_seconds",
            "How long a resumed stream had no leg.",
            buckets=SECONDS,
            registry=registry,
        )
        self.replayed_bytes = Counter(
            "tunnel_agent_replayed_bytes", "Bytes that resumes sent again.", registry=registry
        )
        self.dial_failures = Counter("tunnel_agent_dial_failures", "Dials of the relay that failed.", registry=registry)
        self.unknown_messages = Counter(
            "tunnel_agent_unknown_messages",
            "Control messages of a type that this version does not know: the other end is newer.",
            registry=registry,
        )
        self._e2e_failures = Counter(
            "tunnel_agent_e2e_failures",
            "Streams of sealed tunnels that were refused or broken, by reason.",
            ("reason",),
            registry=registry,
        )
        used = Gauge(
            "tunnel_agent_replay_memory_bytes",
            "Memory taken by streams: kept for a resume, or promised to what the other end sends.",
            registry=registry,
        )
        used.set_function(lambda: memory.used)
        limit = Gauge("tunnel_agent_replay_memory_limit_bytes", "The most that they may take.", registry=registry)
        limit.set(memory.limit)
        starved = Gauge(
            "tunnel_agent_starved_streams",
            "Streams whose local socket is not read now, as their share of the memory is used up.",
            registry=registry,
        )
        starved.set_function(lambda: memory.starved)
        self._ready = Gauge(
            "tunnel_agent_ready_legs", "Open legs that no stream is on.", ("tunnel",), registry=registry
        )

    def count_ready(self, tunnel: str, ready: Callable[[], int], *, sealed: bool = False) -> None:
        label = self._labels(tunnel)
        if sealed:
            self._sealed.add(tunnel)
        self._ready.labels(label).set_function(ready)
        # From 0, and not from the first time: a counter that appears as 1 has not risen, to an alert.
        self._streams.known(label)
        self._opened(tunnel)
        for outcome in Outcome:
            self._ended(tunnel, outcome.value)
        for word in RESUMES:
            self._resumes.labels(label, word)
        for fault in Fault:
            self._e2e_failures.labels(fault.label)

    def seal_failed(self, fault: Fault) -> None:
        self._e2e_failures.labels(fault.label).inc()

    def opened(self, tunnel: str, seconds: float) -> None:
        self._opened(tunnel).inc()
        self.open_seconds.observe(seconds)

    def ended(self, tunnel: str, stream: AnyStream, outcome: Outcome) -> None:
        self._streams.over(tunnel, stream)
        self._ended(tunnel, outcome.value).inc()

    def resumed(self, tunnel: str, outcome: str, paused: float | None, replayed: int) -> None:
        self._resumes.labels(self._labels(tunnel), outcome).inc()
        self.replayed_bytes.inc(replayed)
        if paused is not None:
            self.pause_seconds.observe(paused)
