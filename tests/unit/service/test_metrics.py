"""Metrics that alerts rely on."""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry
from tunnel_core.agent.metrics import RESUMES, AgentMetrics
from tunnel_core.protocol.replay import ReplayMemory
from tunnel_core.service.metrics import ProcessMetrics, TunnelLabels
from tunnel_relay.metrics import WATCHED, RelayMetrics


def test_an_agent_counts_from_zero() -> None:
    """The first stream that is lost is a rise: the counter was there before, at 0."""
    registry = CollectorRegistry()
    metrics = AgentMetrics(registry, TunnelLabels(), ReplayMemory(1 << 20, 1 << 16), lambda: ())
    metrics.count_ready("mc", lambda: 0)
    for gauge in ("tunnel_agent_streams", "tunnel_agent_detached_streams"):
        assert registry.get_sample_value(gauge, {"tunnel": "mc"}) == 0
    for direction in ("sent", "received"):
        assert registry.get_sample_value("tunnel_agent_bytes_total", {"tunnel": "mc", "direction": direction}) == 0
    for outcome in RESUMES:
        assert registry.get_sample_value("tunnel_agent_resumes_total", {"tunnel": "mc", "outcome": outcome}) == 0
    metrics.resumed("mc", "lost", None, 0)
    assert registry.get_sample_value("tunnel_agent_resumes_total", {"tunnel": "mc", "outcome": "lost"}) == 1
    for outcome in ("finished", "reset-peer", "refused", "lost"):
        assert registry.get_sample_value("tunnel_agent_streams_ended_total", {"tunnel": "mc", "outcome": outcome}) == 0


def test_the_relay_counts_refusals_from_zero() -> None:
    """Those that alerts watch."""
    registry = CollectorRegistry()
    metrics = RelayMetrics(registry)
    for reason in WATCHED:
        assert registry.get_sample_value("relay_refusals_total", {"reason": reason}) == 0
    metrics.refused("bad-token")
    assert registry.get_sample_value("relay_refusals_total", {"reason": "bad-token"}) == 1


async def test_tasks_are_counted(loop_factory: Any) -> None:
    """Those that run now, on either loop."""
    registry = CollectorRegistry()
    ProcessMetrics(registry, "relay", "a loop")
    before = registry.get_sample_value("tunnel_asyncio_tasks")
    assert before == len(asyncio.all_tasks())
    task = asyncio.create_task(asyncio.sleep(60))
    assert registry.get_sample_value("tunnel_asyncio_tasks") == before + 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert registry.get_sample_value("tunnel_asyncio_tasks") == before
