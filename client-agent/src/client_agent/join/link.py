"""Finds the link: stored, in TUNNEL_INVITE, on standard input, or at a prompt. Never on the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Final, TextIO

from tunnel_core.errors import UsageError
from tunnel_core.protocol import invite
from tunnel_core.protocol.endpoints import is_tunnel
from tunnel_core.protocol.invite import MAX_INPUT, Invite
from tunnel_core.service import textfile
from tunnel_core.service.settings import Secret

from .kept import KeptInvites

VARIABLE: Final = "TUNNEL_INVITE"
PROMPT: Final = "Paste your link here and press Enter: "
LINES: Final = 12  # read at the prompt: mail programs break a link into fewer
_LINK: Final = re.compile(r"://|%3A%2F%2F|(#|%23)\d|^\d+\.[\w-]{40}", re.IGNORECASE)  # whole, cut or rewritten

AN_ARGUMENT: Final = (
    "do not pass the link as an argument: other users of this machine can see it (ps), and your shell's history keeps "
    "it. Run tcp-ws-tunnel join, paste the link when asked, and delete this line from the history"
)


def refuse_links(arguments: Sequence[str]) -> None:
    """Raise UsageError, which does not show it, if an argument is a link."""
    if any(map(_LINK.search, arguments)):
        raise UsageError(AN_ARGUMENT)


def name_of(words: Sequence[str]) -> str | None:
    """The name of a stored invite, if one was given. Raises UsageError."""
    if not words:
        return None
    if len(words) > 1 or not is_tunnel(words[0]):
        raise UsageError("that is not the name of an invite: give one name, up to 63 of a-z, 0-9 and -")
    return words[0]


def find(
    name: str | None, kept: KeptInvites, environ: MutableMapping[str, str], given: TextIO | None, *, new: bool = False
) -> tuple[Invite, bool]:
    """The invite to use, and whether it was just given (True) or stored (False).

    Removes TUNNEL_INVITE from `environ`, so that no child process inherits it. `new` ignores stored invites.
    Raises UsageError.
    """
    from_environment, file = environ.pop(VARIABLE, ""), environ.get(f"{VARIABLE}_FILE", "")
    if name is not None:
        return kept.read(name), False
    if from_environment:
        return invite.parse(from_environment), True
    if file:
        return invite.parse(Secret(path=Path(file)).read()), True
    names = kept.names()
    asks = given is not None and given.isatty()
    if given is not None and not asks:
        text = _piped(given)
        if text.strip() or new:
            return invite.parse(text), True
    if not new and names:
        if len(names) > 1:
            raise UsageError(f"which invite? add its name: {', '.join(names)} (or --new for a new link)")
        return kept.read(names[0]), False
    if not asks:
        raise UsageError(f"there is no link: pass it on standard input or in {VARIABLE}, or run this in a terminal")
    return _asked(given), True


def _piped(given: TextIO) -> str:
    """All of standard input, in UTF-8 or UTF-16."""
    data = given.buffer.read(MAX_INPUT) if hasattr(given, "buffer") else given.read(MAX_INPUT).encode()
    try:
        return textfile.decode(data)
    except ValueError:
        return data.decode(errors="replace")


def _asked(given: TextIO | None) -> Invite:
    """What a person pastes, perhaps as several lines. Raises UsageError after too many."""
    assert given is not None, "there is a terminal"
    text = ""
    for _ in range(LINES):
        sys.stderr.write(PROMPT)
        sys.stderr.flush()
        try:
            line = given.readline(MAX_INPUT)
        except UnicodeDecodeError:
            line = "?\n"
        if not line:
            break
        for attempt in (line, text + line):
            try:
                return invite.parse(attempt)
            except UsageError as exc:
                reason = str(exc)
        if line.strip():
            sys.stderr.write(f"{reason}\n")
        text += line
    raise UsageError("there is no link: run it again once you have it")
