"""tcp-ws-tunnel leave: forgets a link that `join` has kept."""

from __future__ import annotations

import sys

from tunnel_core.service.run import command

from .cli import leave


def run() -> None:
    """The entry point."""
    command(lambda arguments: leave(arguments, sys.stdout))
