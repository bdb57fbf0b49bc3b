"""The command line of the relay: serve, `token`, `secret`."""

from __future__ import annotations

import argparse
import datetime as dt
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar, cast, get_args

from tunnel_core import __version__
from tunnel_core.errors import UsageError
from tunnel_core.protocol import tokens
from tunnel_core.protocol.endpoints import DEFAULT_TUNNEL, is_tunnel
from tunnel_core.service import logs, run, settings
from tunnel_core.service.signing import signing_secrets

from .settings import RelaySettings

_T = TypeVar("_T")

RENEWAL: Final = """\
To renew it, make another the same way before then. An agent
that has it in a file (--token-file) picks up the new one without a restart."""

DESCRIPTION: Final = """\
Pairs client-agents with host-agents and carries bytes between them.

Without a command it serves. Put TLS in front of it (a platform or a proxy),
and publish only --port: the admin port is for the operator."""

EPILOG: Final = """\
examples:
  relay secret --output secret                            # once
  relay --secret-file secret                              # serve
  relay token --secret-file secret --role host --tunnel mc --expires 365d > mc.token
  relay token --secret-file secret --role client --tunnel mc --expires 7d --subject alex
  relay token --secret-file secret --role gateway --tunnel '*' --expires 365d > gateway.token"""


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command; returns the exit code. Raises TunnelError."""
    parser = settings.parser("relay", DESCRIPTION, EPILOG)
    parser.add_argument("--version", action="version", version=f"relay {__version__}")
    settings.add_flags(parser, RelaySettings, "RELAY")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    fresh = commands.add_parser("secret", help="print a new secret, or write it to a file")
    fresh.formatter_class = settings.Formatter
    fresh.add_argument(
        "--output", type=Path, metavar="FILE", help="write it to FILE, readable only by you, unless FILE exists"
    )
    _add_token_flags(commands.add_parser("token", help="print a token, made with the relay's secret"))
    # Handled earlier, without all these imports: service.health.
    commands.add_parser("health", help="ask a running relay's admin port whether it is ready: exit code 0 or 1")
    flags = parser.parse_args(arguments)
    if flags.command == "secret":
        _secret(flags.output)
        return 0
    if flags.command == "health":
        raise settings.health_comes_first("relay")
    loaded = settings.load(RelaySettings, "RELAY", flags, environ)
    if flags.command == "token":
        print(_show(flags.show) if flags.show else _token(loaded, flags), flush=True)
        if not flags.show and sys.stderr is not None and sys.stderr.isatty():
            lasts = settings.show_duration(settings.seconds(0, math.inf)(flags.expires))
            print(f"This token is valid for {lasts}. {RENEWAL}", file=sys.stderr)
        return 0
    loaded.check()
    logs.configure("relay", level=loaded.log_level, style=loaded.log_format)

    def make() -> run.Service:
        from .service import Relay  # late, so that usage errors are reported at once

        return Relay(loaded)

    return run.serve(make)


def _secret(output: Path | None) -> None:
    fresh = secrets.token_urlsafe(32)
    if output is None:
        print(fresh)
        return
    import tempfile

    try:
        with tempfile.NamedTemporaryFile("w", dir=output.parent, prefix=f".{output.name}.") as draft:  # mode 0600
            draft.write(fresh + "\n")
            draft.flush()
            os.link(draft.name, output)  # atomic, and never overwrites
        print(f"wrote a new secret to {output}")
    except FileExistsError:
        print(f"{output} already exists: left unchanged")
    except OSError as exc:
        raise UsageError(f"--output: cannot write {output}: {exc.strerror or exc}") from exc


def _add_token_flags(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = settings.Formatter
    parser.add_argument("--show", metavar="TOKEN", help="print a token's claims and id; - reads it from standard input")
    parser.add_argument(
        "--role",
        metavar="ROLE",
        help="host: may offer the tunnel; client: may use it; gateway: may use it for visitors, and name them",
    )
    parser.add_argument(
        "--tunnel",
        action="append",
        metavar="NAME",
        help=f"repeats; '*' for a gateway: all tunnels (default: {DEFAULT_TUNNEL})",
    )
    parser.add_argument("--expires", default="7d", metavar="TIME", help="from now, such as 12h or 30d (default: 7d)")
    parser.add_argument("--subject", metavar="NAME", help="its holder, for the logs (default: the role)")
    parser.add_argument("--streams", metavar="N", help="most streams at once (default: the relay's limit)")
    parser.add_argument(
        "--network", action="append", metavar="CIDR", help="where its legs may come from; repeats (default: anywhere)"
    )
    settings.add_flags(parser, RelaySettings, "RELAY", only=("secret",))


def _show(given: str) -> str:
    grant = tokens.read(tokens.clean(sys.stdin.read(tokens.MAX_TOKEN) if given == "-" else given))
    expires = dt.datetime.fromtimestamp(grant.expires, tz=dt.UTC)
    shown = {
        "id": grant.id,
        "subject": grant.subject,
        "role": grant.role,
        "tunnels": " ".join(grant.tunnels),
        "expires": f"{expires:%Y-%m-%d %H:%M:%S} UTC",
        "streams": grant.streams,
        "networks": " ".join(grant.networks),
    }
    return "\n".join(f"{name:<9} {value}" for name, value in shown.items() if value)


def _token(loaded: RelaySettings, flags: argparse.Namespace) -> str:
    if not flags.role:
        raise UsageError("--role: write host, client or gateway")
    if not loaded.secret:
        raise UsageError("no secret: set RELAY_SECRET or write --secret-file FILE ('relay secret' makes one)")
    role = _checked("--role", settings.choice(*get_args(tokens.TokenRole)), flags.role)
    names = flags.tunnel or [DEFAULT_TUNNEL]
    anywhere = role == "gateway" and names == [tokens.ANY_TUNNEL]
    for name in names:
        if not anywhere and not is_tunnel(name):
            raise UsageError(f"--tunnel: '{name}' is not a tunnel's name: write up to 63 of a-z, 0-9 and -")
    secret = signing_secrets(loaded.secret)[0]
    expires = time.time() + _checked("--expires", settings.seconds(1, 10 * 365 * 86400), flags.expires)
    streams = _checked("--streams", settings.count(1, 1_000_000), flags.streams) if flags.streams else None
    networks = [_checked("--network", tokens.parse_network, network) for network in flags.network or ()]
    try:
        return tokens.issue(
            secret,
            role=cast("tokens.TokenRole", role),
            tunnels=names,
            subject=flags.subject or role,
            expires=expires,
            streams=streams,
            networks=networks,
        )
    except UsageError as exc:
        raise UsageError(exc.reason, "write a shorter --subject, or fewer --tunnel") from exc


def _checked(flag: str, parse: Callable[[str], _T], value: str) -> _T:
    try:
        return parse(value)
    except UsageError as exc:
        raise UsageError(f"{flag}: {exc}") from exc
