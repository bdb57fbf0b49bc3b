"""A rolling restart behind a load balancer: every stream moves, none notices."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faults import Leaks, at_rest, metric, wait_until

from demo.processes import Process, Tunnel, free_port
from faults.conftest import need

pytestmark = pytest.mark.faults

STREAMS, ROUNDS = 200, 10

HAPROXY = """
global
  maxconn 4000
defaults
  mode tcp
  timeout connect 1s
  timeout client 1h
  timeout server 1h
listen relay
  bind 127.0.0.1:{port}
  option httpchk
  http-check send meth GET uri /readyz
  default-server check inter 200ms fall 1 rise 1
  server one 127.0.0.1:{one}
  server two 127.0.0.1:{two}
"""


@contextlib.contextmanager
def haproxy(folder: Path, port: int, one: int, two: int) -> Iterator[None]:
    """A balancer that asks its two servers for /readyz."""
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, one=one, two=two))
    with (folder / "haproxy.log").open("wb") as log:
        child = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        yield
    finally:
        child.terminate()
        child.wait(10)


class Askers:
    """Many connections that each send a line and wait for its echo, over and over."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._selector = selectors.DefaultSelector()
        self.answers = 0
        self.longest = 0.0  # seconds from a question to its answer
        self._asked: dict[socket.socket, tuple[bytes, float]] = {}
        self._got: dict[socket.socket, bytes] = {}
        for number in range(STREAMS):
            sock = socket.create_connection(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ, number)
            self._ask(sock, number)

    def _ask(self, sock: socket.socket, number: int) -> None:
        question = f"{number} asks for the {self.answers}th time\n".encode()
        self._asked[sock] = question, time.monotonic()
        self._got[sock] = b""
        sock.sendall(question)

    def run(self, seconds: float) -> None:
        """Ask and answer for a while. Each answer is the right one, and no connection ends."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for key, _ in self._selector.select(0.1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                data = sock.recv(4096)
                assert data, "a connection ended"
                question, asked = self._asked[sock]
                self._got[sock] += data
                assert question.startswith(self._got[sock]), "another answer than the question"
                if self._got[sock] == question:
                    self.answers += 1
                    self.longest = max(self.longest, time.monotonic() - asked)
                    time.sleep(0.0002)  # a player's pace, not a flood: two slow cores serve all of this
                    self._ask(sock, key.data)

    def close(self) -> None:
        """Let all answers come, and close."""
        waiting = dict(self._asked)
        deadline = time.monotonic() + 30
        for sock, (question, _) in waiting.items():
            sock.settimeout(max(0.1, deadline - time.monotonic()))
            while len(self._got[sock]) < len(question):
                data = sock.recv(4096)
                assert data, "a connection ended"
                self._got[sock] += data
            assert self._got[sock] == question
            sock.close()
        self._selector.close()


def test_two_hundred_streams_through_ten_rolling_restarts(environ: dict[str, str], tmp_path: Path) -> None:
    """A new relay comes up, the old one is told to stop: no stream is reset, every answer is right."""
    need("haproxy")
    port, other_port = free_port(), free_port()
    alone = ("--drain-alone", "20s")  # a busy machine may take long to find the other relay
    tunnel = Tunnel(relay=alone, environ=environ, client_via=port, host_via=port)
    relays: list[Process] = [tunnel.relay, tunnel.add_relay("other-relay", other_port, *alone)]
    with haproxy(tmp_path, port, tunnel.relay_port, other_port), tunnel:
        leaks = Leaks(tunnel)
        askers = Askers(tunnel.address)
        askers.run(1.0)
        askers.longest = 0.0  # the opening of all at once is not what is asked for
        for _ in range(ROUNDS):
            old, new = relays
            new.start()
            new.wait_ready()
            askers.run(0.6)  # until the balancer has seen it, too
            old.signal(signal.SIGTERM)
            while old.poll() is None:
                askers.run(0.2)
            assert old.poll() == 0
            relays.reverse()
        askers.run(0.5)
        print(f"{askers.answers} answers, the longest after {askers.longest:.2f} s")
        wait_until(lambda: metric(tunnel.client, "tunnel_agent_resumes_total") >= STREAMS * ROUNDS, 30)
        ended = "tunnel_agent_streams_ended_total"
        assert metric(tunnel.client, ended) == metric(tunnel.client, ended, outcome="finished")
        drains = [line for relay in relays for line in relay.events("drained")]
        assert [line["left"] for line in drains] == [0] * ROUNDS, "each drain goes on until all have moved"
        askers.close()
        tunnel.relay = relays[0]
        at_rest(tunnel)
        leaks.check()
        tunnel.all.append(relays[0])
        wait_until(lambda: relays[0].poll() is None)
