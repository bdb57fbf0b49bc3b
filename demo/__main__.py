"""A complete tunnel on this machine, with real traffic: `make demo`.

python -m demo [--once]
"""

from __future__ import annotations

import contextlib
import socket
import sys

from . import traffic
from .processes import Tunnel, until_stopped

USUAL_PORT = 25565  # Minecraft's; another if it is taken
STREAMS, SIZE = 8, 16 << 20


def usual_port() -> int:
    """The usual port if it is free, else 0."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", USUAL_PORT)):
        return USUAL_PORT
    return 0


def main() -> int:
    """Run the demo. Returns 0 if every byte came through."""
    stay = "--once" not in sys.argv[1:] and sys.stdout.isatty()
    with Tunnel(port=usual_port()) as tunnel:
        print("\ntcp-ws-tunnel: four processes on this machine\n")
        print(f"  client-agent 127.0.0.1:{tunnel.port}")
        print(f"  relay        ws://127.0.0.1:{tunnel.relay_port}")
        print("  host-agent   tunnel 'demo'")
        print(f"  server       127.0.0.1:{tunnel.target_port}, an echo\n")
        report = traffic.drive(tunnel.address, streams=STREAMS, size=SIZE)
        traffic.show(report)
        if stay:
            print(f"\nConnect to 127.0.0.1:{tunnel.port}: what you send comes back. Ctrl-C ends the demo.")
            until_stopped()
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
