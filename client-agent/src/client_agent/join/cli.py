"""The command lines of `join`, `leave` and `doctor`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import MutableMapping, Sequence
from typing import Final, TextIO

from tunnel_core import __version__
from tunnel_core.agent.settings import relay_url
from tunnel_core.errors import TunnelError, UsageError
from tunnel_core.net.address import is_loopback
from tunnel_core.net.sockets import why
from tunnel_core.protocol.invite import MINECRAFT, Invite
from tunnel_core.protocol.seal import keys
from tunnel_core.service import logs, run, settings
from tunnel_core.service.settings import Secret

from ..settings import Announced, ClientSettings, Forward
from .kept import KeptInvites, default_folder
from .link import VARIABLE, find, name_of, refuse_links

JOIN: Final = """\
Connects to a friend's server with the link you were sent.

Run it and paste the link when asked; it is stored for next time. The link can also come on standard
input or in TUNNEL_INVITE, but not as an argument, where others could see it."""

JOIN_EPILOG: Final = """\
examples:
  tcp-ws-tunnel join             # asks for the link the first time
  tcp-ws-tunnel join mc          # chooses one of several stored links
  tcp-ws-tunnel join --new       # asks for another link"""

DOCTOR: Final = """\
Checks the path to a friend's server step by step, and says how to fix what fails. Exit code 0 if
all is well, else 1. Uses the stored link, or asks for one."""

LEAVE: Final = "Forgets a stored link."

SHARED: Final = ("listen_address", "ca_file")
OWN: Final = (*SHARED, "admin_host", "admin_port", "log_level", "log_format")


def join(arguments: Sequence[str], environ: MutableMapping[str, str], given: TextIO | None, out: TextIO) -> int:
    """Run `join` until it is stopped; returns the exit code. Raises TunnelError."""
    flags = _parse("join", JOIN, JOIN_EPILOG, arguments, OWN)
    kept = KeptInvites(default_folder())
    invite, fresh = find(name_of(flags.name), kept, environ, given, new=flags.new)
    loaded = _settings(invite, flags, environ)
    remarks = [_keep(kept, invite, asked=given is not None and given.isatty())] if fresh else []
    from .service import Joined, free_port

    port = free_port(loaded.listen_address, invite.port)
    if port != invite.port:
        remarks.insert(0, f"port {invite.port} is in use on this computer, so it is {port} this time")
    made = dataclasses.replace(loaded, forward=(Forward("", port, invite.tunnel),))
    made.check()
    if not out.isatty() or {"log_level", "log_format"} & set(vars(flags)):
        logs.configure("client-agent", level=made.log_level, style=made.log_format)
        return run.serve(lambda: Joined(made, invite.app, [], None))
    from .status import StatusLine

    def failed(error: TunnelError) -> None:
        print(f"join: {error}", file=sys.stderr)

    logs.configure("client-agent", level="error", style=made.log_format)
    status = StatusLine(out, made.relay)
    said = [*filter(None, remarks), "Press Ctrl-C to disconnect."]
    return run.serve(lambda: Joined(made, invite.app, said, status), failed)


def leave(arguments: Sequence[str], out: TextIO) -> int:
    """Run `leave`; returns the exit code. Raises TunnelError."""
    flags = _parse("leave", LEAVE, "", arguments)
    kept = KeptInvites(default_folder())
    names = kept.names()
    name = name_of(flags.name)
    if name is None:
        if len(names) != 1:
            raise UsageError(f"which invite? add its name: {', '.join(names)}" if names else "no invite is stored here")
        (name,) = names
    kept.forget(name)
    print(f"forgotten: {name}", file=out)
    return 0


def doctor(arguments: Sequence[str], environ: MutableMapping[str, str], given: TextIO | None, out: TextIO) -> int:
    """Run `doctor`; returns the exit code. Raises TunnelError."""
    flags = _parse("doctor", DOCTOR, "", arguments, SHARED)
    invite, _ = find(name_of(flags.name), KeptInvites(default_folder()), environ, given, new=flags.new)
    loaded = _settings(invite, flags, environ)
    logs.configure("client-agent", level="error", style=loaded.log_format)
    from .doctor import InviteDoctor

    return run.complete(InviteDoctor(loaded, invite, lambda line: print(line, file=out, flush=True)).run)


def _parse(
    command: str, description: str, epilog: str, arguments: Sequence[str], own: Sequence[str] = ()
) -> argparse.Namespace:
    refuse_links(arguments)
    parser = settings.parser(f"tcp-ws-tunnel {command}", description, epilog)
    parser.add_argument("name", nargs="*", metavar="NAME", help="name of a stored link")
    parser.add_argument("--version", action="version", version=f"tcp-ws-tunnel {__version__}")
    if own:
        parser.add_argument("--new", action="store_true", help=f"use a new link, even if one is stored [{VARIABLE}]")
        settings.add_flags(parser, ClientSettings, "CLIENT_AGENT", only=own)
    return parser.parse_args(arguments)


def _settings(invite: Invite, flags: argparse.Namespace, environ: MutableMapping[str, str]) -> ClientSettings:
    """The client-agent's settings from flags and variables, with the invite's values on top."""
    loaded = settings.load(ClientSettings, "CLIENT_AGENT", flags, environ)
    # Listening on more than loopback mostly means a container, where no game hears announcements.
    listed = invite.app == MINECRAFT and is_loopback(loaded.listen_address)
    return dataclasses.replace(
        loaded,
        relay=relay_url(invite.relay),
        token=Secret(invite.token),
        secret=Secret(),
        e2e_key=Secret(f"{invite.tunnel}={keys.decode(invite.key, invite.grant.id)}") if invite.key else Secret(),
        e2e_secret=Secret(),
        forward=(Forward("", invite.port, invite.tunnel),),
        announce=(Announced(invite.tunnel, invite.label or invite.tunnel),) if listed else (),
    )


def _keep(kept: KeptInvites, invite: Invite, *, asked: bool) -> str:
    """Store it for next time. Returns what to tell the user."""
    try:
        name, new = kept.keep(invite)
    except OSError as exc:
        return f"your link is not stored, as {kept.folder} cannot be written: {why(exc)}" if asked else ""
    return f"your link is stored: next time, tcp-ws-tunnel join {name} does not ask for it" if new else ""
