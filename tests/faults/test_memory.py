"""The memory of real processes at its worst: every reader of one token stops."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.faults import at_rest, metric, wait_until
from support.figures import tell
from tunnel_core.protocol import tokens
from tunnel_core.service.settings import size

from demo import traffic
from demo.processes import BIN, Process, Tunnel, free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
LIMIT = size(1, 1 << 40)(COMPOSE["host-agent"]["mem_limit"].upper() + "iB")
MEMORY = {
    "HOST_AGENT_REPLAY_MEMORY": COMPOSE["host-agent"]["environment"]["HOST_AGENT_REPLAY_MEMORY"],
    "CLIENT_AGENT_REPLAY_MEMORY": COMPOSE["client-agent"]["environment"]["CLIENT_AGENT_REPLAY_MEMORY"],
}
HOARDERS = 200  # a token has 250 streams


def peak(process: Process) -> int:
    """The most resident memory that a process has had, in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


@contextlib.contextmanager
def hoard(port: int) -> Iterator[None]:
    """Connections that write whatever is taken, and never read."""
    stop = threading.Event()
    piece = bytes(64 * 1024)

    def write(selector: selectors.BaseSelector) -> None:
        while not stop.is_set():
            for key, _ in selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.send(piece)

    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for _ in range(HOARDERS):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_WRITE)
        thread = threading.Thread(target=write, args=(selector,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def comes_to_a_standstill(agent: Process) -> None:
    """Wait until streams are held back, and nothing moves any more; a busy machine may be slow, so not for ever."""
    wait_until(lambda: metric(agent, "tunnel_agent_starved_streams") > 0, 120)
    before = -1.0
    deadline = time.monotonic() + 60
    while before != (before := metric(agent, "tunnel_agent_bytes_total")) and time.monotonic() < deadline:
        time.sleep(1)


def test_a_token_whose_readers_stop_fits_its_share(environ: dict[str, str]) -> None:
    """In the containers of docker-compose.yml: each process stays within its limit, and others' traffic goes on."""
    with Tunnel(environ=environ | MEMORY) as tunnel:
        port, admin = free_port(), free_port()
        secret = tunnel.secret.encode()
        token = tokens.issue(secret, role="client", tunnels=["demo"], subject="hoarder", expires=time.time() + 3600)
        command = [str(BIN / "client-agent"), "--relay", f"ws://127.0.0.1:{tunnel.relay_port}", "--forward",
                   f"{port}=demo", "--admin-port", str(admin), "--log-format", "json"]  # fmt: skip
        folder = tunnel.client.log.parent
        bad = Process("hoarder", command, folder, tunnel.environ | {"CLIENT_AGENT_TOKEN": token}, admin)
        bad.start()
        try:
            bad.wait_ready()
            with hoard(port):
                comes_to_a_standstill(tunnel.host)
                report = traffic.drive(tunnel.address, streams=4, size=8 << 20, seconds=0)
                assert report.problems == []
                assert report.bytes_verified == 4 * (8 << 20)
                peaks = {process.name: peak(process) for process in (tunnel.relay, tunnel.host, bad)}
                used = metric(tunnel.host, "tunnel_agent_replay_memory_bytes")
            shown = ", ".join(f"{name} {most >> 20}" for name, most in peaks.items())
            tell(f"{HOARDERS} connections of one token that never read, MiB at most: {shown}")
            assert used <= metric(tunnel.host, "tunnel_agent_replay_memory_limit_bytes") * 5 / 8
            assert max(peaks.values()) < LIMIT
        finally:
            bad.stop()
        at_rest(tunnel, 90)
