"""The host in the head of an HTTP/1 request (RFC 9112).

HTTP/2 without TLS is not read: its names are compressed, and nobody's browser speaks it.
"""

from __future__ import annotations

import re
from typing import Final

from .reader import Reader, normal

MOST_IN_METHOD: Final = 20
_METHOD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-")
_REQUEST: Final = re.compile(rb"\S+ +(\S+) +HTTP/[0-9]\.[0-9]")
_ABSOLUTE: Final = re.compile(rb"https?://(?:[^/?#@]*@)?([^/?#]*)", re.IGNORECASE)
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[^]]*)\]|(?P<name>[^:]*))(?::[0-9]*)?")


def may_begin(first: int) -> bool:
    """Whether a request can begin with this byte."""
    return first in _METHOD


def read(held: bytearray) -> Reader[str | None]:
    """The name that is asked for, without port, empty if there is none; None if it is no HTTP."""
    at = 0
    while held[at] in _METHOD:
        at += 1
        if at > MOST_IN_METHOD:
            return None
        if len(held) <= at:
            yield at + 1
    if held[at] != ord(" "):
        return None
    line, at = yield from _line(held, 0)
    request = _REQUEST.fullmatch(line)
    if request is None:
        return None
    absolute = _ABSOLUTE.match(request[1])
    if absolute is not None:  # it counts, whatever Host says (RFC 9112 section 3.2.2)
        return _host(absolute[1])
    while True:
        line, at = yield from _line(held, at)
        if not line:
            return ""
        field, colon, value = line.partition(b":")
        if colon and field.lower() == b"host":
            return _host(value.strip(b" \t"))


def _line(held: bytearray, start: int) -> Reader[tuple[bytes, int]]:
    """(the line from `start` on, where the next one begins)."""
    seen = start
    while (end := held.find(b"\n", seen)) < 0:
        seen = len(held)
        yield seen + 1
    return bytes(held[start:end]).removesuffix(b"\r"), end + 1


def _host(value: bytes) -> str:
    """The host of `host[:port]`."""
    found = _HOST.fullmatch(value.decode("latin-1"))
    return normal(found["ipv6"] or found["name"] or "") if found is not None else ""
