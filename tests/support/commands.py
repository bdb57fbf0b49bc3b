"""The three commands as processes, with nothing of this machine's own settings in their environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from demo.processes import BIN, Process

__all__ = ["BIN", "NO_UVLOOP", "PREFIXES", "Process", "environment", "run", "running", "with_tests"]

PREFIXES = {"relay": "RELAY", "host-agent": "HOST_AGENT", "client-agent": "CLIENT_AGENT"}
PATIENCE = 30.0  # seconds
# Put into PYTHONPATH, a process has no uvloop.
NO_UVLOOP = Path(__file__).parent / "no_uvloop"


def environment(**variables: str) -> dict[str, str]:
    """The environment of a command: ours, without what it would read, and with `variables`."""
    # Where the tests run in asyncio's debug mode, commands say no more than they always do.
    foreign = (*(f"{prefix}_" for prefix in PREFIXES.values()), "PORT", "PYTHONASYNCIODEBUG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {name: value for name, value in kept.items() if "proxy" not in name.lower()} | variables


def with_tests() -> dict[str, str]:
    """The environment of a Python that is to find these tests and what they import."""
    tests = Path(__file__).parent.parent
    return environment(PYTHONPATH=os.pathsep.join((str(tests.parent), str(tests))))


def run(command: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [BIN / command, *arguments],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def running(
    folder: Path, command: str, *arguments: str, environ: Mapping[str, str] | None = None, admin_port: int = 0
) -> Iterator[Process]:
    """A command that goes on until the test is over; its output goes to a file in `folder`."""
    variables = environment(**(environ or {}))
    process = Process(command, [str(BIN / command), *arguments], folder, variables, admin_port)
    process.start()
    try:
        yield process
    finally:
        process.stop()
