"""Our relay alone: raw legs, no tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Relay
from ..tunnels.ours import LIMITS, Ours


@dataclass(frozen=True)
class OurRelay(Relay):
    """`flags` are more of `relay`'s; `bin` may be another build's."""

    name: str = "relay"
    shape: str = "ours, alone"
    bin: Path = Ours.bin
    flags: tuple[str, ...] = ()
    ours = True

    def prepare(self) -> str:
        return Ours(bin=self.bin).prepare()

    def start(self, stage: Stage, target: int) -> Address:
        port = free_port()
        stage.run(
            "relay", self.bin / "relay", "--host", LOOPBACK, "--port", str(port), "--admin-port", str(free_port()),
            "--auth", "none", "--log-level", "warning", *self.flags, environ=LIMITS,
        )  # fmt: skip
        return LOOPBACK, port
