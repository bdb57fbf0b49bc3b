"""The living line of `join`: what it says of what the metrics count."""

from __future__ import annotations

import io
from typing import Any

import pytest
from client_agent.join.status import StatusLine, show_bytes
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Agent:
    """Counts as an agent does."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        shared: dict[str, Any] = {"registry": self.registry}
        self.streams = Gauge("tunnel_agent_streams", "", ("tunnel",), **shared).labels("mc")
        octets = Counter("tunnel_agent_bytes", "", ("tunnel", "direction"), **shared)
        self.sent, self.received = octets.labels("mc", "sent"), octets.labels("mc", "received")
        resumes = Counter("tunnel_agent_resumes", "", ("tunnel", "outcome"), **shared)
        self.resumed, self.moved = resumes.labels("mc", "resumed"), resumes.labels("mc", "moved")
        self.trip = Histogram("tunnel_leg_round_trip_seconds", "", registry=self.registry)
        self.absence: str | None = None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("client_agent.join.status.time.monotonic", lambda: now[0])
    return now


def test_what_the_line_says(clock: list[float]) -> None:
    """In each state, and what changed since it was written last."""
    agent = Agent()
    line = StatusLine(io.StringIO(), "wss://relay.example.com")
    line._registry, line._absence = agent.registry, lambda: agent.absence

    def second() -> str:
        clock[0] += 2
        return line._text()

    assert second() == "connecting to wss://relay.example.com ..."
    agent.absence = "cannot reach wss://relay.example.com: Connection refused"
    assert second() == "connecting again | Connection refused"
    agent.absence = ""
    assert second() == "connected | 0 kB/s down, 0 kB/s up | 0 connections"
    agent.streams.set(1)
    agent.received.inc(3_000_000)
    agent.sent.inc(20_000)
    for seconds in (0.01, 0.03):
        agent.trip.observe(seconds)
    assert second() == "connected | 20 ms to the relay | 1.5 MB/s down, 10 kB/s up | 1 connection"
    agent.trip.observe(0.05)
    agent.moved.inc()
    assert second() == "connected | 50 ms to the relay | 0 kB/s down, 0 kB/s up | 1 connection"
    agent.absence = "no answer"
    assert second() == "connecting again | 1 connection held | no answer"
    agent.absence = ""
    agent.resumed.inc()
    agent.streams.set(2)
    expected = "connected | 50 ms to the relay | 0 kB/s down, 0 kB/s up | 2 connections | 1 pause survived"
    assert second() == expected


async def test_a_line_is_one_line(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a reason is, and whatever is in it; what is said in between stays."""
    monkeypatch.setenv("COLUMNS", "40")
    agent = Agent()
    out = io.StringIO()
    line = StatusLine(out, "wss://relay.example.com")
    agent.absence = "\x1b[2J" + "x" * 100
    line.start(agent.registry, lambda: agent.absence)
    line.say("connected: to " + "y" * 50)
    clock[0] += 60
    line.stop()
    first, *said = out.getvalue()[1:].split("\r")
    assert first == "connecting again | ?[2J" + "x" * 16
    assert said == [
        "connected: to " + "y" * 50 + "\n",
        "disconnected after 60 s: 0 kB received, 0 kB sent\n",
    ]


async def test_one_that_was_never_begun_says_nothing() -> None:
    """Where the agent could not start."""
    out = io.StringIO()
    StatusLine(out, "").stop()
    assert out.getvalue() == ""


def test_bytes_for_people() -> None:
    """In thousands, as lines are sold."""
    assert [show_bytes(n) for n in (0, 4_400, 999_000, 1_000_000, 2_340_000_000)] == [
        "0 kB",
        "4 kB",
        "999 kB",
        "1.0 MB",
        "2.3 GB",
    ]
