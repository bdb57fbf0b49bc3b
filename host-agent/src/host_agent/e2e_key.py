"""`host-agent e2e-key`: the key of a sealed tunnel for somebody who has a token already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

from tunnel_core import __version__
from tunnel_core.errors import AccessDenied, UsageError
from tunnel_core.protocol import tokens
from tunnel_core.protocol.seal import keys
from tunnel_core.service import settings
from tunnel_core.service.settings import Secret, secret, setting
from tunnel_core.service.signing import signing_secrets

from .settings import HostSettings

DESCRIPTION: Final = """\
Prints the keys of sealed tunnels for one client token: a line for each tunnel of the token.

A client-agent takes them with --e2e-key-file, beside the token. Links of 'host-agent invite' hold them already."""

EPILOG: Final = """\
examples:
  host-agent e2e-key --e2e-secret-file e2e.secret --token-file alex.token > alex.key"""


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    token: Secret = setting(Secret(), "the client token that the keys are for; prefer a file", parse=secret)


def main(arguments: Sequence[str], environ: Mapping[str, str], out: TextIO) -> int:
    """Run the command; returns the exit code. Raises TunnelError."""
    parser = settings.parser("host-agent e2e-key", DESCRIPTION, EPILOG)
    parser.add_argument("--version", action="version", version=f"host-agent {__version__}")
    settings.add_flags(parser, HostSettings, "HOST_AGENT", only=("e2e_secret", "sealed"))
    settings.add_flags(parser, KeySettings, "HOST_AGENT_E2E_KEY")
    flags = parser.parse_args(arguments)
    host = settings.load(HostSettings, "HOST_AGENT", flags, environ)
    wanted = settings.load(KeySettings, "HOST_AGENT_E2E_KEY", flags, environ)
    if not host.e2e_secret:
        raise UsageError("keys are made with the secret of the sealed tunnels: write --e2e-secret-file FILE")
    if not wanted.token:
        raise UsageError("a key is for one token: write --token-file FILE")
    first = signing_secrets(host.e2e_secret)[0]
    try:
        grant = tokens.read(tokens.clean(wanted.token.read()))
    except AccessDenied as exc:
        raise UsageError(f"--token: {exc}") from exc
    if grant.role != "client":
        raise UsageError(f"this token is for a {grant.role}: a key is for a client's")
    sealed = [tunnel for tunnel in grant.tunnels if host.seals(tunnel)]
    if not sealed:
        raise UsageError("none of the token's tunnels is sealed")
    for tunnel in sealed:
        print(f"{tunnel}={keys.derive(first, tunnel, grant.id)}", file=out)
    return 0
