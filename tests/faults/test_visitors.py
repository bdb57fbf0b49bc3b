"""Visitors of a gateway: real players through kills of the relay, and players beside a flood of scans."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faults import at_rest, metric, wait_until
from support.npm_packages import npm_packages
from support.visitors import handshake

from demo.processes import Tunnel, free_port
from faults.conftest import need

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parent.parent.parent
KILLS = 8
PLAYERS = 20
SCANS = 5000
SCANS_PER_SECOND = 1000
ADDRESSES = 200
OPEN_SCANS = 500
MIB = 1 << 20


class Lines:
    """A program's output, line by line, as it comes."""

    def __init__(self, *command: str, **environ: str) -> None:
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | environ,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for line in self._child.stdout or ():
            self._lines.put(line.strip())

    def next(self, patience: float = 120.0) -> str:
        """The next line. Raises queue.Empty."""
        return self._lines.get(timeout=patience)

    def all(self) -> list[str]:
        """Those that came since."""
        return [self._lines.get() for _ in range(self._lines.qsize())]

    def go(self) -> None:
        """Send it a line."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()

    def stop(self) -> None:
        self._child.kill()
        self._thread.join()
        self._child.communicate()


@contextlib.contextmanager
def running(*command: str, **environ: str) -> Iterator[Lines]:
    """A program, for as long as it is needed."""
    lines = Lines(*command, **environ)
    try:
        yield lines
    finally:
        lines.stop()


def test_a_players_game_survives_kills_of_the_relay(environ: dict[str, str]) -> None:
    """A real client: status, login and play by the name of the server; chat arrives whole and in order."""
    need("node", "npm")
    packages = npm_packages()
    target, port = free_port(), free_port()
    gateway = {"CLIENT_AGENT_SHARED": f"127.0.0.1:{port}", "CLIENT_AGENT_ROUTE": "mc.example.com=demo 127.0.0.1=demo"}
    command = ("node", str(ROOT / "tests/support/minecraft.js"), str(target), str(port), "mc.example.com")
    # The player leaves first: a gateway that stops waits for those inside.
    with (
        Tunnel(target=target, environ=environ | gateway) as tunnel,
        running(*command, NODE_PATH=str(packages)) as game,
    ):
        assert game.next() == "listening"
        game.go()
        assert game.next() == 'status {"text":"awake"}'
        assert game.next() == "playing"
        heard = [game.next()]
        for _ in range(KILLS):
            tunnel.relay.kill()
            tunnel.relay.start()
            resumes = metric(tunnel.client, "tunnel_agent_resumes_total")
            wait_until(lambda: metric(tunnel.client, "tunnel_agent_detached_streams") == 0, 60.0)
            heard += [game.next(), *game.all()]
        assert heard == [f"heard {number}" for number in range(len(heard))]
        print(f"{len(heard)} lines of chat through {KILLS} kills, {resumes:.0f} resumes")


def percentile(values: list[float], part: float) -> float:
    """Of milliseconds."""
    return statistics.quantiles(values, n=1000)[round(part * 10) - 1]


def scan(port: int) -> None:
    """Connect and say nothing, garbage, half a handshake, or an old ping; so many stay open at once."""
    chance = random.Random(1)
    said = [b"", chance.randbytes(50), handshake("mc.example.com")[:-3], b"\xfe\x01"]
    left: collections.deque[socket.socket] = collections.deque()
    began = time.monotonic()
    for number in range(SCANS):
        time.sleep(max(0.0, began + number / SCANS_PER_SECOND - time.monotonic()))
        with contextlib.suppress(OSError):
            source = (f"127.0.0.{2 + number % ADDRESSES}", 0)
            left.append(socket.create_connection(("127.0.0.1", port), 5, source_address=source))
            left[-1].sendall(said[number % len(said)])
        if len(left) > OPEN_SCANS:
            left.popleft().close()
    print(f"{SCANS / (time.monotonic() - began):.0f} scans a second")
    for sock in left:
        sock.close()


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_a_flood_of_scans_costs_players_little(environ: dict[str, str]) -> None:
    """Nobody inside is lost, and the memory is bounded; what they notice is printed."""
    port, shared = free_port(), free_port()
    gateway = {
        "CLIENT_AGENT_PUBLIC": f"127.0.0.1:{port}=demo",
        "CLIENT_AGENT_SHARED": f"127.0.0.1:{shared}",
        "CLIENT_AGENT_ROUTE": "mc.example.com=demo",
        "CLIENT_AGENT_RATE_PER_ADDRESS": f"{PLAYERS}",
    }
    players = (sys.executable, str(ROOT / "tests/support/players.py"), str(port), f"{PLAYERS}")
    with Tunnel(environ=environ | gateway) as tunnel:
        with running(*players) as game:
            game.next()
            time.sleep(5)  # what is measured is this time
            before = [float(line) for line in game.all()]
            memory = resident(tunnel.client.pid)
            scan(shared)
            during = [float(line) for line in game.all()]
            grown = resident(tunnel.client.pid) - memory
            for name, part in (("p50", 50), ("p99", 99)):
                print(f"{name} {percentile(before, part):.1f} ms, in the flood {percentile(during, part):.1f} ms")
            wait_until(lambda: metric(tunnel.client, "tunnel_gateway_turned_away_total") > SCANS / 2, 60.0)
            turned = metric(tunnel.client, "tunnel_gateway_turned_away_total")
            print(f"{turned:.0f} turned away, memory grown by {grown / MIB:.1f} MiB")
            assert grown < 64 * MIB
            game.next()  # they play on
        at_rest(tunnel)
