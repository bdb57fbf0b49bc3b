"""`tcp-ws-tunnel join` and `client-agent join`: the command."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """The entry point."""
    from tunnel_core.service.run import command

    from .cli import join

    command(lambda arguments: join(arguments, os.environ, sys.stdin, sys.stdout))


if __name__ == "__main__":
    run()
