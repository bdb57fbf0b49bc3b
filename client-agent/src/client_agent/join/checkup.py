"""tcp-ws-tunnel doctor: checks the path to a friend's server, and says how to fix it."""

from __future__ import annotations

import os
import sys

from tunnel_core.service.run import command

from .cli import doctor


def run() -> None:
    """The entry point."""
    command(lambda arguments: doctor(arguments, os.environ, sys.stdin, sys.stdout))
