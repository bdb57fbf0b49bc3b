"""What one writes in an evening: references/naive, thirty lines a part. The floor."""

from __future__ import annotations

from pathlib import Path

from ..installs import virtualenv
from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel

SCRIPTS = Path(__file__).parents[1] / "references" / "naive"
PINS = ("fastapi==0.165.0", "uvicorn==0.54.0", "websockets==17.4")


def run_client(stage: Stage, url: str, port: int, *flags: str) -> None:
    """The client adapter by itself: websockify has none of its own."""
    stage.run("client", virtualenv("naive", PINS) / "python", SCRIPTS / "client.py", url, str(port), *flags)


class Naive(Tunnel):
    def __init__(self, *, compression: bool) -> None:
        self.name = "naive-deflate" if compression else "naive"
        self.shape = "FastAPI, websockets, 4 KiB reads" + (", compressing" if compression else "")
        self._compression = compression

    def prepare(self) -> str:
        virtualenv("naive", PINS)
        return ", ".join(pin.replace("==", " ") for pin in PINS)

    def start(self, stage: Stage, target: int) -> Address:
        python = virtualenv("naive", PINS) / "python"
        relay, port = free_port(), free_port()
        flags = ("--deflate",) if self._compression else ()
        stage.run("relay", python, SCRIPTS / "relay.py", str(relay), *flags)
        stage.wait_listening(relay)  # the adapters give up if nobody is there
        stage.run("host", python, SCRIPTS / "host.py", f"ws://{LOOPBACK}:{relay}/host", str(target), *flags)
        run_client(stage, f"ws://{LOOPBACK}:{relay}/client", port, *flags)
        return LOOPBACK, port
