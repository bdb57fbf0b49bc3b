"""PROXY protocol headers, versions 1 and 2: who is at the other end of a proxied connection. Pure.

The specification is HAProxy's `doc/proxy-protocol.txt`; the numbers in brackets are its sections.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, NamedTuple

from ..errors import BadProxyHeader
from .addresses import Endpoint, parse_endpoint, unmapped

LIMIT: Final = 4096  # bytes of a header: with the certificate's name and all that load balancers add, one has 1 KiB
UNIQUE_ID: Final = 0x05  # TLV: the stream's id, as in logs
SUBJECT: Final = 0xE0  # TLV, the first for custom use: the token's subject, in UTF-8

_V1: Final = b"PROXY "
_V1_LIMIT: Final = 107
_V1_FAMILIES: Final = {b"TCP4": 4, b"TCP6": 6}
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD: Final = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21  # version and command
_TCP4, _TCP6 = 0x11, 0x21  # family and protocol
_ADDRESSES: Final = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}
_UNSPECIFIED: Final = {4: bytes(4), 6: bytes(16)}


class Header(NamedTuple):
    """A header: the client it names, if any, and its length in bytes."""

    source: Endpoint | None
    size: int


def decode(held: bytes | bytearray) -> Header | None:
    """Read the header at the start of `held`; None: more must come. A header has LIMIT bytes at most.

    A health check of the proxy's own, or an address that is neither IPv4's nor IPv6's, names nobody [2.1, 2.2].
    Raises BadProxyHeader.
    """
    if held[:1] == b"P":
        return _decode_v1(held)
    if held[: len(_V2)] != _V2[: len(held)]:
        raise BadProxyHeader("no PROXY header", "have the proxy send one, or leave its network out")
    if len(held) < _V2_HEAD.size:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(held)
    size = _V2_HEAD.size + length
    if command not in (_LOCAL, _PROXY):
        raise BadProxyHeader(f"a PROXY header of version and command {command:#04x}")
    if size > LIMIT:
        raise BadProxyHeader(f"a PROXY header over {LIMIT} bytes")
    if len(held) < size:
        return None
    addresses = _ADDRESSES.get(family)
    if command == _LOCAL or addresses is None:
        return Header(None, size)
    if length < addresses.size:
        raise BadProxyHeader("a PROXY header without its addresses")
    ip, _, port, _ = addresses.unpack_from(held, _V2_HEAD.size)
    return Header(Endpoint(unmapped(ipaddress.ip_address(ip)), port), size)


def _decode_v1(held: bytes | bytearray) -> Header | None:
    if held[: len(_V1)] != _V1[: len(held)]:
        raise BadProxyHeader("no PROXY header", "have the proxy send one, or leave its network out")
    end = held.find(b"\r\n", 0, _V1_LIMIT)
    if end < 0:
        if len(held) >= _V1_LIMIT:
            raise BadProxyHeader(f"a PROXY header of version 1 over {_V1_LIMIT} bytes")
        return None
    words = bytes(held[len(_V1) : end]).split(b" ")
    if words[0] == b"UNKNOWN":
        return Header(None, end + 2)
    version = _V1_FAMILIES.get(words[0])
    if version is None or len(words) != 5:
        raise BadProxyHeader("a PROXY header of version 1 that is not whole")
    ends = [_v1_endpoint(version, *pair) for pair in zip(words[1:3], words[3:], strict=True)]
    return Header(ends[0], end + 2)


def _v1_endpoint(version: int, address: bytes, port: bytes) -> Endpoint:
    try:
        ip = ipaddress.ip_address(address.decode("ascii"))
    except ValueError as exc:  # UnicodeDecodeError is one
        raise BadProxyHeader("a PROXY header with an address that is none") from exc
    number = int(port) if port.isdigit() and len(port) <= 5 else -1
    if ip.version != version or not 0 <= number <= 65535 or str(number).encode() != port:
        raise BadProxyHeader("a PROXY header with an address or a port that is none")
    return Endpoint(unmapped(ip), number)


def encode(source: str, destination: str, *, stream: str, subject: str) -> bytes:
    """A header of version 2 [2.2]: `ADDRESS:PORT` of both ends, and the stream and subject as TLVs.

    A `destination` of another family than `source` is left unspecified, a `source` that is no IP address is not
    named, and of a raw peer there is no `stream`.
    """
    tlvs = (_tlv(UNIQUE_ID, stream.encode()) if stream else b"") + _tlv(SUBJECT, subject.encode())
    end = parse_endpoint(source)
    if end is None:
        return _V2_HEAD.pack(_V2, _PROXY, 0, len(tlvs)) + tlvs
    version = end.ip.version
    to = parse_endpoint(destination)
    there, port = (to.ip.packed, to.port) if to is not None and to.ip.version == version else (_UNSPECIFIED[version], 0)
    family = _TCP4 if version == 4 else _TCP6
    addresses = _ADDRESSES[family].pack(end.ip.packed, there, end.port, port)
    return _V2_HEAD.pack(_V2, _PROXY, family, len(addresses) + len(tlvs)) + addresses + tlvs


# For a connection on nobody's behalf: the receiver uses the connection's own address.
LOCAL: Final = _V2_HEAD.pack(_V2, _LOCAL, 0, 0)


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value
