"""What visitors send first: handshakes of Minecraft, hellos of TLS."""

from __future__ import annotations

import contextlib
import ssl
import struct

import h11

STATUS_REQUEST = b"\x01\x00"
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # of a server without a certificate


def varint(value: int) -> bytes:
    """A number as Minecraft writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def handshake(name: str, state: int = 2, *, version: int = 767, port: int = 25565) -> bytes:
    """The handshake of Minecraft since 1.7."""
    encoded = name.encode()
    body = b"\0" + varint(version) + varint(len(encoded)) + encoded + struct.pack("!H", port) + varint(state)
    return varint(len(body)) + body


def legacy_ping(name: str) -> bytes:
    """The ping of Minecraft 1.6."""
    host = name.encode("utf-16-be")
    said = struct.pack("!BH", 78, len(host) // 2) + host + struct.pack("!i", 25565)
    channel = "MC|PingHost"
    return (
        b"\xfe\x01\xfa"
        + struct.pack("!H", len(channel))
        + channel.encode("utf-16-be")
        + struct.pack("!H", len(said))
        + said
    )


def client_hello(name: str | None, *, alpn: tuple[str, ...] = ()) -> bytes:
    """What Python's own TLS sends first, in one record."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    out = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return out.read()


def with_extension_first(record: bytes, kind: int, value: bytes) -> bytes:
    """A hello with one more extension, before all others."""
    hello = record[5:]
    at = 4 + 2 + 32
    for width in (1, 2, 1):
        at += width + int.from_bytes(hello[at : at + width])
    extensions = struct.pack("!HH", kind, len(value)) + value + hello[at + 2 :]
    body = hello[4:at] + struct.pack("!H", len(extensions)) + extensions
    return in_records(b"\x01" + len(body).to_bytes(3) + body, 2**14)


def in_records(hello: bytes, size: int) -> bytes:
    """A handshake message, in records of this size."""
    pieces = [hello[start : start + size] for start in range(0, len(hello), size)]
    return b"".join(struct.pack("!BHH", 22, 0x0301, len(piece)) + piece for piece in pieces)


def name_for_openssl(wire: bytes) -> tuple[bool, str | None]:
    """(whether OpenSSL took it for a ClientHello, the name that it found)."""
    names: list[str | None] = []
    SERVER.sni_callback = lambda _, name, __: names.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(wire)
    connection = SERVER.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    with contextlib.suppress(ssl.SSLError, UnicodeError):
        connection.do_handshake()
    return bool(names), names[0] if names else None


def host_for_h11(wire: bytes) -> str | None:
    """The Host of a request; None if h11 takes it for none."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(wire)
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return dict(request.headers).get(b"host", b"").decode("latin-1") if isinstance(request, h11.Request) else None
