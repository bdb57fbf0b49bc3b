"""Many streams at once: what is due for all of them together holds nobody up, and nobody is turned away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest
from support import players
from support.apps import exchange
from support.faults import at_rest, metric

from demo.processes import Tunnel

pytestmark = pytest.mark.faults

STREAMS = 1000
SECONDS = 20.0  # every stream asks some times, its acks fall due, and its legs are pinged
PATIENCE = 120.0
# One machine and one token stand for a thousand players, who come all at once.
LIMITS = {
    "RELAY_MAX_STREAMS_PER_TOKEN": "2000",
    "RELAY_MAX_LEGS_PER_TOKEN": "5000",
    "RELAY_MAX_LEGS_PER_ADDRESS": "5000",
}


def test_a_thousand_streams_do_not_hold_the_loops(environ: dict[str, str]) -> None:
    """Each answer is right. The longest is printed: nothing that blocks a loop is longer."""
    with Tunnel(environ=environ | LIMITS) as tunnel:
        command = [sys.executable, players.__file__, str(tunnel.address[1]), str(STREAMS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
            try:
                assert asking.stdout is not None
                times: list[float] = []
                deadline = time.monotonic() + PATIENCE
                began = 0.0  # counted from when all have asked once
                while not began or time.monotonic() < began + SECONDS:
                    line = asking.stdout.readline()
                    assert line, asking.stderr.read() if asking.stderr else ""
                    times.append(float(line))
                    assert time.monotonic() < deadline, f"{len(times)} answers in {PATIENCE:.0f} s"
                    if not began and len(times) >= STREAMS:
                        began = time.monotonic()
                        times.clear()
                        times.append(0.0)
            finally:
                asking.kill()
        times = sorted(times[1:])
        middle, most = times[len(times) // 2], times[-1]
        print(
            f"{STREAMS} streams, {len(times)} answers: {middle:.2f} ms (p50), "
            f"{times[len(times) * 99 // 100]:.2f} ms (p99), {most:.2f} ms (longest)"
        )
        at_rest(tunnel)


async def visits(port: int, visitors: int, each: int) -> None:
    """So many visitors at once, each with one short connection after another."""

    async def visit(seed: int) -> None:
        for _ in range(each):
            await exchange(port, 100, seed)

    await asyncio.gather(*(visit(seed) for seed in range(visitors)))


def test_250_short_connections_at_once(environ: dict[str, str]) -> None:
    """As many as one token may have streams, and as they end more: 2,000 in all, with the settings as they are."""
    with Tunnel(environ=environ) as tunnel:
        asyncio.run(visits(tunnel.port, 250, 8))
        assert metric(tunnel.client, "tunnel_agent_streams_ended_total", outcome="finished") == 250 * 8
        at_rest(tunnel)
