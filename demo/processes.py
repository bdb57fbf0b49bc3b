"""The services as local processes, on free loopback ports, with a new secret."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BIN = Path(sysconfig.get_path("scripts"))
PATIENCE = 60.0  # seconds for a process to become ready or exit, on an overloaded machine
_given: set[int] = set()  # ports that free_port returned


def until_stopped() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
    print()


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago; another each time.

    Below those that outgoing connections take (from 32768 on): it is not used before a process
    has started.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        if port not in _given:
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _given.add(port)
                return port


class Process:
    """A child process whose log goes to a file."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environ: dict[str, str], admin_port: int
    ) -> None:
        self.name = name
        self._command = command
        self.environ = environ
        self.log = folder / f"{name}.log"
        self.admin_port = admin_port
        self._before: list[str] = []  # a command that runs the command
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._child.pid if self._child is not None else 0

    def start(self) -> None:
        """Start or restart; the log is appended to."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*self._before, *self._command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ
            )

    def limit_descriptors(self, count: int) -> None:
        """Limit its open files, from its next start on."""
        self._before = ["prlimit", f"--nofile={count}:{count}"]

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._child.poll() if self._child is not None else None

    def kill(self) -> None:
        """Like `kill -9`."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def signal(self, number: int) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait until it exits. Returns the exit code."""
        assert self._child is not None, "it was started"
        return self._child.wait(patience)

    def stop(self) -> None:
        """Stop with SIGTERM, or SIGKILL if that does not help."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP GET from the admin port. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as exc:
            raise ConnectionError(str(exc)) from exc
        finally:
            connection.close()

    def wait_ready(self) -> None:
        """Wait until the service is ready. Raises RuntimeError with its log if it does not become ready."""
        deadline = time.monotonic() + PATIENCE
        while self.admin_port and self.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.get("/readyz")[0] == 200:
                    return
            time.sleep(0.05)
        if self.admin_port:
            raise RuntimeError(f"{self.name} did not become ready:\n{self.log.read_text()}")

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event in its log."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, filter(None, lines)) if line.get("event") == event]


class Tunnel:
    """A sample server and the three services in front of it. Leaving it stops all of them.

    `target` replaces the sample server; `client_via` and `host_via` are ports that lead to
    the relay for the one agent or the other; `environ` is added to the environment. With `sealed`
    the hosts offer their target as the tunnel `sealed`, too (that needs Python 3.13).
    """

    def __init__(
        self,
        *,
        port: int = 0,
        target: int = 0,
        client_via: int = 0,
        host_via: int = 0,
        relay: Sequence[str] = (),
        agents: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        sealed: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tunnel-demo-")
        self._path = Path(self._folder.name)
        secret = self._path / "secret"
        self.secret = subprocess.check_output([BIN / "relay", "secret"], text=True).strip()
        secret.write_text(self.secret)
        secret.chmod(0o600)
        inherited = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        self.environ = inherited | {"PYTHONPATH": str(Path(__file__).parent.parent)} | dict(environ or {})
        self._common = ["--secret-file", str(secret), "--log-format", "json"]
        self._sealed = sealed
        self._seal = self._path / "e2e.secret"
        if sealed:
            self._seal.write_bytes(subprocess.check_output([BIN / "relay", "secret"]))
        self.relay_port, self.target_port, self.port = free_port(), target or free_port(), port or free_port()
        self.relay = self.add_relay("relay", self.relay_port, *relay)
        self.server = self._process("server", sys.executable, "-m", "demo.server", f"127.0.0.1:{self.target_port}")
        self._agents, self._host_via, self._client_via = agents, host_via, client_via
        self.host = self.add_host("host-agent", self.target_port)
        self.client = self.add_client("client-agent", self.port)
        self.all = [*([] if target else [self.server]), self.relay, self.host, self.client]

    def add_relay(self, name: str, port: int, *flags: str) -> Process:
        """One more relay with the same secret, not started."""
        return self.add_service(name, "--host", "127.0.0.1", "--port", str(port), *flags, command="relay")

    def add_host(self, name: str, target_port: int) -> Process:
        """A host-agent that offers the tunnel with this target, not started."""
        relay = f"ws://127.0.0.1:{self._host_via or self.relay_port}"
        flags = ["--tunnel", f"demo=127.0.0.1:{target_port}"]
        if self._sealed:
            flags += ["--tunnel", f"sealed=127.0.0.1:{target_port}", "--sealed", "sealed"]
            flags += ["--e2e-secret-file", str(self._seal)]
        return self.add_service(name, "--relay", relay, *flags, *self._agents, command="host-agent")

    def add_client(self, name: str, port: int, *, sealed: bool = False) -> Process:
        """A client-agent that leads this port to the tunnel, or to the sealed one, not started."""
        relay = f"ws://127.0.0.1:{self._client_via or self.relay_port}"
        flags = ["--forward", f"{port}={'sealed' if sealed else 'demo'}"]
        if sealed:
            flags += ["--e2e-secret-file", str(self._seal)]
        return self.add_service(name, "--relay", relay, *flags, *self._agents, command="client-agent")

    def add_service(self, name: str, *flags: str, command: str = "") -> Process:
        """One more service with the same secret, not started. `command` is its program, if that is not its name."""
        port = free_port()
        flags = (*flags, "--admin-port", str(port), *self._common)
        return self._process(name, str(BIN / (command or name)), *flags, admin_port=port)

    def _process(self, name: str, *command: str, admin_port: int = 0) -> Process:
        return Process(name, command, self._path, self.environ, admin_port)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def __enter__(self) -> Self:
        try:
            for process in self.all:
                process.start()
            for process in self.all:
                process.wait_ready()
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
