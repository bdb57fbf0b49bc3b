"""`host-agent`: the command."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """The entry point. A health check imports nothing that it does not need."""
    if sys.argv[1:2] == ["health"]:
        from tunnel_core.service import health

        sys.exit(health.main("host-agent", "HOST_AGENT", sys.argv[2:], os.environ, None))
    if sys.argv[1:2] == ["invite"]:
        from .invite.__main__ import run as invite

        del sys.argv[1]
        invite()
    from tunnel_core.service.run import command

    if sys.argv[1:2] == ["e2e-key"]:
        from . import e2e_key

        command(lambda arguments: e2e_key.main(arguments[1:], os.environ, sys.stdout))

    from .cli import main

    command(lambda arguments: main(arguments, os.environ))


if __name__ == "__main__":
    run()
