"""A far link between agents and relay: 25 and 100 ms each way, and one that loses packets."""

from __future__ import annotations

from ..link import Link
from ..load import streams
from ..subject import Running, Subject, Tunnel
from ..workers import Worker, call
from .figure import Figure, Metric, Pace, Values

STREAMS = 20  # that ping at once: a far round trip takes long
WARM = 3.0  # seconds until TCP has found its window
LOSS = 0.01
DATA = 1000  # bytes: a packet that is longer belongs to a download


def measure(running: Running, pace: Pace) -> Values:
    seconds, probe = max(3.0, pace.seconds(6)), running.stage.cpu
    pings = call(90, streams.pings, running.address, STREAMS, seconds)
    down = call(90, streams.download, running.address, 1, seconds, probe, WARM)
    up = call(90, streams.upload, running.address, seconds, probe, WARM)
    return {
        "p50": pings.p50 / 1e3,
        "p99": pings.p99 / 1e3,
        "down": down.per_second / 1e6,
        "up": up.per_second / 1e6,
    }


def measure_beside(running: Running, pace: Pace) -> Values:
    """Only packets of the download are lost, so that what the pings suffer is the download's loss alone."""
    seconds = max(4.0, pace.seconds(10))
    alone = call(90, streams.pings, running.address, STREAMS, seconds)
    with Worker(streams.held_download, running.address, seconds) as download:
        beside = call(90, streams.pings, running.address, STREAMS, seconds)
        held = download.result(90)
    return {
        "alone_p99": alone.p99 / 1e3,
        "p50": beside.p50 / 1e3,
        "p99": beside.p99 / 1e3,
        "held": held.per_second / 1e6,
    }


def _far(name: str, title: str, link: Link) -> Figure:
    return Figure(
        name,
        title,
        (
            Metric("p50", "round trip p50", "ms", digits=1),
            Metric("p99", "p99", "ms", digits=1),
            Metric("down", "one stream down", "MB/s", more=True, digits=1),
            Metric("up", "up", "MB/s", more=True, digits=1),
        ),
        measure,
        suits=_suits,
        link=link,
        full=True,
        rounds=1,
    )


def _suits(subject: Subject) -> bool:
    return isinstance(subject, Tunnel) and subject.crosses_link


FIGURES = (
    _far("far25", "25 ms each way", Link(0.025)),
    _far("far100", "100 ms each way", Link(0.1)),
    _far("lossy", "25 ms each way, 1 % of packets lost", Link(0.025, LOSS)),
    Figure(
        "beside",
        "25 ms each way, beside a download of which 1 % of packets is lost",
        (
            Metric("alone_p99", "round trip p99 alone", "ms", digits=1),
            Metric("p50", "p50 beside", "ms", digits=1),
            Metric("p99", "p99 beside", "ms", digits=1),
            Metric("held", "the download", "MB/s", more=True, digits=1),
        ),
        measure_beside,
        suits=_suits,
        link=Link(0.025, LOSS, DATA),
        full=True,
        rounds=1,
    ),
)
