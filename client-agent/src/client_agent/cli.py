"""The command line of the client-agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tunnel_core.agent import cli

from .settings import ClientSettings

DESCRIPTION: Final = """\
Listens on local ports and carries what connects there, through a relay, to the servers
that host-agents offer. Connect your application to 127.0.0.1 and the port."""

EPILOG: Final = """\
examples:
  CLIENT_AGENT_TOKEN_FILE=friend.token client-agent --relay wss://relay.example.com --forward 25565=mc
  client-agent --relay ws://127.0.0.1:8080 --secret-file secret --forward 25565=mc --forward [::1]:5432=db"""


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command; returns the exit code. Raises TunnelError."""

    def make(settings: ClientSettings) -> cli.Service:
        from .service import ClientAgent  # after the arguments: wrong ones are answered at once

        return ClientAgent(settings)

    async def examine(settings: ClientSettings, say: cli.Say) -> int:
        from .doctor import ClientDoctor

        return await ClientDoctor(settings, say).run()

    return cli.main(
        "client-agent", "CLIENT_AGENT", ClientSettings, DESCRIPTION, EPILOG, make, examine, arguments, environ
    )
