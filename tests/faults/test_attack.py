"""Every attack that is known, all at once, beside honest people: they notice little, and nothing grows.

`make attack` is ten minutes of it; ATTACK says how many seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest
from support import honest
from support.attacker import masked
from support.attacks import HOST_ALONE, Attackers, Gang, leaving
from support.commands import with_tests
from support.deploy import load
from support.faults import Leaks, WireThread, at_rest, metric, wait_until
from tunnel_core.protocol import tokens
from tunnel_core.service import logs
from websockets.frames import Opcode

from demo.processes import Process, Tunnel, free_port

SECONDS = int(os.environ.get("ATTACK", "60"))
pytestmark = [pytest.mark.faults, pytest.mark.timeout(SECONDS + 400)]

PLAYERS, DOWNLOADS = 16, 4
STOP = 1.0  # seconds: no honest stream stops for longer, but for what the machine itself took
BEFORE = 5.0  # seconds of peace, to compare with
MIB = 1 << 20
UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def setting(service: str, name: str) -> Any:
    """What docker-compose.yml says of a service."""
    return load("docker-compose.yml")["services"][service][name]


def container(service: str) -> int:
    """The memory that its container may have, in bytes."""
    limit = str(setting(service, "mem_limit"))
    return int(limit[:-1]) * UNITS[limit[-1]]


def peak(process: Process) -> int:
    """The most memory that a process has had resident, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


class Honest:
    """Honest people, in a process of their own."""

    def __init__(self, tunnel: Tunnel, admin_port: int) -> None:
        pids = (tunnel.relay.pid, tunnel.host.pid, tunnel.client.pid, tunnel.server.pid)
        numbers = (tunnel.port, PLAYERS, DOWNLOADS, tunnel.relay_port, admin_port, *pids)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "support.honest", *map(str, numbers)],
            env=with_tests(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def leave(self) -> dict[str, Any]:
        """End in peace. Returns honest.Seen."""
        printed, _ = self._child.communicate(timeout=honest.PATIENCE + 30)
        seen: dict[str, Any] = json.loads(printed)
        return seen

    @property
    def lives(self) -> bool:
        return self._child.poll() is None


def answers(relay: Process) -> bool:
    """Whether it is ready: it may take long to start on a machine that is under attack."""
    with contextlib.suppress(OSError):
        return relay.get("/readyz")[0] == 200
    return False


def drains_under_a_raw_host(
    gang: Gang, tunnel: Tunnel, relay: Process, port: int, wire: WireThread, entry: int
) -> None:
    """Another relay goes away in order, while a stream's other end is a raw host: it cannot move, and is no bug."""
    relay.start()
    wait_until(lambda: answers(relay), 120)
    wire.lead_to(port)
    wire.cut()
    host = gang.leg("raw", role="host", tunnel="pit", v1=False, port=port)
    with leaving([host]), socket.create_connection(("127.0.0.1", entry), timeout=20) as sock:
        sock.sendall(b"hello")
        for opcode, payload in host.frames():
            if opcode == Opcode.BINARY:
                assert payload == b"hello"
                break
        host.send(masked(Opcode.BINARY, b"answer"))
        assert sock.recv(100) == b"answer"
        wire.lead_to(tunnel.relay_port)
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0


def test_all_attacks_at_once(tmp_path: Path) -> None:
    """Twenty honest streams stay whole and never stop for long, newcomers get in, and memory and logs are bounded."""
    revoked = tmp_path / "revoked"
    environ = {
        f"{name}_REPLAY_MEMORY": setting(service, "environment")[f"{name}_REPLAY_MEMORY"]
        for name, service in (("HOST_AGENT", "host-agent"), ("CLIENT_AGENT", "client-agent"))
    }
    tunnel = Tunnel(relay=("--revoked", str(revoked), "--drain", "3s"), environ=environ)
    gone = tokens.issue(tunnel.secret.encode(), role="client", tunnels=["demo"], subject="gone", expires=4e9)
    revoked.write_text(tokens.read(gone).id)
    stalls, victims, entry, next_port = free_port(), free_port(), free_port(), free_port()
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(WireThread())
        next_relay = tunnel.add_relay("next-relay", next_port, "--drain", "3s")
        gang = Gang(
            secret=tunnel.secret,
            tunnel="demo",
            port=tunnel.relay_port,
            admin_port=tunnel.relay.admin_port,
            stalls=stalls,
            victims=victims,
            revoked=str(revoked),
            revoked_token=gone,
        )
        greedy = client(tunnel, gang, "greedy", tunnel.relay_port, {stalls: "demo", victims: HOST_ALONE})
        patient = client(tunnel, gang, "patient", wire.port, {entry: "pit"})
        stack.enter_context(tunnel)
        wire.lead_to(tunnel.relay_port)
        for process in (greedy, patient):
            stack.callback(process.stop)
            process.start()
            process.wait_ready()
        stack.callback(next_relay.stop)
        leaks = Leaks(tunnel)

        with Honest(tunnel, tunnel.relay.admin_port) as people:
            time.sleep(BEFORE)
            peace = people.leave()
        assert peace["problems"] == []

        with Attackers(gang) as attackers, Honest(tunnel, tunnel.relay.admin_port) as people:
            drains = 0
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                assert people.lives
                drains_under_a_raw_host(gang, tunnel, next_relay, next_port, wire, entry)
                drains += 1
                time.sleep(min(10.0, max(0.0, end - time.monotonic())))
            turns = attackers.stop()
            seen = people.leave()

        services = {
            "relay": (tunnel.relay, "relay"),
            "host-agent": (tunnel.host, "host-agent"),
            "client-agent": (tunnel.client, "client-agent"),
            "client-agent of the greedy": (greedy, "client-agent"),
            "client-agent of the patient": (patient, "client-agent"),
        }
        told = turns | {"drains_under_a_raw_host": drains}
        print(f"\n{SECONDS} s of: " + ", ".join(f"{name} {count}" for name, count in told.items()))
        print(f"honest, in peace: {peace}\nhonest, attacked: {seen}")
        refusals = {
            line.split('"')[1]: int(float(line.split()[-1]))
            for line in tunnel.relay.get("/metrics")[1].splitlines()
            if line.startswith("relay_refusals_total{")
        }
        print(f"refused: {refusals}")
        peaks = {name: peak(process) for name, (process, _) in services.items()}
        lines = {name: process.log.read_text() for name, (process, _) in services.items()}
        for name, (_, service) in services.items():
            most = container(service)
            print(f"{name}: {peaks[name] / MIB:.0f} of {most / MIB:.0f} MiB, log of {len(lines[name]) / 1e6:.1f} MB")

        assert gang.successes == []
        assert all(told.values()), told
        assert seen["problems"] == []
        assert seen["stop_own"] <= STOP
        assert {name: peaks[name] for name, (_, service) in services.items() if peaks[name] > container(service)} == {}
        for name, text in lines.items():
            assert text.count("\n") <= logs.ALL_AT_ONCE + logs.ALL_PER_SECOND * (SECONDS + BEFORE), name
            assert tunnel.secret not in text, name
            assert "eyJ" not in text, name  # how a token begins
        at_rest(tunnel, 120)
        leaks.check()
        for process in (greedy, patient):
            wait_until(lambda process=process: metric(process, "tunnel_agent_streams") == 0, 120)  # type: ignore[misc]
            assert process.events("bug") == []
        wait_until(lambda: metric(patient, "tunnel_agent_ready_legs") <= 4, 120)


def client(tunnel: Tunnel, gang: Gang, subject: str, relay_port: int, forwards: dict[int, str]) -> Process:
    """A client-agent with a token of its own, not started."""
    flags = [word for port, name in forwards.items() for word in ("--forward", f"{port}={name}")]
    token = gang.token(subject, "client", *forwards.values())
    relay = f"ws://127.0.0.1:{relay_port}"
    return tunnel.add_service(subject, "--relay", relay, "--token", token, *flags, command="client-agent")
