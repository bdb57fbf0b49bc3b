"""Three `socat`, one behind the other: a process a connection and hop."""

from __future__ import annotations

import subprocess

from ..installs import program
from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel


class Socat(Tunnel):
    name = "socat3"
    shape = "3 socat, forking"

    def prepare(self) -> str:
        words = subprocess.check_output([program("socat", "socat"), "-V"], text=True).split()
        return words[words.index("version") + 1]

    def start(self, stage: Stage, target: int) -> Address:
        for hop in ("host", "middle", "client"):
            port = free_port()
            stage.run(
                hop, program("socat", "socat"), "-b", "65536",
                f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay",
                f"TCP:127.0.0.1:{target},nodelay",
            )  # fmt: skip
            target = port
        return LOOPBACK, target
