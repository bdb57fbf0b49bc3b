"""`relay health` and its like: ask the admin port, for container checks.

It runs every few seconds, so it imports the standard library alone and little of that.
"""

from __future__ import annotations

import argparse
import http.client
from collections.abc import Mapping, Sequence


def main(prog: str, prefix: str, arguments: Sequence[str], environ: Mapping[str, str], default_port: int | None) -> int:
    """Print what the admin port says of readiness. Returns 0 if the service is ready, 1 if not, 2 for a wrong call."""
    parser = argparse.ArgumentParser(
        prog=f"{prog} health", description="Ask the admin port whether the service is ready."
    )
    parser.add_argument("--admin-host", default=environ.get(f"{prefix}_ADMIN_HOST") or "127.0.0.1", metavar="ADDRESS")
    parser.add_argument(
        "--admin-port", default=environ.get(f"{prefix}_ADMIN_PORT") or default_port, metavar="PORT", type=int
    )
    flags = parser.parse_args(arguments)
    if flags.admin_port is None:
        print(f"{prog}: which admin port? write --admin-port, or set {prefix}_ADMIN_PORT")
        return 2
    # Who listens on all addresses is asked on the loopback one.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(flags.admin_host, flags.admin_host.strip("[]"))
    ready, said = ask(host, flags.admin_port)
    print(said)
    return 0 if ready else 1


def ask(host: str, port: int) -> tuple[bool, str]:
    """Whether the service at this admin port is ready, and what it says."""
    connection = http.client.HTTPConnection(host, port, timeout=3)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status == 200, response.read(500).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as exc:
        return False, f"no answer from the admin port {host}:{port}: {exc}"
    finally:
        connection.close()
