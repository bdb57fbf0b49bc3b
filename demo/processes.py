"""The services as processes of this machine, on free ports of loopback, with a fresh secret."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BIN = Path(sysconfig.get_path("scripts"))
PATIENCE = 20.0  # seconds for a process to become ready, or to end


def until_stopped() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
    print()


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Process:
    """A child process whose log goes to a file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environ: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self.log = folder / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._child.pid if self._child is not None else 0

    def start(self) -> None:
        """Start, or start again; the log goes on."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ
            )

    def poll(self) -> int | None:
        """The exit code, once there is one."""
        return self._child.poll() if self._child is not None else None

    def kill(self) -> None:
        """As `kill -9`."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def signal(self, number: int) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for the end; returns the exit code."""
        assert self._child is not None, "it was started"
        return self._child.wait(patience)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event in its log."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, filter(None, lines)) if line.get("event") == event]


class Tunnel:
    """A sample server and the three services in front of it. Leaving it stops all of them."""

    def __init__(self, *, port: int = 0, relay: Sequence[str] = (), agents: Sequence[str] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tunnel-demo-")
        folder = Path(self._folder.name)
        secret = folder / "secret"
        secret.write_text(subprocess.check_output([BIN / "relay", "secret"], text=True))
        secret.chmod(0o600)
        environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environ["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parent.parent), environ.get("PYTHONPATH", "")))
        self.relay_port, self.target_port, self.port = free_port(), free_port(), port or free_port()
        self.admin = {name: free_port() for name in ("relay", "host-agent", "client-agent")}
        common = ["--secret-file", str(secret), "--log-format", "json"]
        to_relay = ["--relay", f"ws://127.0.0.1:{self.relay_port}"]

        def process(name: str, *command: str) -> Process:
            return Process(name, command, folder, environ)

        def service(name: str, *flags: str) -> Process:
            return process(name, str(BIN / name), *flags, "--admin-port", str(self.admin[name]), *common)

        self.server = process("server", sys.executable, "-m", "demo.server", f"127.0.0.1:{self.target_port}")
        self.relay = service("relay", "--host", "127.0.0.1", "--port", str(self.relay_port), *relay)
        self.host = service("host-agent", *to_relay, "--tunnel", f"demo=127.0.0.1:{self.target_port}", *agents)
        self.client = service("client-agent", *to_relay, "--forward", f"{self.port}=demo", *agents)
        self.all = (self.server, self.relay, self.host, self.client)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def __enter__(self) -> Self:
        for process in self.all:
            process.start()
        try:
            for name in self.admin:
                self.wait_ready(name)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all, the last first."""
        for process in reversed(self.all):
            process.stop()
        self._folder.cleanup()

    def wait_ready(self, name: str) -> None:
        """Wait until the service says that it is ready. Raises RuntimeError with its log if it does not."""
        deadline = time.monotonic() + PATIENCE
        process = next(process for process in self.all if process.name == name)
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.admin[name], timeout=2)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{name} did not become ready:\n{process.log.read_text()}")
