"""What is measured."""

from __future__ import annotations

from dataclasses import dataclass

from .load.streams import Address
from .stage import Stage


class Subject:
    """A tunnel, or a relay alone. `shape` says in a few words what it consists of."""

    name: str
    shape: str
    ours = False  # of this project: judged by what figures must reach
    crosses_link = False  # whether it can be put on both sides of a far link: it uses `stage.far`
    resumes = False  # whether streams outlive a kill of its process named "relay"

    def prepare(self) -> str:
        """Install what is not there yet. Returns its version; raises Missing."""
        raise NotImplementedError

    def start(self, stage: Stage, target: int) -> Address:
        """Start it on `stage`. Returns where to connect to, which may accept a little later.

        A tunnel leads from there to port `target` of loopback.
        """
        raise NotImplementedError


class Tunnel(Subject):
    """Carries TCP from end to end. It is up when a byte comes back."""


class Relay(Subject):
    """Pairs WebSocket legs at /host/NAME and /client/NAME; it has no target. It is up when it accepts."""


@dataclass(frozen=True)
class Running:
    """A subject that is up."""

    subject: Subject
    stage: Stage
    address: Address
