"""npm's wstunnel: a WebSocket a connection."""

from __future__ import annotations

from ..installs import npm, program
from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel

PINS = ("wstunnel@1.4.0",)


class Wstunnel(Tunnel):
    name = "wstunnel-npm"
    shape = "forward only, 2 processes"

    def prepare(self) -> str:
        program("node", "nodejs")
        npm("wstunnel", PINS)
        return PINS[0].partition("@")[2]

    def start(self, stage: Stage, target: int) -> Address:
        script = npm("wstunnel", PINS) / "wstunnel" / "bin" / "wstt.js"
        node, middle, port = program("node", "nodejs"), free_port(), free_port()
        stage.run("server", node, script, "-s", f"{LOOPBACK}:{middle}")
        stage.wait_listening(middle)
        stage.run("client", node, script, "-t", f"{port}:{LOOPBACK}:{target}", f"ws://{LOOPBACK}:{middle}")
        return LOOPBACK, port
