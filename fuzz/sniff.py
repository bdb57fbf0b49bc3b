"""Fuzzes what reads the first bytes of visitors: any bytes, in any pieces.

    python -m fuzz.sniff CORPUS [libFuzzer options]

It must raise nothing but BadProxyHeader, read the same however the bytes are cut, hold what
it was fed unchanged, and find the name that OpenSSL finds in a ClientHello and h11 in a request.
"""

from __future__ import annotations

import contextlib
import re
import sys

import atheris

with atheris.instrument_imports(include=["tunnel_core.protocol"]):
    from tunnel_core.errors import BadProxyHeader
    from tunnel_core.protocol import asleep, proxy_header
    from tunnel_core.protocol.sniff import Asked, Sniffer
    from tunnel_core.protocol.sniff.reader import LIMIT, normal

from tests.support.visitors import host_for_h11, name_for_openssl


def read(wire: bytes, piece: int) -> Asked:
    """What the bytes ask for, in pieces of this size."""
    sniffer = Sniffer()
    for start in range(0, len(wire), piece):
        asked = sniffer.feed(wire[start : start + piece])
        assert sniffer.held == wire[: start + piece]
        if asked is not None:
            return asked
        assert sniffer.room
    return sniffer.end()


def one_input(data: bytes) -> None:
    """The first byte chooses the pieces, the rest is what a visitor sends."""
    if not data:
        return
    piece, wire = 1 + data[0], data[1 : LIMIT + 1]
    asked = read(wire, piece)
    assert asked == read(wire, len(wire) or 1)
    if wire[:1] == b"\x16":
        _, name = name_for_openssl(wire)
        assert not name or asked == Asked("tls", normal(name)), (name, asked)
    elif re.match(rb"[A-Z-]{1,20} /", wire):  # of h11 any token is a method, and any bytes a target
        host = host_for_h11(wire)
        if host and normal(host) and ":" not in host:
            assert asked == Asked("http", normal(host)), (host, asked)
    reply = asleep.reply(wire, "asleep")
    assert len(reply.data) < 300
    with contextlib.suppress(BadProxyHeader):
        header = proxy_header.decode(wire)
        assert header is None or header.size <= len(wire)


def main() -> None:
    """Run until the options of libFuzzer say stop."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
