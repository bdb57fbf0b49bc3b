"""The command line of the host-agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tunnel_core.agent import cli

from .settings import HostSettings

DESCRIPTION: Final = """\
Offers TCP servers that this machine can reach, through a relay, to client-agents.

Run it beside the server: it dials out to the relay, so nothing has to be opened or
forwarded, and it reconnects for ever."""

EPILOG: Final = """\
examples:
  HOST_AGENT_TOKEN_FILE=mc.token host-agent --relay wss://relay.example.com --tunnel mc=127.0.0.1:25565
  host-agent --relay ws://127.0.0.1:8080 --secret-file secret --tunnel mc=minecraft:25565 --tunnel db=unix:/run/pg
  host-agent invite --relay wss://relay.example.com --secret-file secret --tunnel mc --subject alex"""


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command; returns the exit code. Raises TunnelError."""

    def make(settings: HostSettings) -> cli.Service:
        from .service import HostAgent  # after the arguments: `health` needs none of it

        return HostAgent(settings)

    async def examine(settings: HostSettings, say: cli.Say) -> int:
        from .doctor import HostDoctor

        return await HostDoctor(settings, say).run()

    return cli.main("host-agent", "HOST_AGENT", HostSettings, DESCRIPTION, EPILOG, make, examine, arguments, environ)
