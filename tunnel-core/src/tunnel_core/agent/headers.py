"""Headers of the user's own on each dial, for what stands before the relay: a login wall, a firewall, a gateway."""

from __future__ import annotations

import re
from typing import Final

from ..errors import UsageError

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110 section 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_HOP: Final = "it is between neighbours, and each proxy drops it"
_UPGRADE: Final = "it is part of the WebSocket handshake"
# Names that cannot be given, and why. RFC 9110 section 7.6.1 has those of a single hop.
_REFUSED: Final = {
    **dict.fromkeys(("connection", "upgrade"), _UPGRADE),
    **dict.fromkeys(
        ("keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "content-length", "expect"), _HOP
    ),
    **dict.fromkeys(
        ("proxy-authorization", "proxy-authenticate"), "write the proxy's user name and password in its variable"
    ),
    "host": "write --relay-host NAME",
}
_REFUSED_PREFIXES: Final = {"sec-websocket-": _UPGRADE, "tunnel-": "it is this protocol's own"}


def parse(text: str, *, has_token: bool) -> list[tuple[str, str]]:
    """(name, value) of each line `NAME: VALUE`; empty ones and those that begin with # are left out.

    Raises UsageError, which tells no value: it may be a secret.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not _NAME.fullmatch(name):
            raise UsageError(f"--header: number {number} is no header: write 'NAME: VALUE'")
        if not _VALUE.fullmatch(value):
            raise UsageError(f"--header: the value of {name} has characters that no header can have")
        reason = _why_refused(name.lower(), has_token=has_token)
        if reason:
            raise UsageError(f"--header: {name} cannot be given: {reason}")
        found.append((name, value))
    return found


def _why_refused(name: str, *, has_token: bool) -> str:
    if name == "authorization" and has_token:
        return "the relay's token goes there"
    for prefix, reason in _REFUSED_PREFIXES.items():
        if name.startswith(prefix):
            return reason
    return _REFUSED.get(name, "")
