"""`relay`: the command."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """The entry point. A health check imports only what it needs."""
    if sys.argv[1:2] == ["health"]:
        from tunnel_core.service import health

        sys.exit(health.main("relay", "RELAY", sys.argv[2:], os.environ, 9090))
    from tunnel_core.service.run import command

    from .cli import main

    command(lambda arguments: main(arguments, os.environ))


if __name__ == "__main__":
    run()
