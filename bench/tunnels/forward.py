"""Three hops in Python that only receive and send: what a tunnel costs before it does anything."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel

REFERENCES = Path(__file__).parents[1] / "references"


@dataclass(frozen=True)
class Forward(Tunnel):
    """`script` takes a port to listen on, and one to lead to."""

    name: str
    shape: str
    script: str

    def prepare(self) -> str:
        return f"Python {platform.python_version()}, uvloop {version('uvloop')}"

    def start(self, stage: Stage, target: int) -> Address:
        for hop in ("host", "middle", "client"):
            port = free_port()
            stage.run(hop, sys.executable, REFERENCES / self.script, str(port), str(target))
            target = port
        return LOOPBACK, target


LANGUAGE = Forward("python3", "3 loops in Python: recv, send", "forward.py")
LOOP = Forward("uvloop3", "3 times uvloop: read, write", "forward_loop.py")
