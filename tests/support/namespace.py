"""A network of a test's own: interfaces and addresses that this machine has not."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from support.deploy import unavailable

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def ip(*words: str) -> None:
    """Change the network of the thread that calls."""
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def in_own_network(main: Callable[[], Coroutine[Any, Any, None]], loop_factory: Any) -> None:
    """Run `main` where there is a loopback interface and nothing else. What it starts is there, too."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        unavailable("no root or no iproute2, so no network of a test's own")
    failures: list[BaseException] = []

    def run() -> None:
        try:
            assert ctypes.CDLL(None).unshare(_NEW_NETWORK) == 0  # of this thread alone
            ip("link", "set", "lo", "up")
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(asyncio.wait_for(main(), 60))
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
