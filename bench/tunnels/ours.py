"""This project's three commands, as a user starts them."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel

# One machine and one token stand for a thousand users here. In the environment, which a build without them ignores.
LIMITS = {
    "RELAY_MAX_LEGS_PER_TOKEN": "100000",
    "RELAY_MAX_STREAMS_PER_TOKEN": "100000",
    "RELAY_MAX_LEGS_PER_ADDRESS": "100000",
}
FORGETFUL = Path(__file__).parents[1] / "references" / "forgetful_agent.py"


@dataclass(frozen=True)
class Ours(Tunnel):
    """`relay`, `host_agent` and `client_agent` are more flags for each; `bin` may be another build's."""

    name: str = "ours"
    shape: str = "3 processes"
    bin: Path = Path(sysconfig.get_path("scripts"))
    relay: tuple[str, ...] = ()
    host_agent: tuple[str, ...] = ()
    client_agent: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    ours = True
    crosses_link = True
    resumes = True

    def prepare(self) -> str:
        version = subprocess.check_output([self.bin / "relay", "--version"], text=True).split()[-1]
        if shutil.which("git") is None:
            return version
        describe = ["git", "-C", str(self.bin), "describe", "--always", "--dirty"]
        commit = subprocess.run(describe, check=False, capture_output=True, text=True).stdout.strip()
        return f"{version} ({commit})" if commit else version

    def start(self, stage: Stage, target: int) -> Address:
        secret = stage.folder / "secret"
        secret.write_text(subprocess.check_output([self.bin / "relay", "secret"], text=True))
        relay, port = free_port(), free_port()
        stage.ports["relay"] = relay
        common = ("--secret-file", secret, "--log-level", "warning", "--log-format", "json")
        dial = ("--relay", f"ws://{stage.far}:{relay}")
        stage.run(
            "relay", self.bin / "relay", "--host", stage.listen, "--port", str(relay),
            "--admin-port", str(free_port()), *common, *self.relay, environ=LIMITS | dict(self.environ),
        )  # fmt: skip
        stage.run(
            "host-agent", *self._agent("host-agent"), *dial, "--tunnel", f"bench=127.0.0.1:{target}",
            *common, *self.host_agent, environ=self.environ,
        )  # fmt: skip
        stage.run(
            "client-agent", *self._agent("client-agent"), *dial, "--forward", f"{port}=bench",
            *common, *self.client_agent, environ=self.environ,
        )  # fmt: skip
        return LOOPBACK, port

    def _agent(self, name: str) -> tuple[Path | str, ...]:
        return (self.bin / name,)


class WithoutReplay(Ours):
    """The same build, but its agents keep nothing for a resume."""

    def _agent(self, name: str) -> tuple[Path | str, ...]:
        return self.bin / "python", FORGETFUL, name


# A variant to compare with is one more, with a name of its own and flags such as
# `host_agent=("--window", "256KiB")`, or an environment.
# Another build needs no line: `python -m bench --baseline /path/to/other/.venv`.
VARIANTS: tuple[Ours, ...] = (Ours(),)
