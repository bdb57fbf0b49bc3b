"""Invites: one link that holds all that a friend needs (PROTOCOL.md, "Invites"). Pure.

    https://relay.example.com/join#1.PAYLOAD

What stands after `#` stays in the browser: no request carries it. PAYLOAD is base64url of a MessagePack
map and a checksum, which covers the relay's address, too: a link that was cut, mistyped or rewritten on
its way is refused as a whole.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from ..errors import AccessDenied, UsageError
from . import tokens
from .endpoints import is_tunnel
from .tokens import Grant

VERSION: Final = "1"
MAX_LINK: Final = 700  # characters: chats, mail and a terminal's line (1,024 on macOS) take that whole
MAX_INPUT: Final = 20_000  # characters looked at: a mail with the link somewhere in it
MAX_LABEL: Final = 60  # characters
MINECRAFT: Final = "minecraft"
_CHECKSUM: Final = 6  # bytes: a damaged link in 10¹⁴ is taken for a whole one
_LAYERS: Final = 3  # of percent-encoding that are taken off: a link in a link in a link
_PIECES: Final = 12  # that a mail may have broken a link into: 700 characters in lines of 60
_STYLE: Final = 2  # characters of `_` or `-` that a chat may have put after a link

_START: Final = re.compile(r"(?=https?://)", re.IGNORECASE)
_LINK: Final = re.compile(
    r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?((?:/[\w.~-]+)*?)/join/?#([0-9]{1,3})\.([\w-]*)",
    re.IGNORECASE | re.ASCII,
)
_NO_FRAGMENT: Final = re.compile(r"https?://\S+/join\b", re.IGNORECASE)
_ANY_PERCENT: Final = re.compile(r"%[0-9a-f]{2}", re.IGNORECASE)
# Characters that editors and chats put into long words, and what they make of two hyphens.
_TYPOGRAPHY: Final = str.maketrans(dict.fromkeys("\0\xad\u200b\u200c\u200d\u2060\ufeff") | {"—": "--"})

NOT_WHOLE: Final = "the link is not whole: copy all of it, to its very end, or ask for it again"


class _Body(
    Struct,
    frozen=True,
    omit_defaults=True,
    rename={"token": "t", "tunnel": "n", "port": "p", "label": "l", "app": "a", "key": "k"},
):
    token: tuple[bytes, bytes, bytes]  # the parts of the JWT, decoded: the token costs a link no more than its own size
    tunnel: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    label: str = ""
    app: Annotated[str, Meta(max_length=20)] = ""
    key: Annotated[bytes, Meta(max_length=64)] = b""


@dataclass(frozen=True, kw_only=True)
class Invite:
    """All that a friend needs. Whoever has it is let in."""

    relay: str  # its WebSocket URL
    token: str = field(repr=False)
    tunnel: str
    port: int  # the local one that the owner suggests
    label: str = ""  # what the owner calls it
    app: str = ""  # MINECRAFT, or nothing
    key: bytes = field(default=b"", repr=False)  # of a sealed tunnel

    @property
    def grant(self) -> Grant:
        """What the token says, not verified."""
        return tokens.read(self.token)

    @property
    def page(self) -> str:
        """The address of the relay's join page."""
        return f"http{self.relay.removeprefix('ws')}/join"

    def link(self) -> str:
        """The invite as a link. Raises UsageError for what no link can hold."""
        if not is_label(self.label):
            raise UsageError(f"a label has up to {MAX_LABEL} characters, all of them printable")
        try:
            _check(self)
        except (ValueError, AccessDenied) as exc:
            raise UsageError(f"no invite can be made of this: {exc}") from exc
        body = _Body(_parts(self.token), self.tunnel, self.port, self.label, self.app, self.key)
        packed = msgspec.msgpack.encode(body)
        link = f"{self.page}#{VERSION}.{_encode(packed + _checksum(self.relay, packed))}"
        if len(link) > MAX_LINK:
            raise UsageError(
                f"the link would have {len(link)} characters, {MAX_LINK} at most: "
                "choose a shorter subject or label, or fewer tunnels and networks for its token"
            )
        return link


def is_label(text: str) -> bool:
    """Whether `text` can be a label: it is shown in terminals and in games."""
    return len(text) <= MAX_LABEL and text.isprintable()


def relay_address(url: str) -> str:
    """A relay's URL in the one form that checksums are made of. Raises UsageError if no link can hold it."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode() if ":" not in (parts.hostname or "") else parts.hostname
        found = _LINK.fullmatch(
            f"http{parts.scheme.removeprefix('ws')}://{f'[{host}]' if host and ':' in host else host}"
            f"{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}/join#1."
        )
    except ValueError:
        found = None
    if found is None:
        raise UsageError(f"no link can hold the relay's address '{url}': write one such as wss://relay.example.com")
    return _relay(found)


def parse(text: str) -> Invite:
    """The one invite in `text`, however it was passed on.

    Percent-encoded, wrapped by a mail, quoted, in brackets, with words around it, or twice: it is the right
    invite or a UsageError of one line, which shows nothing of the text.
    """
    text = text[:MAX_INPUT]
    found: dict[Invite, None] = {}
    versions: set[str] = set()
    for link in _links(text):
        versions.add(link[5])
        invite = _read(link) if link[5] == VERSION else None
        if invite is not None:
            found[invite] = None
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise UsageError(f"there are {len(found)} different links: give one")
    if versions - {VERSION}:
        raise UsageError("the link is for a newer version of this program: take the command from its page, or update")
    if versions or _NO_FRAGMENT.search(urllib.parse.unquote(text)):
        raise UsageError(NOT_WHOLE)
    if not text.strip():
        raise UsageError("there is no link: paste the one that you were sent")
    raise UsageError("this is not the link of an invite: those look like https://relay.example.com/join#1.…")


def _links(text: str) -> Iterator[re.Match[str]]:
    """All that looks like a link, in the text as it is and with the marks of its way here taken off."""
    text = text.translate(_TYPOGRAPHY)
    for _ in range(_LAYERS + 1):
        words = [word for word in (word.lstrip(">") for word in text.split()) if word]  # `>`: of a mail that is quoted
        for number, word in enumerate(words):
            if "http" not in word.lower():
                continue
            for last in range(number + 1, min(len(words), number + _PIECES) + 1):
                yield from filter(None, map(_LINK.match, _START.split("".join(words[number:last]))))
        if not _ANY_PERCENT.search(text):
            return
        text = urllib.parse.unquote(text, errors="replace")


def _read(link: re.Match[str]) -> Invite | None:
    """The invite of a link; None if it is damaged, or says what no invite says."""
    if len(link[0]) > MAX_LINK:
        return None
    relay = _relay(link)
    encoded = link[6]
    for end in range(len(encoded), max(0, len(encoded) - _STYLE) - 1, -1):
        if encoded[end:].strip("_-"):
            break  # it is no style that stands there
        try:
            raw = _decode(encoded[:end])
            packed, checksum = raw[:-_CHECKSUM], raw[-_CHECKSUM:]
            if checksum != _checksum(relay, packed):
                continue
            body = msgspec.msgpack.decode(packed, type=_Body)
            token = ".".join(map(_encode, body.token))
            invite = Invite(
                relay=relay,
                token=token,
                tunnel=body.tunnel,
                port=body.port,
                label=body.label,
                app=body.app,
                key=body.key,
            )
            _check(invite)
        except (ValueError, AccessDenied, RecursionError):  # msgspec's errors are ValueErrors
            continue
        return invite
    return None


def _check(invite: Invite) -> None:
    """Raise ValueError or AccessDenied for an invite that contradicts itself."""
    if not is_tunnel(invite.tunnel):
        raise ValueError(f"'{invite.tunnel}' is not a tunnel's name")
    if not is_label(invite.label) or not 1 <= invite.port <= 65535:
        raise ValueError("its label or its port is none")
    grant = invite.grant
    if grant.role != "client":
        raise ValueError(f"its token is for a {grant.role}, and not for a client")
    if invite.tunnel not in grant.tunnels:
        raise ValueError(f"its token is for {', '.join(grant.tunnels)}, and not for {invite.tunnel}")
    if not grant.subject.isprintable():
        raise ValueError("its subject cannot be printed")


def _relay(link: re.Match[str]) -> str:
    scheme, host, port, path = link[1].lower(), link[2].lower(), link[3], link[4]
    usual = {"http": "80", "https": "443"}[scheme]
    number = (port or usual).lstrip("0")
    return f"{scheme.replace('http', 'ws')}://{host}{'' if number == usual else f':{number}'}{path}"


def _checksum(relay: str, packed: bytes) -> bytes:
    return hashlib.sha256(b"tcp-ws-tunnel invite\0" + relay.encode() + b"\0" + packed).digest()[:_CHECKSUM]


def _parts(token: str) -> tuple[bytes, bytes, bytes]:
    """The parts of a token, decoded. Raises UsageError for one that would not come out the same again."""
    try:
        head, claims, signature = map(_decode, token.split("."))
    except ValueError as exc:
        raise UsageError(tokens.ASK_FOR_ONE) from exc
    if ".".join(map(_encode, (head, claims, signature))) != token:
        raise UsageError(tokens.ASK_FOR_ONE)
    return head, claims, signature


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """Raises ValueError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as exc:
        raise ValueError("this is not base64url") from exc
