"""PROXY headers: ours against PyPI's `proxy-protocol`, both ways."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyprotocol import ProxyProtocol
from proxyprotocol.result import ProxyResult, ProxyResultIPv4, ProxyResultIPv6, ProxyResultLocal, ProxyResultUnknown
from proxyprotocol.tlv import ProxyProtocolTLV
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2
from tunnel_core.errors import BadProxyHeader
from tunnel_core.protocol.addresses import Endpoint
from tunnel_core.protocol.proxy_header import LIMIT, SUBJECT, UNIQUE_ID, Header, decode, encode

PORT = st.integers(0, 65535)
V4 = st.tuples(st.ip_addresses(v=4), PORT)
V6 = st.tuples(st.ip_addresses(v=6, network="2000::/3"), PORT)
# (the oracle's result, the source that it names)
NAMED = st.one_of(
    st.builds(lambda a, b: (ProxyResultIPv4(a, b, protocol=socket.SOCK_STREAM), Endpoint(*a)), V4, V4),
    st.builds(lambda a, b: (ProxyResultIPv6(a, b, protocol=socket.SOCK_STREAM), Endpoint(*a)), V6, V6),
)
V2 = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.mark.parametrize("version", [ProxyProtocolV1(), ProxyProtocolV2()], ids=["v1", "v2"])
@settings(max_examples=60)
@given(named=NAMED)
def test_what_others_send_is_understood(version: ProxyProtocol, named: tuple[ProxyResult, Endpoint]) -> None:
    """Whole, with what follows it; of any part of it more is waited for."""
    result, source = named
    wire = version.pack(result)
    assert decode(wire + b"\r\n\r\nmore") == Header(source, len(wire))
    assert all(decode(wire[:end]) is None for end in range(len(wire)))


def test_who_is_not_named() -> None:
    """Health checks of the proxy's own, and families that are no IP: the connection counts as the proxy's."""
    v2 = ProxyProtocolV2()
    for wire in (
        v2.pack(ProxyResultLocal()),
        v2.pack(ProxyResultLocal(tlv=ProxyProtocolTLV(init={4: bytes(500)}))),
        v2.pack(ProxyResultUnknown()),
        V2 + b"\x21\x31\0\xd8" + bytes(216),
        V2 + b"\x20\x11\0\0",
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
    ):
        assert decode(wire + b"x") == Header(None, len(wire))


def test_ipv4_is_ipv4_wherever_it_is_written() -> None:
    """A proxy that listens on both families maps it into IPv6."""
    header = decode(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 4000 25565\r\n")
    assert header is not None
    assert str(header.source) == "192.0.2.1:4000"


@pytest.mark.parametrize(
    "wire",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x10\0\xff\x05",
        b"POST",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        b"PROXY TCP4 192.0.2.\xff 192.0.2.2 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY " + b"x" * 107,
        V2 + b"\x11\x11\0\x0c" + bytes(12),
        V2 + b"\x22\x11\0\x0c" + bytes(12),
        V2 + b"\x21\x11\0\x0b" + bytes(11),
        V2 + b"\x21\x11" + (LIMIT - 15).to_bytes(2),
    ],
)
def test_invalid_headers_are_refused(wire: bytes) -> None:
    """Required where it is read at all: there is no going on without it."""
    with pytest.raises(BadProxyHeader):
        decode(wire)


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_waited_for(rest: bytes) -> None:
    """Nothing else is raised, and what is read of it does not depend on more."""
    for wire in (rest, V2 + rest, b"PROXY TCP4 " + rest, b"PROXY TCP6 ::1 " + rest):
        try:
            header = decode(wire)
        except BadProxyHeader:
            with pytest.raises(BadProxyHeader):
                decode(wire + b"\r\n")
        else:
            assert header is None or decode(wire + b"\r\n") == header


@settings(max_examples=100)
@given(V4 | V6, V4 | V6, st.text(max_size=200))
def test_what_we_send_is_understood(
    source: tuple[ipaddress.IPv4Address, int], destination: tuple[ipaddress.IPv4Address, int], subject: str
) -> None:
    """The visitor's address, and as TLVs the stream's id and whose token it is."""
    wire = encode(str(Endpoint(*source)), str(Endpoint(*destination)), stream="0f" * 16, subject=subject)
    result = ProxyProtocolV2().unpack(wire)
    assert isinstance(result, ProxyResultIPv4 | ProxyResultIPv6)
    assert result.source == source
    same = source[0].version == destination[0].version
    assert result.dest == (destination if same else (type(source[0])(0), 0))
    assert result.tlv[UNIQUE_ID] == b"0f" * 16
    assert result.tlv[SUBJECT] == subject.encode()
    assert decode(wire) == Header(Endpoint(*source), len(wire))


def test_an_invalid_source_address_is_left_out() -> None:
    """Of a Unix socket, say: the server is told nobody's address, and not a wrong one."""
    wire = encode("a Unix socket", "192.0.2.1:25565", stream="", subject="alex")
    assert isinstance(ProxyProtocolV2().unpack(wire), ProxyResultUnknown)
    assert decode(wire) == Header(None, len(wire))
