"""Where a subject plays: its processes, its folder, the addresses it uses."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from . import procfs
from .errors import BenchError
from .workers import end

LOOPBACK = "127.0.0.1"
START = 20.0  # seconds for a subject to come up


_ports = itertools.count(random.randrange(10_000, 20_000))


def free_port() -> int:
    """A port that was free a moment ago, below those that the kernel gives to connections: nobody else takes it."""
    while True:
        port = 10_000 + next(_ports) % 20_000
        with contextlib.suppress(OSError), socket.create_server((LOOPBACK, port)):
            return port


def accepts(port: int) -> bool:
    """Whether somebody listens on `port`."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


class Stage:
    """The processes of one subject, by name. Leaving it ends them all.

    `far` is the address under which a tunnel's middle is dialed: loopback's own, or that
    of a link which delays and loses (link.py).
    """

    def __init__(self, far: str = LOOPBACK) -> None:
        self.far = far
        self._temporary = tempfile.TemporaryDirectory(prefix="tunnel-bench-")
        self.folder = Path(self._temporary.name)
        self.ports: dict[str, int] = {}  # of processes by name, where a figure asks for them
        self._commands: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self.pids)  # kill -9: how a subject stops is not measured
        for process in self._processes.values():
            process.wait()
        self._temporary.cleanup()

    @property
    def listen(self) -> str:
        """The address that a tunnel's middle binds."""
        return LOOPBACK if self.far == LOOPBACK else "0.0.0.0"

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes that were started here; they may have children."""
        return tuple(process.pid for process in self._processes.values())

    def run(self, name: str, *command: str | Path, environ: Mapping[str, str] | None = None) -> None:
        """Start a process. Its output goes to a file of the folder."""
        inherited = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        self._commands[name] = [str(word) for word in command], inherited | dict(environ or {})
        self._start(name)

    def kill(self, name: str) -> None:
        """As `kill -9`."""
        self._processes[name].kill()
        self._processes[name].wait()

    def restart(self, name: str) -> None:
        """Start a killed process again, with the same command."""
        self._start(name)

    def cpu(self) -> float:
        """CPU seconds of all processes so far."""
        return procfs.cpu_seconds(self.pids)

    def memory(self, name: str | None = None) -> int:
        """Bytes (Pss) of all processes, or of one with its children."""
        return procfs.memory(self.pids if name is None else (self._processes[name].pid,))

    def names(self) -> tuple[str, ...]:
        return tuple(self._processes)

    def wait_listening(self, *ports: int) -> None:
        """Wait until each of `ports` accepts. It costs the one who listens a connection."""
        for port in ports:
            self.wait(lambda port=port: accepts(port), f"listening on port {port}")  # type: ignore[misc]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until `condition()`. Raises BenchError if a process has ended, or it takes too long."""
        deadline = time.monotonic() + START
        while not condition():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise BenchError(f"{name} ended with exit code {process.returncode}: {self._last_words(name)}")
            if time.monotonic() > deadline:
                words = "; ".join(f"{name}: {self._last_words(name)}" for name in self._processes)
                raise BenchError(f"no sign of {what} within {START:.0f} s ({words})")
            time.sleep(0.02)

    def _start(self, name: str) -> None:
        command, environ = self._commands[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=self.folder
            )

    def _last_words(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"
