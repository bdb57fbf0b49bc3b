"""`relay health`, `host-agent health`, `client-agent health`: container health checks through the admin port.

These run every few seconds, so this module imports as little as possible.
"""

from __future__ import annotations

import argparse
import http.client
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from . import textfile


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def main(prog: str, prefix: str, arguments: Sequence[str], environ: Mapping[str, str], default_port: int | None) -> int:
    """Print the admin port's answer on readiness. Returns 0 if the service is ready, 1 if not.

    On usage errors prints one line on standard error and exits with 2.
    """
    parser = _Parser(prog=f"{prog} health", description="Ask the admin port whether the service is ready.")
    parser.add_argument("--admin-host", metavar="ADDRESS", help=f"[{prefix}_ADMIN_HOST] (default: 127.0.0.1)")
    parser.add_argument("--admin-port", metavar="PORT", help=f"[{prefix}_ADMIN_PORT]")
    flags = parser.parse_args(arguments)
    try:
        host = flags.admin_host or _variable(environ, f"{prefix}_ADMIN_HOST") or "127.0.0.1"
        port = flags.admin_port or _variable(environ, f"{prefix}_ADMIN_PORT") or default_port
    except (OSError, ValueError) as exc:
        parser.error(str(exc))
    if port is None:
        parser.error(f"which admin port? write --admin-port, or set {prefix}_ADMIN_PORT")
    if not str(port).isdecimal() or not 0 < int(port) < 65536:
        parser.error(f"'{port}' is not a port: write a number from 1 to 65535")
    # A service that listens on all addresses is reachable on loopback.
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "[::]") else host.strip("[]")
    ready, said = ask(host, int(port))
    print(said)
    return 0 if ready else 1


def _variable(environ: Mapping[str, str], name: str) -> str:
    """The variable, or the file named by its `_FILE` twin, as in service.settings."""
    path = environ.get(f"{name}_FILE")
    if environ.get(name) or not path:
        return environ.get(name, "")
    return textfile.read(path)


def ask(host: str, port: int) -> tuple[bool, str]:
    """Whether the service at this admin port is ready, and what it says."""
    connection = http.client.HTTPConnection(host, port, timeout=3)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status == 200, response.read(500).decode(errors="replace").strip()
    except (OSError, UnicodeError, http.client.HTTPException) as exc:
        return False, f"no answer from the admin port {host}:{port}: {exc}"
    finally:
        connection.close()
