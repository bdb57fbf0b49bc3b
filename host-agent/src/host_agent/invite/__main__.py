"""`tcp-ws-tunnel invite` and `host-agent invite`: the command."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """The entry point."""
    from tunnel_core.service.run import command

    from .cli import main

    command(lambda arguments: main(arguments, os.environ, sys.stdout, sys.stderr))


if __name__ == "__main__":
    run()
