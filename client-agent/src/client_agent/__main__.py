"""`client-agent`: the command."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """The entry point. A health check imports nothing that it does not need."""
    if sys.argv[1:2] == ["health"]:
        from tunnel_core.service import health

        sys.exit(health.main("client-agent", "CLIENT_AGENT", sys.argv[2:], os.environ, None))
    if sys.argv[1:2] == ["join"]:  # in the image, where this is the only command
        from .join import __main__ as join

        del sys.argv[1]
        join.run()
    from tunnel_core.service.run import command

    from .cli import main

    command(lambda arguments: main(arguments, os.environ))


if __name__ == "__main__":
    run()
