"""Three hops in Python that only recv and send: what the language costs before a tunnel does anything."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel

SCRIPT = Path(__file__).parents[1] / "references" / "forward.py"


class Forward(Tunnel):
    name = "python3"
    shape = "3 loops in Python: recv, send"

    def prepare(self) -> str:
        return f"Python {platform.python_version()}"

    def start(self, stage: Stage, target: int) -> Address:
        for hop in ("host", "middle", "client"):
            port = free_port()
            stage.run(hop, sys.executable, SCRIPT, str(port), str(target))
            target = port
        return LOOPBACK, target
