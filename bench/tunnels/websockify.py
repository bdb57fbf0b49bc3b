"""PyPI's websockify, a WebSocket server before a TCP target, with the naive client adapter before it."""

from __future__ import annotations

from ..installs import virtualenv
from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel
from . import naive

PINS = ("websockify==0.13.0",)


class Websockify(Tunnel):
    name = "websockify"
    shape = "forward only, forking, naive client"

    def prepare(self) -> str:
        virtualenv("naive", naive.PINS)
        virtualenv("websockify", PINS)
        return PINS[0].partition("==")[2]

    def start(self, stage: Stage, target: int) -> Address:
        middle, port = free_port(), free_port()
        command = virtualenv("websockify", PINS) / "websockify"
        stage.run("websockify", command, f"{LOOPBACK}:{middle}", f"{LOOPBACK}:{target}")
        naive.run_client(stage, f"ws://{LOOPBACK}:{middle}/", port)
        return LOOPBACK, port
