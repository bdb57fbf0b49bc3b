"""`tcp-ws-tunnel COMMAND`: every command of the distribution behind one name.

The services register their commands as entry points, so nothing here names a service.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from . import __version__

GROUP: Final = "tcp_ws_tunnel.commands"


def run() -> None:
    """The entry point. Exits with 2 for an unknown command."""
    commands = {found.name: found for found in entry_points(group=GROUP)}
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print(_usage(commands))
    elif name == "--version":
        print(f"tcp-ws-tunnel {__version__}")
    elif name in commands:
        # From here on the process is that command: its usage and its errors carry its name.
        sys.argv[:2] = [name]
        commands[name].load()()
    else:
        print(f"tcp-ws-tunnel: there is no command '{name}' (see tcp-ws-tunnel --help)", file=sys.stderr)
        sys.exit(2)


def _usage(commands: dict[str, EntryPoint]) -> str:
    lines = ["usage: tcp-ws-tunnel COMMAND [ARGUMENT ...]", "       tcp-ws-tunnel COMMAND --help", "", "commands:"]
    for name, command in sorted(commands.items()):
        about = importlib.import_module(command.module.removesuffix(".__main__")).__doc__ or ""
        lines.append(f"  {name:<14}{about.partition(': ')[2].strip().rstrip('.')}")
    return "\n".join(lines)


if __name__ == "__main__":
    run()
