"""The command line of `invite`: make a link, list invites, revoke."""

from __future__ import annotations

import argparse
import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from tunnel_core import __version__
from tunnel_core.errors import AccessDenied, UsageError
from tunnel_core.net.address import is_loopback, parse_port
from tunnel_core.net.sockets import why
from tunnel_core.protocol import tokens
from tunnel_core.protocol.endpoints import is_tunnel
from tunnel_core.protocol.invite import MAX_LABEL, MINECRAFT, Invite, is_label, relay_address
from tunnel_core.protocol.seal import keys
from tunnel_core.service import settings
from tunnel_core.service.settings import Secret, choice, count, seconds, secret, setting, show_duration, text
from tunnel_core.service.signing import signing_secrets
from websockets.uri import parse_uri

from ..settings import HostSettings
from .given import Given, Record, Revoked, append, default_path

DESCRIPTION: Final = """\
Makes a link with everything a friend needs: send it, and they open it.

Whoever has the link can connect, so send it only to your friend. It is made with the
relay's secret, or around a client token that the relay's operator gave you."""

EPILOG: Final = """\
examples:
  host-agent invite --relay wss://relay.example.com --secret-file secret --tunnel mc --subject alex
  host-agent invite --list
  host-agent invite --revoke alex --revoked revoked.txt    # the file that the relay's --revoked names"""

MINECRAFT_PORT: Final = 25565
MAX_SUBJECT: Final = 100  # characters: half of a token's limit


def _subject(value: str) -> str:
    if not value.isprintable() or not 1 <= len(value) <= MAX_SUBJECT:
        raise UsageError(f"{value[:MAX_SUBJECT]!r} is no name: write up to {MAX_SUBJECT} characters in one line")
    return value


def _label(value: str) -> str:
    if not is_label(value):
        raise UsageError(f"{value[:80]!r} is no label: write up to {MAX_LABEL} characters in one line")
    return value


def _port(value: str) -> int:
    return parse_port(value, lowest=1)


@dataclass(frozen=True, kw_only=True)
class InviteSettings:
    subject: str = setting("", "who the invite is for; the server's log shows it", parse=_subject, metavar="FRIEND")
    expires: float = setting(
        30 * 86400.0, "how long it is valid", parse=seconds(1, 10 * 365 * 86400), metavar="TIME", shown="30d"
    )
    label: str = setting("", "the server's name, as your friend sees it", parse=_label, metavar="NAME")
    port: int = setting(MINECRAFT_PORT, "the port on your friend's machine, if it is free", parse=_port)
    app: str = setting(
        "auto",
        f"minecraft: it shows in the game's list of LAN worlds; auto: that, for port {MINECRAFT_PORT}",
        parse=choice("auto", MINECRAFT, "other"),
        metavar="APP",
    )
    streams: int | None = setting(
        None, "most connections your friend may have at once", parse=count(1, 1_000_000), metavar="N"
    )
    network: tuple[str, ...] = setting(
        (), "where your friend may come from; repeats", parse=tokens.parse_network, repeat=True, metavar="CIDR"
    )
    client_token: Secret = setting(
        Secret(), "the client token to put into the link, if you do not have the relay's secret", parse=secret
    )
    record: str = setting("", f"file that records the invites (default: {default_path().name})", parse=text)
    revoked: str = setting(
        "", "with --revoke: the file that the relay's --revoked names, if it is here", parse=text, metavar="FILE"
    )


def main(arguments: Sequence[str], environ: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """Run the command; returns the exit code. Raises TunnelError."""
    parser = settings.parser("host-agent invite", DESCRIPTION, EPILOG)
    parser.add_argument("--version", action="version", version=f"host-agent {__version__}")
    parser.add_argument(
        "--tunnel", dest="name", metavar="NAME", help="the tunnel (default: the one of HOST_AGENT_TUNNEL)"
    )
    settings.add_flags(parser, HostSettings, "HOST_AGENT", only=("relay", "secret", "e2e_secret", "sealed"))
    settings.add_flags(parser, InviteSettings, "HOST_AGENT_INVITE")
    parser.add_argument("--list", action="store_true", help="show who got an invite, and until when it is valid")
    parser.add_argument(
        "--revoke", metavar="FRIEND", help="revoke all invites of that subject, or the one with that id"
    )
    flags = parser.parse_args(arguments)
    wanted = settings.load(InviteSettings, "HOST_AGENT_INVITE", flags, environ)
    record = Record(Path(wanted.record) if wanted.record else default_path())
    if flags.list:
        _list(record, out)
        return 0
    if flags.revoke:
        return _revoke(record, flags.revoke, wanted.revoked, out, err)
    host = settings.load(HostSettings, "HOST_AGENT", flags, environ)
    _invite(wanted, host, flags, record, out, err)
    return 0


def _invite(
    wanted: InviteSettings, host: HostSettings, flags: argparse.Namespace, record: Record, out: TextIO, err: TextIO
) -> None:
    if not host.relay:
        raise UsageError("no relay is given: write --relay wss://relay.example.com")
    tunnel = _tunnel(flags.name, host)
    token = _token(wanted, host.secret, tunnel)
    minecraft = wanted.app == MINECRAFT or (wanted.app == "auto" and wanted.port == MINECRAFT_PORT)
    invite = Invite(
        relay=relay_address(host.relay),
        token=token,
        tunnel=tunnel,
        port=wanted.port,
        label=wanted.label,
        app=MINECRAFT if minecraft else "",
        key=_key(host, tunnel, token),
    )
    link = invite.link()
    grant = invite.grant
    entry = Given(grant.id, grant.subject, tunnel, invite.relay, time.time(), grant.expires)
    try:
        record.add([entry])
    except OSError as exc:
        print(f"not noted, as {record.path} cannot be written ({why(exc)}): its id is {grant.id}", file=err)
    if out.isatty():
        _show_code(link, out)
    print(link, file=out, flush=True)
    for line in _remarks(invite, grant.expires - time.time()) if err.isatty() else ():
        print(line, file=err)


def _tunnel(name: str | None, host: HostSettings) -> str:
    if name is None:
        names = [offer.tunnel for offer in host.tunnel]
        if len(names) != 1:
            raise UsageError("which tunnel? write --tunnel mc")
        return names[0]
    if not is_tunnel(name):
        raise UsageError(f"--tunnel: '{name}' is not a tunnel's name: write up to 63 of a-z, 0-9 and -")
    return name


def _token(wanted: InviteSettings, secret: Secret, tunnel: str) -> str:
    if wanted.client_token:
        try:
            return tokens.clean(wanted.client_token.read())
        except AccessDenied as exc:
            raise UsageError(f"--client-token: {exc}") from exc
    if not secret:
        raise UsageError(
            "an invite is made with the relay's secret (--secret-file FILE), "
            "or with a client token of its operator's (--client-token-file FILE)"
        )
    if not wanted.subject:
        raise UsageError("whose invite is it? write --subject alex")
    return tokens.issue(
        signing_secrets(secret)[0],
        role="client",
        tunnels=[tunnel],
        subject=wanted.subject,
        expires=time.time() + wanted.expires,
        streams=wanted.streams,
        networks=wanted.network,
    )


def _key(host: HostSettings, tunnel: str, token: str) -> bytes:
    """The key of `tunnel` for this token; empty where it is not sealed."""
    if not host.seals(tunnel):
        return b""
    return keys.derive(signing_secrets(host.e2e_secret)[0], tunnel, tokens.read(token).id).encoded


def _remarks(invite: Invite, lasts: float) -> list[str]:
    """What an owner should know about a link but cannot see in it."""
    whose = f"This link is for {invite.grant.subject}, and good for {show_duration(lasts)}."
    lines = [f"{whose} Whoever has it is let in: send it where nobody else reads."]
    relay = parse_uri(invite.relay)
    if is_loopback(relay.host):
        lines.append("It is of use on this machine alone: --relay is an address that no other machine reaches.")
    elif not relay.secure:
        lines.append(
            "With ws:// anybody on the way can read along, and change the page that the link opens: use wss://."
        )
    return lines


def _show_code(link: str, out: TextIO) -> None:
    """Show the link as a QR code, if the extra `qr` is installed."""
    try:
        import segno
    except ImportError:
        return
    segno.make(link, error="l", micro=False).terminal(out=out, border=2, compact=True)


def _list(record: Record, out: TextIO) -> None:
    given, revoked = record.read()
    if not given:
        print("nobody was given an invite yet", file=out)
        return
    now = time.time()
    rows = [("FOR", "TUNNEL", "GIVEN", "GOOD UNTIL", "STATE", "ID")]
    for entry in given:
        state = "revoked" if entry.id in revoked else "good" if entry.expires > now else "expired"
        rows.append((entry.subject, entry.tunnel, _day(entry.at), _day(entry.expires), state, entry.id))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=out)


def _day(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, tz=dt.UTC):%Y-%m-%d}"


def _revoke(record: Record, whom: str, file: str, out: TextIO, err: TextIO) -> int:
    given, revoked = record.read()
    now = time.time()
    live = [
        entry for entry in given
        if whom in (entry.subject, entry.id) and entry.id not in revoked and entry.expires > now
    ]  # fmt: skip
    if not live:
        raise UsageError(f"'{whom}' has no invite that is still good: --list shows who has")
    if not file:
        for entry in live:
            print(f"{entry.id}  # {entry.subject}, {entry.tunnel}", file=out)
        print(
            "not revoked yet: put this into the file that the relay's --revoked names "
            "(or write --revoked FILE here, where that file is at hand)",
            file=err,
        )
        return 1
    lines = "".join(f"{entry.id}  # {entry.subject}, {entry.tunnel}, {_day(now)}\n" for entry in live)
    try:
        append(Path(file), lines.encode())
        record.add([Revoked(entry.id, now) for entry in live])
    except OSError as exc:
        raise UsageError(f"cannot write {exc.filename}: {why(exc)}") from exc
    print(f"revoked {len(live)} of {whom}: a relay that reads {file} closes their connections within 2 s", file=out)
    return 0
