"""The services as Python's development mode sees them: `-X dev -W error`, and asyncio in debug mode.

A warning would be an error, what is left open is told when it is forgotten, and a callback
that holds the loop is logged.
"""

from __future__ import annotations

import json
import signal
import subprocess

import pytest
from support import blocking
from support.blocking import BOUND, waited
from support.commands import BIN
from support.faults import at_rest, metric, wait_until

from demo import traffic
from demo.processes import Process, Tunnel

pytestmark = pytest.mark.faults

MIB = 1 << 20
# As `python -X dev -W error`, for commands that have a line of their own.
STRICT = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error", "PYTHONASYNCIODEBUG": "1"}


def check(process: Process, queued: float) -> None:
    """It said nothing but log lines, among them no error, and nothing held its loop.

    `queued`: seconds that it was ready to run, and others did.
    """
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert [line for line in lines if line["level"] == "error"] == []
    said = [line["event"] for line in lines if line.get("logger")]
    slow = blocking.slow(said)
    assert len(slow) == len(said), f"a library had something to say: {said}"
    for seconds, what in slow[:3]:
        print(f"{process.name}: held the loop for {seconds:.3f} s: {what[:200]}")
    assert not slow or slow[0][0] - queued < BOUND


def test_nothing_warns_leaks_or_blocks(environ: dict[str, str]) -> None:
    """Traffic, a killed relay, a drain, and an end in order; each process with exit code 0."""
    with Tunnel(relay=["--drain", "3s"], environ=environ | STRICT) as tunnel:
        services = (tunnel.client, tunnel.host, tunnel.relay)
        for number in range(3):
            report = traffic.drive(tunnel.address, streams=8, size=2 * MIB)
            assert report.problems == []
            assert report.bytes_verified == 16 * MIB
            at_rest(tunnel)
            queued = {process.name: waited(process.pid) for process in services}
            if number == 0:
                tunnel.relay.kill()
            elif number == 1:
                tunnel.relay.signal(signal.SIGTERM)
                assert tunnel.relay.wait() == 0
            if number < 2:
                tunnel.relay.start()
                tunnel.relay.wait_ready()
                wait_until(lambda: all(process.get("/readyz")[0] == 200 for process in services))
        assert metric(tunnel.relay, "relay_pairings_total") > 0
        flags = ("--relay", f"ws://127.0.0.1:{tunnel.relay_port}", "--secret", tunnel.secret)
        for line in (
            ("host-agent", "doctor", *flags, "--tunnel", f"demo=127.0.0.1:{tunnel.target_port}"),
            ("client-agent", "doctor", *flags, "--forward", "0=demo"),
        ):
            done = subprocess.run(
                [BIN / line[0], *line[1:]],
                env=tunnel.environ,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, ""), done
        for process in services:
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
            check(process, queued[process.name])
