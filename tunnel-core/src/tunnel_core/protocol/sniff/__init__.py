"""Finds the server that a visitor asks for, from the first bytes sent. Pure.

Several tunnels can share one public port where the visitor's protocol names the server in
what it sends first: the Minecraft handshake, the ClientHello of TLS, and the head of an
HTTP/1 request. The input comes from strangers: parsing takes bounded memory, and time
proportional to the length however it is split, and stops at the name.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from . import http, minecraft, tls
from .reader import LIMIT, Reader


class Asked(NamedTuple):
    """What a visitor asks for.

    `protocol` is `minecraft`, `tls`, `http`, or empty for one that is not known; `name` is the
    server's, in lower case, and empty where none is given.
    """

    protocol: str
    name: str


UNKNOWN: Final = Asked("", "")


class Sniffer:
    """Reads a visitor's first bytes until they name a server. `held` is everything fed so far."""

    def __init__(self) -> None:
        self.held = bytearray()
        self._reader = _read(self.held)
        self._need = next(self._reader)

    @property
    def room(self) -> int:
        """How many more bytes may be fed."""
        return LIMIT - len(self.held)

    @property
    def may_be_whole(self) -> bool:
        """Whether `held` may already be a whole request: then wait only briefly for more."""
        return minecraft.is_legacy_ping(self.held)

    def feed(self, data: bytes | memoryview) -> Asked | None:
        """Add `data`. Returns None if more is needed and there is room for it. Do not feed after an answer."""
        assert len(data) <= self.room, "what is not fed may stay in the socket"
        self.held += data
        if self._need <= len(self.held):
            try:
                self._need = next(self._reader)
            except StopIteration as finished:
                asked: Asked = finished.value
                return asked
        return UNKNOWN if self._need > LIMIT else None

    def end(self) -> Asked:
        """What the visitor asks for, if nothing more comes."""
        return Asked("minecraft", "") if self.may_be_whole else UNKNOWN


def _read(held: bytearray) -> Reader[Asked]:
    yield 1
    first = held[0]
    for protocol, module in (("tls", tls), ("http", http), ("minecraft", minecraft)):
        if module.may_begin(first):
            name = yield from module.read(held)
            if name is not None:
                return Asked(protocol, name)
    return UNKNOWN
