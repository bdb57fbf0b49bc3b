"""tcp-ws-tunnel leave: forgets a stored link."""

from __future__ import annotations

import sys

from tunnel_core.service.run import command

from .cli import leave


def run() -> None:
    """The entry point."""
    command(lambda arguments: leave(arguments, sys.stdout))
