"""Slow, greedy and many: peers with genuine tokens who want the relay for themselves."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import players
from support.attacker import Attacker, masked, request
from support.commands import NO_UVLOOP
from support.faults import metric, wait_until
from support.figures import tell
from tunnel_core.net.buffers import READ_SIZE
from tunnel_core.net.outgoing import HIGH_WATER
from tunnel_core.protocol import tokens
from tunnel_core.protocol.frames import CloseCode
from websockets.frames import Opcode

from demo.processes import Tunnel

MIB = 1 << 20
HONEST = 20
ATTACKERS = 10
# What one attacker can make the relay hold: what waits for each of its two legs, what is
# being read, and the cost of being there at all.
A_PAIR = 2 * (HIGH_WATER + READ_SIZE) + 64 * 1024


class Players:
    """Twenty honest connections in a process of their own; what they see comes as lines."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, players.__file__, str(port), str(HONEST)]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def answered(self, count: int) -> float:
        """Wait for so many further answers. Returns their 99th percentile in milliseconds."""
        assert self._child.stdout is not None
        times: list[float] = []
        while len(times) < count:
            line = self._child.stdout.readline()
            assert line, self._child.communicate()[1]
            times.append(float(line))
        return statistics.quantiles(times, n=100)[98]

    def catch_up(self) -> None:
        """Forget what has been answered so far."""
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)
        with contextlib.suppress(TypeError):  # nothing there
            while self._child.stdout.read():
                pass
        os.set_blocking(self._child.stdout.fileno(), True)

    def stop(self) -> None:
        assert self._child.poll() is None, self._child.communicate()[1]
        self._child.kill()
        self._child.communicate()


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@contextlib.contextmanager
def game(*relay: str) -> Iterator[tuple[Tunnel, Players]]:
    """A tunnel with honest players on it, and limits that let many attackers in."""
    flags = ("--max-legs-per-token", "20000", "--max-legs-per-address", "20000", *relay)
    with Tunnel(relay=flags) as tunnel:
        players = Players(tunnel.port)
        try:
            players.answered(HONEST)
            yield tunnel, players
        finally:
            players.stop()
        assert tunnel.relay.events("bug") == []


class Gang:
    """Attackers with tokens for a tunnel of their own, both ends in their hands."""

    def __init__(self, tunnel: Tunnel) -> None:
        self.port = tunnel.relay_port
        self._secret = tunnel.secret.encode()
        self.members: list[Attacker] = []

    def bearer(self, role: str) -> str:
        return tokens.issue(
            self._secret,
            role="host" if role == "host" else "client",
            tunnels=["den"],
            subject="mallory",
            expires=4e9,
        )

    def leg(self, role: str, *, v1: bool = False) -> Attacker:
        attacker = Attacker(self.port)
        self.members.append(attacker)
        attacker.upgrade(f"/{role}/den", bearer=self.bearer(role), v1=v1)
        return attacker

    def pair(self) -> tuple[Attacker, Attacker]:
        """A raw pair."""
        return self.leg("host"), self.leg("client")

    def disperse(self) -> None:
        for member in self.members:
            with contextlib.suppress(OSError):
                member.sock.shutdown(socket.SHUT_RDWR)
            member.sock.close()


def elsewhere() -> None:
    """As on a machine of its own: what this thread costs here is not taken from those it attacks."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def flood(attacker: Attacker, data: bytes, stop: threading.Event) -> threading.Thread:
    """Send `data` over and over, as fast as the relay takes it."""

    def run() -> None:
        elsewhere()
        with contextlib.suppress(OSError):
            while not stop.is_set():
                attacker.sock.sendall(data)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def pour_out(attacker: Attacker) -> threading.Thread:
    """Read and forget what comes."""

    def run() -> None:
        elsewhere()
        with contextlib.suppress(OSError):
            while attacker.sock.recv(1 << 20):
                pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def never_reads(gang: Gang, stop: threading.Event) -> list[threading.Thread]:
    """One side sends without end, the other never reads."""
    return [flood(gang.pair()[0], masked(Opcode.BINARY, bytes(60_000)), stop) for _ in range(ATTACKERS)]


def reads_slowly(gang: Gang, stop: threading.Event) -> list[threading.Thread]:
    """The other reads a few bytes now and then."""
    threads = []
    for _ in range(ATTACKERS):
        host, client = gang.pair()

        def sip(client: Attacker = client) -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.1):
                    client.sock.recv(10)

        sipping = threading.Thread(target=sip)
        sipping.start()
        threads += [sipping, flood(host, masked(Opcode.BINARY, bytes(60_000)), stop)]
    return threads


def tiny_frames(gang: Gang, stop: threading.Event) -> list[threading.Thread]:
    """One byte a frame, from two attackers: they have a core of this machine to themselves meanwhile."""
    data = masked(Opcode.BINARY, b"x") * 5000
    threads = []
    for _ in range(2):
        host, client = gang.pair()
        drain = pour_out(client)
        threads += [drain, flood(host, data, stop)]
    return threads


def endless_fragments(gang: Gang, stop: threading.Event) -> list[threading.Thread]:
    """A message that never ends."""
    threads = []
    for _ in range(2):
        host, client = gang.pair()
        host.send(masked(Opcode.BINARY, b"x", fin=False))
        drain = pour_out(client)
        threads += [drain, flood(host, masked(Opcode.CONT, b"y" * 50, fin=False) * 500, stop)]
    return threads


def endless_text(gang: Gang, stop: threading.Event) -> list[threading.Thread]:
    """Raw text that nobody reads: it is bytes, too."""
    return [flood(gang.pair()[1], masked(Opcode.TEXT, b"t" * 60_000), stop) for _ in range(ATTACKERS)]


def early_data(gang: Gang, stop: threading.Event) -> list[threading.Thread]:
    """Raw clients who send without end before there is a host."""
    return [flood(gang.leg("client"), masked(Opcode.BINARY, bytes(60_000)), stop) for _ in range(ATTACKERS)]


def half_open(gang: Gang, stop: threading.Event) -> list[threading.Thread]:
    """Requests that are never finished, and legs of which nobody hears again: no pong, no close."""
    for _ in range(100):
        attacker = Attacker(gang.port)
        gang.members.append(attacker)
        attacker.send(request("/client/den")[:-2])
    for number in range(50):
        gang.leg("host", v1=number % 2 == 0)
    return []


@pytest.mark.parametrize(
    "attack", [never_reads, reads_slowly, tiny_frames, endless_fragments, endless_text, early_data, half_open]
)
def test_a_greedy_peer_gets_no_more_than_its_share(
    attack: Callable[[Gang, threading.Event], list[threading.Thread]],
) -> None:
    """The relay grows by no more than it may; the players go on, every answer right."""
    with game() as (tunnel, players):
        gang, stop = Gang(tunnel), threading.Event()
        quiet = players.answered(500)
        before = resident(tunnel.relay.pid)
        threads = attack(gang, stop)
        try:
            players.catch_up()
            loud = players.answered(1000)
            grown = resident(tunnel.relay.pid) - before
        finally:
            stop.set()
            gang.disperse()
            for thread in threads:
                thread.join()
        tell(f"{attack.__name__}: p99 {quiet:.1f} → {loud:.1f} ms, relay grown by {grown / MIB:.1f} MiB")
        assert grown <= ATTACKERS * A_PAIR + 4 * MIB  # and what an allocator keeps
        players.answered(200)


def test_messages_and_pings_without_end_close_the_leg() -> None:
    """Above the rate that a setting allows, however they are spread over reads."""
    with game("--max-message-rate", "200") as (tunnel, players):
        gang = Gang(tunnel)
        attacker = gang.leg("client", v1=True)
        stop = threading.Event()

        def patter() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.001):
                    attacker.sock.sendall(masked(Opcode.PING, b"p"))

        thread = threading.Thread(target=patter)
        thread.start()
        try:
            assert attacker.close_code() == CloseCode.POLICY_VIOLATION
        finally:
            stop.set()
            thread.join()
            gang.disperse()
        assert metric(tunnel.relay, "relay_refusals_total") >= 1
        players.answered(100)


def test_opening_and_closing_without_end_disturbs_nobody() -> None:
    """Legs that come and go as fast as two attackers can."""
    with game() as (tunnel, players):
        gang, stop = Gang(tunnel), threading.Event()
        bearer = gang.bearer("client")
        quiet = players.answered(500)

        def knock() -> None:
            elsewhere()
            while not stop.is_set():
                with Attacker(tunnel.relay_port) as attacker:
                    attacker.send(request("/client/den", bearer=bearer))

        threads = [threading.Thread(target=knock) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            loud = players.answered(1000)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        tell(f"opening and closing: p99 {quiet:.1f} → {loud:.1f} ms")
        wait_until(lambda: metric(tunnel.relay, "relay_waiting_clients") == 0)
        players.answered(100)


def test_an_overload_is_turned_away_and_passes() -> None:
    """5,000 idle legs fill the relay; newcomers get 503; those inside feel nothing; then all is as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    idle = 5000
    try:
        with game("--max-legs", str(idle)) as (tunnel, players):
            gang = Gang(tunnel)
            legs_before = metric(tunnel.relay, "relay_legs")
            bearer = gang.bearer("host")
            before = resident(tunnel.relay.pid)
            turned_away = 0
            began = time.monotonic()
            for _ in range(idle + 500):
                attacker = Attacker(tunnel.relay_port)
                attacker.send(request("/host/den", bearer=bearer))
                head = attacker.head()
                if b" 101 " in head:
                    gang.members.append(attacker)
                else:
                    assert b" 503 " in head
                    assert b"Retry-After" in head
                    attacker.sock.close()
                    turned_away += 1
            rate = (idle + 500) / (time.monotonic() - began)
            assert turned_away >= 500
            grown = resident(tunnel.relay.pid) - before
            p99 = players.answered(500)
            tell(f"overload: {rate:.0f} legs a second, {grown / idle / 1024:.1f} KiB a leg, p99 {p99:.1f} ms")
            gang.disperse()
            wait_until(lambda: metric(tunnel.relay, "relay_legs") <= legs_before + 5, 60)
            players.answered(200)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind_of_loop", ["uvloop", "asyncio"])
def test_few_descriptors_are_not_used_up(kind_of_loop: str) -> None:
    """With 256 of them the relay says so, takes as many legs as that allows, and turns the rest away."""
    root = Path(__file__).parent.parent.parent
    environ = {"PYTHONPATH": os.pathsep.join((str(NO_UVLOOP), str(root)))} if kind_of_loop == "asyncio" else {}
    tunnel = Tunnel(relay=("--max-legs-per-token", "20000"), environ=environ)
    tunnel.relay.limit_descriptors(256)
    with tunnel:
        assert tunnel.relay.events("few descriptors")
        players = Players(tunnel.port)
        players.answered(HONEST)
        gang = Gang(tunnel)
        bearer = gang.bearer("host")
        statuses = set()
        for _ in range(400):
            attacker = Attacker(tunnel.relay_port)
            gang.members.append(attacker)
            attacker.send(request("/host/den", bearer=bearer))
            statuses.add(attacker.head()[:12])
        assert statuses == {b"HTTP/1.1 101", b"HTTP/1.1 503"}
        players.answered(100)
        # They say nothing, and arrive all at once.
        tunnel.relay.signal(signal.SIGSTOP)
        idle = [socket.create_connection(("127.0.0.1", tunnel.relay_port)) for _ in range(300)]
        tunnel.relay.signal(signal.SIGCONT)
        players.answered(100)
        wait_until(lambda: metric(tunnel.relay, "relay_refusals_total", reason="handshakes") >= 200)
        gang.disperse()
        for sock in idle:
            sock.close()
        players.answered(100)
        players.stop()
        assert tunnel.relay.events("out of file descriptors") == []
        assert tunnel.relay.events("bug") == []
