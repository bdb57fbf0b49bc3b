"""PyPI's libwsrx: Rust in asyncio, a WebSocket a connection."""

from __future__ import annotations

from pathlib import Path

from ..installs import virtualenv
from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel

SCRIPT = Path(__file__).parents[1] / "references" / "libwsrx_end.py"
PINS = ("libwsrx==0.1.1",)


class Libwsrx(Tunnel):
    name = "libwsrx"
    shape = "forward only, 2 processes"

    def prepare(self) -> str:
        virtualenv("libwsrx", PINS)
        return PINS[0].partition("==")[2]

    def start(self, stage: Stage, target: int) -> Address:
        python = virtualenv("libwsrx", PINS) / "python"
        middle, port = free_port(), free_port()
        stage.run("server", python, SCRIPT, "server", f"{LOOPBACK}:{middle}", f"{LOOPBACK}:{target}")
        stage.wait_listening(middle)
        stage.run("client", python, SCRIPT, "client", f"{LOOPBACK}:{port}", f"ws://{LOOPBACK}:{middle}")
        return LOOPBACK, port
