"""The same relay as one writes it with `websockets`' asyncio API."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Relay

SCRIPT = Path(__file__).parents[1] / "references" / "relay_of_tasks.py"


class RelayOfTasks(Relay):
    name = "relay-of-tasks"
    shape = "websockets' asyncio API, a task a direction, uvloop"

    def prepare(self) -> str:
        return f"websockets {metadata.version('websockets')}, uvloop {metadata.version('uvloop')}"

    def start(self, stage: Stage, target: int) -> Address:
        port = free_port()
        stage.run("relay", sys.executable, SCRIPT, str(port))
        return LOOPBACK, port
