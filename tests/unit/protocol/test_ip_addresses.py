"""IP addresses as they are written and counted."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.protocol.addresses import Endpoint, address_key, parse_endpoint


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("unix", "unix"),
    ],
)
def test_what_counts_as_one_address(address: str, key: str) -> None:
    """Of IPv6 the network that one subscriber has: else one had 2^64 of them."""
    assert address_key(address) == key


@given(st.ip_addresses(), st.integers(0, 65535))
def test_what_is_written_is_read_again(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    """With its port; IPv4 in IPv6 becomes plain IPv4, as it is the same machine."""
    read = parse_endpoint(str(Endpoint(ip, port)))
    assert read is not None
    assert (str(read.ip), read.port) == (str(getattr(ip, "ipv4_mapped", None) or ip), port)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("192.0.2.1", "192.0.2.1:0"),
        ("2001:db8::1", "[2001:db8::1]:0"),
        ("[::ffff:192.0.2.1]:7", "192.0.2.1:7"),
        ("a Unix socket", None),
        ("", None),
        ("localhost:80", None),
        ("192.0.2.1:65536", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:+1", None),
        ("[192.0.2.1]:1", None),
    ],
)
def test_forms(text: str, read: str | None) -> None:
    """An address alone has port 0; what is no endpoint is None."""
    endpoint = parse_endpoint(text)
    assert (None if endpoint is None else str(endpoint)) == read
