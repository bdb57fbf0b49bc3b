"""The server's name in a ClientHello of TLS (RFC 8446 section 4.1.2, RFC 6066 section 3)."""

from __future__ import annotations

from typing import Final

from .reader import Reader, normal

HANDSHAKE: Final = 22  # the type of a record
CLIENT_HELLO: Final = 1
LONGEST_RECORD: Final = 2**14
SERVER_NAME: Final = 0  # an extension, and in it the type of a name that is a host's


def may_begin(first: int) -> bool:
    """Whether a record of a handshake can begin with this byte."""
    return first == HANDSHAKE


def read(held: bytearray) -> Reader[str | None]:
    """The name that is asked for, empty if there is none; None if it is no ClientHello.

    It looks no further than the name, so that a hello which is longer than the limit has one, too.
    """
    if len(held) < 2:
        yield 2
    if held[1] != 3:  # of all versions; anything else is a Minecraft handshake of 22 bytes
        return None
    records = _Records(held)
    hello = records.hello
    if not (yield from records.have(4)) or hello[0] != CLIENT_HELLO:
        return None
    end = 4 + int.from_bytes(hello[1:4])
    at = 4 + 2 + 32  # version, random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        if at + width > end or not (yield from records.have(at + width)):
            return None
        at += width + int.from_bytes(hello[at : at + width])
    if at == end:
        return ""  # there need be no extensions
    if at + 2 > end or not (yield from records.have(at + 2)):
        return None
    at += 2
    if at + int.from_bytes(hello[at - 2 : at]) != end:
        return None
    while at + 4 <= end and (yield from records.have(at + 4)):
        kind, size = int.from_bytes(hello[at : at + 2]), int.from_bytes(hello[at + 2 : at + 4])
        at += 4
        if kind == SERVER_NAME:
            return _host(hello[at : at + size]) if at + size <= end and (yield from records.have(at + size)) else None
        at += size
    return "" if at == end else None


def _host(extension: bytearray) -> str | None:
    """The host's name in a server_name extension; None unless there is exactly one."""
    size = len(extension)
    if size < 5 or int.from_bytes(extension[:2]) != size - 2 or extension[2] != SERVER_NAME:
        return None
    name = extension[5:]
    if int.from_bytes(extension[3:5]) != len(name) or not name.isascii() or 0 in name:
        return None
    return normal(name.decode())


class _Records:
    """Takes the records away from around a ClientHello: each may hold any part of it."""

    def __init__(self, held: bytearray) -> None:
        self._held = held
        self._at = 0  # the next record, or the rest of this one
        self._left = 0  # bytes of this one that are not in `hello` yet
        self.hello = bytearray()

    def have(self, size: int) -> Reader[bool]:
        """Have `size` bytes of the hello. False: what comes is no record of a handshake."""
        held = self._held
        while (missing := size - len(self.hello)) > 0:
            at = self._at
            if not self._left:
                if len(held) < at + 5:
                    yield at + 5
                self._left = int.from_bytes(held[at + 3 : at + 5])
                self._at = at = at + 5
                if held[at - 5] != HANDSHAKE or held[at - 4] != 3 or not 0 < self._left <= LONGEST_RECORD:
                    return False
            take = min(missing, self._left)
            if len(held) < at + take:
                yield at + take
            self.hello += held[at : at + take]
            self._at += take
            self._left -= take
        return True
