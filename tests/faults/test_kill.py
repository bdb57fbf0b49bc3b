"""Real processes over real sockets, killed, cut and frozen while a transfer runs."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from support.faults import Leaks, WireThread, at_rest, metric, wait_until

from demo import traffic
from demo.processes import Tunnel

pytestmark = pytest.mark.faults

MIB = 1 << 20


class Transfer:
    """Bytes through a tunnel, both ways at once, throttled so that they last."""

    def __init__(self, tunnel: Tunnel, *, size: int, seconds: float, streams: int = 1) -> None:
        self._reports: list[traffic.Report] = []
        self._size = size * streams
        self._thread = threading.Thread(
            target=lambda: self._reports.append(
                traffic.drive(tunnel.address, streams=streams, size=size, seconds=seconds)
            )
        )
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> traffic.Report:
        """Wait for the end. Every byte came, in order, once; and no connection broke."""
        self._thread.join()
        (report,) = self._reports
        assert report.problems == []
        assert report.bytes_verified == self._size
        print(f"longest pause {report.longest_pause_s} s of {report.seconds} s")
        return report


@contextlib.contextmanager
def seeded() -> Iterator[random.Random]:
    """Chance that can be had again."""
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    yield random.Random(seed)


def test_a_transfer_survives_twenty_kills_of_the_relay(environ: dict[str, str]) -> None:
    """256 MiB each way, kill -9 at random moments, each inside the transfer: hashes equal, nothing broken."""
    with seeded() as chance, Tunnel(environ=environ) as tunnel:
        leaks = Leaks(tunnel)
        transfer = Transfer(tunnel, size=256 * MIB, seconds=40)
        for _ in range(20):
            time.sleep(chance.uniform(0.2, 1.6))  # when it strikes is what is random here
            assert transfer.running, "a kill outside the transfer proves nothing"
            tunnel.relay.kill()
            time.sleep(chance.uniform(0, 0.3))
            tunnel.relay.start()
        assert transfer.running
        transfer.finish()
        assert metric(tunnel.client, "tunnel_agent_resumes_total") > 0
        at_rest(tunnel)
        leaks.check()


@pytest.mark.parametrize("which", ["client", "host", "both"])
def test_a_transfer_survives_cut_legs(environ: dict[str, str], which: str) -> None:
    """The legs of one agent or of both, cut with RST twenty times."""
    with seeded() as chance, WireThread() as near, WireThread() as far:
        tunnel = Tunnel(environ=environ, client_via=near.port, host_via=far.port)
        near.lead_to(tunnel.relay_port)
        far.lead_to(tunnel.relay_port)
        with tunnel:
            leaks = Leaks(tunnel)
            transfer = Transfer(tunnel, size=32 * MIB, seconds=15, streams=3)
            wires = {"client": [near], "host": [far], "both": [near, far]}[which]
            for _ in range(20):
                time.sleep(chance.uniform(0.1, 0.6))  # as above
                assert transfer.running
                for wire in wires:
                    wire.cut()
            transfer.finish()
            at_rest(tunnel)
            leaks.check()


def test_a_transfer_survives_a_frozen_relay(environ: dict[str, str]) -> None:
    """SIGSTOP for 20 s: noticed within 15, and carried on when the relay moves again."""
    with Tunnel(environ=environ) as tunnel:
        leaks = Leaks(tunnel)
        transfer = Transfer(tunnel, size=64 * MIB, seconds=6, streams=2)
        wait_until(lambda: metric(tunnel.client, "tunnel_agent_bytes_total") > MIB)
        frozen = time.monotonic()
        tunnel.relay.signal(signal.SIGSTOP)
        for agent, event in ((tunnel.client, "leg lost"), (tunnel.host, "stream detached")):
            wait_until(lambda agent=agent, event=event: agent.events(event))  # type: ignore[misc]
        print(f"noticed after {time.monotonic() - frozen:.1f} s")
        time.sleep(max(0.0, frozen + 20 - time.monotonic()))  # the fault lasts so long
        assert transfer.running
        tunnel.relay.signal(signal.SIGCONT)
        transfer.finish()
        at_rest(tunnel)
        leaks.check()


def test_a_transfer_survives_an_address_that_does_not_answer(environ: dict[str, str]) -> None:
    """As if every cable at the relay were pulled for 20 s: silence, for old connections and new."""
    with WireThread() as wire:
        tunnel = Tunnel(environ=environ, client_via=wire.port, host_via=wire.port)
        wire.lead_to(tunnel.relay_port)
        with tunnel:
            leaks = Leaks(tunnel)
            transfer = Transfer(tunnel, size=64 * MIB, seconds=6, streams=2)
            wait_until(lambda: wire.carried > 4 * MIB)
            wire.freeze()
            wait_until(lambda: tunnel.client.events("leg lost") and tunnel.host.events("stream detached"))
            time.sleep(5)  # and the first dials fail, too
            assert transfer.running
            wire.thaw()
            transfer.finish()
            at_rest(tunnel)
            leaks.check()


def test_a_killed_client_frees_everything(environ: dict[str, str]) -> None:
    """Kill -9 of the client-agent: relay and host hold nothing of it after the resume window."""
    with Tunnel(environ=environ, agents=("--resume-window", "2s")) as tunnel:
        leaks = Leaks(tunnel)
        sockets = [socket.create_connection(tunnel.address) for _ in range(20)]
        for sock in sockets:
            sock.sendall(b"x" * 10_000)
            assert sock.recv(1)
        assert metric(tunnel.host, "tunnel_agent_streams") == 20
        tunnel.client.kill()
        wait_until(lambda: metric(tunnel.host, "tunnel_agent_streams") == 0)
        wait_until(lambda: metric(tunnel.host, "tunnel_agent_replay_memory_bytes") == 0)
        for sock in sockets:
            sock.close()
        tunnel.client.start()
        tunnel.client.wait_ready()
        leaks.check()
        at_rest(tunnel)
