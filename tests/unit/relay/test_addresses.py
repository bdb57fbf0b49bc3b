"""Whose address counts: what proxies say of their clients, and whether they are believed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_relay.addresses import MAX_ELEMENT, ClientAddress

PROXY = ("10.0.0.0/8", "2001:db8:aaaa::/48")


@pytest.mark.parametrize(
    ("trusted", "peer", "said", "address"),
    [
        # Nobody is believed unless it is said so.
        ((), "10.0.0.1", "203.0.113.9", "10.0.0.1"),
        (PROXY, "192.0.2.1", "203.0.113.9", "192.0.2.1"),
        # Who is believed.
        (PROXY, "10.0.0.1", "203.0.113.9", "203.0.113.9"),
        (PROXY, "2001:db8:aaaa::1", "2001:db8::9", "2001:db8::9"),
        # Who forges the first entries gains nothing: the proxy appends whom it saw.
        (PROXY, "10.0.0.1", "127.0.0.1, 203.0.113.9", "203.0.113.9"),
        (PROXY, "10.0.0.1", "10.0.0.99,203.0.113.9 , 10.0.0.2", "203.0.113.9"),
        (PROXY, "10.0.0.1", "203.0.113.9, , ", "203.0.113.9"),
        # Nothing is said, nothing but proxies, or nonsense.
        (PROXY, "10.0.0.1", None, "10.0.0.1"),
        (PROXY, "10.0.0.1", "", "10.0.0.1"),
        (PROXY, "10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.1"),
        (PROXY, "10.0.0.1", "unknown", "10.0.0.1"),
        (PROXY, "10.0.0.1", "203.0.113.9, _hidden", "10.0.0.1"),
        (PROXY, "10.0.0.1", "x" * 8000, "10.0.0.1"),
        # Some proxies add the port.
        (PROXY, "10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        (PROXY, "10.0.0.1", "[2001:db8::9]:4711", "2001:db8::9"),
        (PROXY, "10.0.0.1", "[2001:db8::9]", "2001:db8::9"),
        # IPv4 as a socket of both families writes it.
        (PROXY, "10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        (PROXY, "10.0.0.1", "203.0.113.9, ::ffff:10.0.0.2", "203.0.113.9"),
        # No address at all, as of a Unix socket.
        (PROXY, "unix", "203.0.113.9", "unix"),
    ],
)
@pytest.mark.parametrize("header", ["X-Forwarded-For", "Fly-Client-IP"])
def test_a_proxy_is_believed_if_it_is_trusted(
    trusted: tuple[str, ...], peer: str, said: str | None, address: str, header: str
) -> None:
    """The last address that is no trusted proxy's, of the header that the setting names."""
    other = "fly-client-ip" if header == "X-Forwarded-For" else "x-forwarded-for"
    headers = {other: "198.51.100.1"} | ({header.lower(): said} if said is not None else {})
    assert ClientAddress(trusted, header).of(peer, headers) == address


def test_trusted_proxies_are_not_counted() -> None:
    """Whoever comes through them would share one bound."""
    addresses = ClientAddress(PROXY, "X-Forwarded-For")
    assert addresses.counted("10.0.0.1") is None
    assert addresses.counted("192.0.2.1") == "192.0.2.1"
    assert addresses.counted("2001:db8:1:2::1") == addresses.counted("2001:db8:1:2::2") == "2001:db8:1:2::/64"


# RFC 7239.


def forwarded(value: str) -> str:
    """Whom a relay takes for the client when the proxy 10.0.0.1 says this."""
    return ClientAddress(PROXY, "Forwarded").of("10.0.0.1", {"forwarded": value})


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ("For=203.0.113.9; Proto=https;by=10.0.0.1", "203.0.113.9"),
        ("proto=https;for=203.0.113.9", "203.0.113.9"),
        ('for="203.0.113.9:4711"', "203.0.113.9"),
        ("for=203.0.113.9:4711", "203.0.113.9"),
        ('for="[2001:db8::9]"', "2001:db8::9"),
        ('for="[2001:db8::9]:4711";proto=https', "2001:db8::9"),
        ("for=[2001:db8::9]:4711", "2001:db8::9"),
        ('for="\\2\\03.0.113.9"', "203.0.113.9"),
        # Several proxies; those that are trusted are passed over, what stands before the client is its own affair.
        ("for=203.0.113.9, for=10.0.0.2", "203.0.113.9"),
        ("for=127.0.0.1, for=203.0.113.9,for=10.0.0.2 , ,", "203.0.113.9"),
        ('for=198.51.100.1, for=203.0.113.9;host="a, for=198.51.100.2;b"', "203.0.113.9"),
        # No address.
        ("", "10.0.0.1"),
        ("for=unknown", "10.0.0.1"),
        ('for="_hidden"', "10.0.0.1"),
        ("for=_gazonk:_port", "10.0.0.1"),
        ("for=198.51.100.1, for=_hidden", "10.0.0.1"),
        ("for=198.51.100.1, proto=https", "10.0.0.1"),
        ("for=198.51.100.1;for=198.51.100.2", "10.0.0.1"),
        ("203.0.113.9", "10.0.0.1"),
        ("for=203.0.113.9 proto=https", "10.0.0.1"),
        ('for="203.0.113.9', "10.0.0.1"),
        (";", "10.0.0.1"),
        ('"' * 8000, "10.0.0.1"),
        (f"for=203.0.113.9;x={'x' * MAX_ELEMENT}", "10.0.0.1"),
    ],
)
def test_forwarded(said: str, address: str) -> None:
    """Quotes, brackets, ports and obfuscated identifiers; whatever is not understood says nothing."""
    assert forwarded(said) == address


@given(
    st.text('fFoOrR=";,\\ []:.0123456789_', max_size=60),
    st.text('for=;, []:.0123456789"\\', max_size=20),
    st.ip_addresses(),
)
def test_a_client_cannot_hide_what_the_proxy_appends(
    claimed: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    """Neither by what it claims in a header of its own, nor by a host name that the proxy quotes."""
    if address in ipaddress.ip_network(PROXY[0]) or address in ipaddress.ip_network(PROXY[1]):
        return
    quoted = host.replace("\\", "\\\\").replace('"', '\\"')
    shown = address if address.version == 4 else f"[{address}]"
    expected = ClientAddress(PROXY, "X-Real-IP").of("10.0.0.1", {"x-real-ip": str(address)})
    for element in (f'for="{shown}"', f'for="{shown}";host="{quoted}"', f'host="{quoted}";for="{shown}"'):
        assert forwarded(f"{claimed}, {element}") == expected
