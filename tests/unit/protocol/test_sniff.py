"""The first bytes of visitors: ours against OpenSSL for the name in a hello, and h11 for the one in a request."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.visitors import (
    STATUS_REQUEST,
    client_hello,
    handshake,
    host_for_h11,
    in_records,
    legacy_ping,
    name_for_openssl,
    varint,
    with_extension_first,
)
from tunnel_core.protocol.sniff import UNKNOWN, Asked, Sniffer
from tunnel_core.protocol.sniff.reader import LIMIT

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=63).filter(
    lambda text: text[0] != "-" and text[-1] != "-" and not text.startswith("xn--")
)
NAME = st.lists(LABEL, min_size=1, max_size=3).map(".".join)
CUTS = st.lists(st.integers(0, LIMIT), max_size=8)
GREASE = 0x1A1A  # an extension that means nothing
POST_QUANTUM = 1216  # bytes of a key share of X25519MLKEM768

HELLO = client_hello("Mc.Example.com", alpn=("h2", "http/1.1"))
REQUEST = b"GET / HTTP/1.1\r\nUser-Agent: x\r\nHost: Mc.Example.com:8080\r\nCookie: y\r\n\r\n"
# What people send, and what it asks for.
KNOWN: dict[str, tuple[bytes, Asked]] = {
    "login": (handshake("mc.example.com") + b"\x06\0\x04alex", Asked("minecraft", "mc.example.com")),
    "status": (handshake("mc.example.com", 1) + STATUS_REQUEST, Asked("minecraft", "mc.example.com")),
    "transfer": (handshake("mc.example.com", 3), Asked("minecraft", "mc.example.com")),
    "SRV": (handshake("MC.example.com."), Asked("minecraft", "mc.example.com")),
    "Forge 1.12": (handshake("mc.example.com\0FML\0"), Asked("minecraft", "mc.example.com")),
    "Forge after SRV": (handshake("mc.example.com.\0FML2\0"), Asked("minecraft", "mc.example.com")),
    "NeoForge": (handshake("mc.example.com\0FORGE"), Asked("minecraft", "mc.example.com")),
    "a shield": (handshake("mc.example.com///192.0.2.1:5///17"), Asked("minecraft", "mc.example.com")),
    "an address": (handshake("2001:db8::1"), Asked("minecraft", "2001:db8::1")),
    "no name": (handshake(""), Asked("minecraft", "")),
    "a name that is none": (handshake("héllo wörld"), Asked("minecraft", "")),
    "of 254 bytes": (handshake("a" * 244, version=47), Asked("minecraft", "a" * 244)),
    "as long as G": (handshake("a" * 60), Asked("minecraft", "a" * 60)),
    "as long as a TLS record's type": (handshake("a" * 15), Asked("minecraft", "a" * 15)),
    "snapshot": (handshake("mc.example.com", version=0x40000123), Asked("minecraft", "mc.example.com")),
    "1.6": (legacy_ping("MC.example.com"), Asked("minecraft", "mc.example.com")),
    "TLS": (HELLO, Asked("tls", "mc.example.com")),
    "TLS without a name": (client_hello(None), Asked("tls", "")),
    "TLS in small records": (in_records(HELLO[5:], 7), Asked("tls", "mc.example.com")),
    "TLS after quantum computers": (
        with_extension_first(HELLO, GREASE, bytes(2 * POST_QUANTUM)),
        Asked("tls", "mc.example.com"),
    ),
    "HTTP": (REQUEST, Asked("http", "mc.example.com")),
    "HTTP with an absolute target": (
        b"GET http://u:p@Mc.example.com:80/x HTTP/1.1\r\nHost: other\r\n\r\n",
        Asked("http", "mc.example.com"),
    ),
    "HTTP to an IPv6 address": (b"GET / HTTP/1.1\r\nhost:[2001:DB8::1]:80\r\n\r\n", Asked("http", "2001:db8::1")),
    "HTTP/1.0": (b"HEAD / HTTP/1.0\r\nAccept: */*\r\n\r\n", Asked("http", "")),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Asked("http", "")),
    "two hosts in one": (b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Asked("http", "")),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", UNKNOWN),
    "PostgreSQL": (b"\0\0\0\x08\x04\xd2\x16\x2f", UNKNOWN),
    "RDP": (b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0", UNKNOWN),
    "an alert of TLS": (b"\x15\x03\x01\0\x02\x02\x28", UNKNOWN),
    "a ServerHello": (b"\x16\x03\x01\0\x04\x02\0\0\0", UNKNOWN),
    "a packet that is too long": (varint(5000) + b"\0" * 9, UNKNOWN),
    "a request of words": (b"GET me a pony\r\n\r\n", UNKNOWN),
    "a method without end": (b"G" * 30, UNKNOWN),
    "a head without end": (b"GET / HTTP/1.1\r\nCookie: " + b"x" * LIMIT + b"\r\nHost: mc\r\n\r\n", UNKNOWN),
}
EACH = pytest.mark.parametrize(("wire", "asked"), KNOWN.values(), ids=KNOWN)


def sniff(wire: bytes, cuts: Iterable[int]) -> tuple[Asked, int]:
    """What is asked for, and how many bytes it took to tell. What was fed is held unchanged."""
    sniffer = Sniffer()
    places = [0, *sorted({cut % (len(wire) + 1) for cut in cuts}), min(len(wire), LIMIT)]
    for start, end in itertools.pairwise(sorted(places)):
        if start == end or end > LIMIT:
            continue
        asked = sniffer.feed(memoryview(bytearray(wire[start:end])))
        assert sniffer.held == wire[:end]
        if asked is not None:
            return asked, end
        assert sniffer.room == LIMIT - end > 0
    return sniffer.end(), len(wire)


@EACH
def test_what_is_asked_for(wire: bytes, asked: Asked) -> None:
    """In one piece, and byte by byte."""
    assert sniff(wire, ())[0] == asked
    assert sniff(wire, range(len(wire)))[0] == asked


@given(st.sampled_from(sorted(KNOWN)), CUTS)
def test_segments_mean_nothing(name: str, cuts: list[int]) -> None:
    """However the bytes are cut."""
    wire, asked = KNOWN[name]
    assert sniff(wire, cuts)[0] == asked


@pytest.mark.parametrize("name", [name for name, (_, asked) in KNOWN.items() if asked.name])
def test_a_partial_request_waits_for_more(name: str) -> None:
    """Until the name is whole, more is waited for; what follows the name is not."""
    wire, asked = KNOWN[name]
    _, enough = sniff(wire, range(len(wire)))
    for end in range(enough):
        assert Sniffer().feed(wire[:end]) is None
    assert Sniffer().feed(wire[:enough]) == asked


@given(st.binary(max_size=200), CUTS)
@example(b"\xfe\x01\xfa" + bytes(60), [])
@example(b"\x16\x03\x01\x00\x00", [])
@example(b"\x16\x03\x01\x00\x30\x01\0\0\x2c" + bytes(60), [])
@example(b"\x16\x03\x01\xff\xff" + bytes(60), [])
@example(b"\x80\x80\x80\x80", [])
def test_garbage_is_read_the_same_however_it_is_cut(wire: bytes, cuts: list[int]) -> None:
    """And nothing is raised."""
    assert sniff(wire, cuts)[0] == sniff(wire, ())[0]


# Minecraft.


@given(st.text(max_size=40), st.integers(1, 3), st.integers(0, 2**31 - 1), CUTS)
def test_every_handshake_is_one(name: str, state: int, version: int, cuts: list[int]) -> None:
    """Whatever its name is, also when that can be nobody's."""
    asked, took = sniff(handshake(name, state, version=version) + b"more", cuts)
    assert asked.protocol == "minecraft"
    assert asked.name == asked.name.lower()
    assert took > 0


@pytest.mark.parametrize("ping", [b"\xfe", b"\xfe\x01", legacy_ping("mc")[:9]])
def test_an_old_ping_may_be_whole(ping: bytes) -> None:
    """Nothing marks its end, and it may begin something else: so it is to be waited for, but not for long."""
    sniffer = Sniffer()
    assert sniffer.feed(ping) is None
    assert sniffer.may_be_whole
    assert sniffer.end() == Asked("minecraft", "")


def test_nothing_else_may_be_whole() -> None:
    """Who begins to speak and stops has asked for nothing."""
    for begun in (b"", b"\x16\x03", b"GET /", handshake("mc")[:-1], b"\xfe\x01\0"):
        sniffer = Sniffer()
        assert sniffer.feed(begun) is None
        assert not sniffer.may_be_whole
        assert sniffer.end() == UNKNOWN


# TLS.


@settings(max_examples=50)
@given(NAME, st.integers(1, 600), CUTS)
def test_a_hello_is_read_as_openssl_reads_it(name: str, size: int, cuts: list[int]) -> None:
    """In records and segments of any size."""
    wire = in_records(client_hello(name)[5:], size)
    if len(wire) > LIMIT:
        return
    assert name_for_openssl(wire) == (True, name)
    assert sniff(wire, cuts)[0] == Asked("tls", name)


@given(st.integers(0, len(HELLO) - 1), st.integers(1, 127))
def test_where_one_byte_is_wrong_openssl_finds_no_other_name(at: int, flip: int) -> None:
    """A name that it reads, we read; ours may be found where it refuses the hello for what we do not look at."""
    wire = bytearray(HELLO)
    wire[at] ^= flip
    taken, name = name_for_openssl(bytes(wire))
    if taken and name is not None:
        assert sniff(bytes(wire), ())[0] in (Asked("tls", name.lower()), Asked("tls", ""))


def test_a_hello_without_end_is_given_up_in_time() -> None:
    """No more is held of it than the limit, and that it will be too much is known early."""
    wire = with_extension_first(HELLO, GREASE, bytes(LIMIT))
    asked, took = sniff(wire, range(len(wire)))
    assert asked == UNKNOWN
    assert took < len(HELLO)


# HTTP.

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-", min_size=1, max_size=20)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=50)
HEADERS = st.lists(st.tuples(TOKEN.filter(lambda name: name.lower() != "host"), VALUE), max_size=5)


@given(NAME, st.none() | st.integers(0, 65535), HEADERS, st.integers(0, 5), st.sampled_from(["\r\n", "\n"]), CUTS)
def test_a_host_is_read_as_h11_reads_it(
    name: str, port: int | None, headers: list[tuple[str, str]], at: int, end: str, cuts: list[int]
) -> None:
    """Wherever it stands among the headers, and with any case, spaces and line ends that h11 takes."""
    host = ("HoSt", f"  {name}{'' if port is None else f':{port}'} ")
    lines = [f"{key}:{value}" for key, value in (*headers[:at], host, *headers[at:])]
    wire = end.join(("GET /path HTTP/1.1", *lines, "", "")).encode()
    found = host_for_h11(wire)
    if found is not None:  # else a header was none, such as a length in words
        assert sniff(wire, cuts)[0] == Asked("http", found.partition(":")[0])
