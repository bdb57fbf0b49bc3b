"""The floor: what recv, unmask and send cost in Python, and nothing else."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Relay

SCRIPT = Path(__file__).parents[1] / "references" / "relay_of_sockets.py"


class RelayOfSockets(Relay):
    name = "relay-floor"
    shape = "epoll, recv, unmask, send in Python"

    def prepare(self) -> str:
        return f"Python {platform.python_version()}"

    def start(self, stage: Stage, target: int) -> Address:
        port = free_port()
        stage.run("relay", sys.executable, SCRIPT, str(port))
        return LOOPBACK, port
