"""No tunnel at all: what the load generator and the sink can do."""

from __future__ import annotations

import platform

from ..load.streams import Address
from ..stage import Stage
from ..subject import Tunnel


class Direct(Tunnel):
    name = "direct"
    shape = "no tunnel"
    crosses_link = True

    def prepare(self) -> str:
        return f"Linux {platform.release()}"

    def start(self, stage: Stage, target: int) -> Address:
        return stage.far, target
