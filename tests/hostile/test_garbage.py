"""Garbage at every layer: each input ends its own connection, and twenty honest streams do not notice."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.attacker import Attacker, masked, request
from support.figures import tell
from support.fortress import Fortress, token
from tunnel_core.protocol.frames import CloseCode
from websockets.frames import Opcode

# Inputs of each kind, more of those that take less time: 5,250 in all, and 26,250 or 105,000 in longer runs.
TIMES = {"more": 5, "long": 20}.get(settings.get_current_profile_name(), 1)
REQUESTS, FRAMES, MESSAGES, TOKENS = 2000 * TIMES, 1500 * TIMES, 500 * TIMES, 1250 * TIMES


def many(inputs: int) -> settings:
    """So many. The fortress is made once: what one input leaves behind, the next must not suffer from."""
    return settings(max_examples=inputs, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def fortress() -> Iterator[Fortress]:
    """One for all: nothing that is thrown at it may show."""
    with Fortress(max_failed_logins=10**9, max_legs_per_token=10_000, max_legs_per_address=10_000) as it:
        began = Attacker.count
        yield it
        tell(
            f"garbage: {Attacker.count - began} hostile connections; meanwhile {sum(it.answers)} right answers "
            f"to {len(it.answers)} honest streams, the longest after {it.longest * 1000:.0f} ms"
        )


@pytest.fixture(autouse=True)
def unharmed(fortress: Fortress) -> Iterator[None]:
    """After each test the honest streams are whole, and no leg of the attacker is left."""
    yield
    fortress.check()


WELL = masked(Opcode.BINARY, b"hello")
KEY = bytes(4)


@pytest.mark.parametrize("role", ["host", "client"])
@pytest.mark.parametrize("v1", [True, False], ids=["v1", "raw"])
@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x82\x05hello", CloseCode.PROTOCOL_ERROR),  # not masked
        (b"\xc2\x80" + KEY, CloseCode.PROTOCOL_ERROR),  # reserved bits
        (b"\xa2\x80" + KEY, CloseCode.PROTOCOL_ERROR),
        (b"\x92\x80" + KEY, CloseCode.PROTOCOL_ERROR),
        (b"\x83\x80" + KEY, CloseCode.PROTOCOL_ERROR),  # opcodes that are none
        (b"\x8f\x80" + KEY, CloseCode.PROTOCOL_ERROR),
        (b"\x89\xfe\x00\x7e" + KEY, CloseCode.PROTOCOL_ERROR),  # a ping over 125 bytes
        (b"\x8a\xff" + bytes(7) + b"\x7e" + KEY, CloseCode.PROTOCOL_ERROR),  # a pong with a length of eight bytes
        (b"\x88\xff\x80" + bytes(7) + KEY, CloseCode.PROTOCOL_ERROR),  # a close of 2^63
        (b"\x09\x80" + KEY, CloseCode.PROTOCOL_ERROR),  # a fragmented ping
        (b"\x08\x80" + KEY, CloseCode.PROTOCOL_ERROR),  # a fragmented close
        (b"\x80\x80" + KEY, CloseCode.PROTOCOL_ERROR),  # a continuation of nothing
        (masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.TEXT, b"b"), CloseCode.PROTOCOL_ERROR),  # interleaved
        (masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.BINARY, b"b"), CloseCode.PROTOCOL_ERROR),
        (masked(Opcode.BINARY, b"", fin=False) + masked(Opcode.BINARY, b""), CloseCode.PROTOCOL_ERROR),
        (b"\x82\xff\x80" + bytes(7) + KEY, CloseCode.PROTOCOL_ERROR),  # 2^63 bytes
        (b"\x82\xff\xff" + b"\xff" * 7 + KEY, CloseCode.PROTOCOL_ERROR),  # 2^64 - 1
        (masked(Opcode.TEXT, b"\xff\xfe"), CloseCode.INVALID_DATA),  # text that is not UTF-8
        (
            masked(Opcode.TEXT, b"\xc3", fin=False) + masked(Opcode.CONT, b"x"),
            CloseCode.INVALID_DATA,
        ),  # over two fragments
        (masked(Opcode.CLOSE, b"\x03"), CloseCode.PROTOCOL_ERROR),  # half a close code
        (masked(Opcode.CLOSE, b"\x03\xed"), CloseCode.PROTOCOL_ERROR),  # 1005
        (masked(Opcode.CLOSE, b"\x03\xe7"), CloseCode.PROTOCOL_ERROR),  # 999
        (masked(Opcode.CLOSE, b"\x03\xee"), CloseCode.PROTOCOL_ERROR),  # 1006
        (masked(Opcode.CLOSE, b"\x03\xf7"), CloseCode.PROTOCOL_ERROR),  # 1015
        (masked(Opcode.CLOSE, b"\x13\x88"), CloseCode.PROTOCOL_ERROR),  # 5000
        (masked(Opcode.CLOSE, b"\xff\xff"), CloseCode.PROTOCOL_ERROR),  # 65535
        (masked(Opcode.CLOSE, b"\x03\xe8\xff"), CloseCode.INVALID_DATA),  # a reason that is not UTF-8
        (masked(Opcode.PING, b"") * 5000, CloseCode.POLICY_VIOLATION),  # pings without end
        (masked(Opcode.BINARY, b"") * 5000, CloseCode.POLICY_VIOLATION),  # empty frames without end
        (
            masked(Opcode.BINARY, b"", fin=False) + masked(Opcode.CONT, b"", fin=False) * 5000,
            CloseCode.POLICY_VIOLATION,
        ),
        (masked(Opcode.CLOSE, b"\x03\xe8bye") + WELL * 100, CloseCode.NORMAL),  # data after close
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "frames",  # masks are random
)
def test_a_hostile_frame_ends_its_connection_with_the_right_code(
    fortress: Fortress, role: str, v1: bool, wire: bytes, code: int
) -> None:
    """RFC 6455 section 7.4.1, whichever leg it comes on."""
    with Attacker(fortress.port) as attacker:
        attacker.upgrade(f"/{role}/spare", bearer=token("host" if role == "host" else "client", "spare"), v1=v1)
        attacker.send(wire)
        assert attacker.close_code() == code


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" * 4000,
        b'{"type":"open"}',
        b'{"type":"open","stream":"x","key":"y","window":1}',
        b'{"type":"open","stream":"%s","key":"%s","window":0}' % (b"a" * 32, b"b" * 32),
        b'{"type":"open","stream":"%s","key":"%s","window":99999999999}' % (b"a" * 32, b"b" * 32),
        b'{"type":"open","stream":"%s\\n","key":"%s","window":1048576}' % (b"a" * 32, b"b" * 32),
        b'{"type":"paired"}',
        b'{"type":"goaway","grace":1}',
        b'{"type":"accepted","stream":"%s","window":1048576}' % (b"a" * 32),
        b'{"type":"ack","stream":"%s","received":1}' % (b"a" * 32),  # before anything was opened
        b'{"type":"ack","stream":"%s","received":-1}' % (b"a" * 32),
        b'{"type":"resume","stream":"%s","proof":"%s","instance":"..","attempt":1,"received":0}'
        % (b"a" * 32, b"b" * 32),
    ],
)
def test_a_message_that_may_not_travel_closes_the_leg(fortress: Fortress, text: bytes) -> None:
    """From a client; and from a host, which may not speak before it was paired."""
    for role in ("client", "host"):
        with Attacker(fortress.port) as attacker:
            attacker.upgrade(f"/{role}/spare", bearer=token("host" if role == "host" else "client", "spare"), v1=True)
            attacker.send(masked(Opcode.TEXT, text))
            assert attacker.close_code() == CloseCode.POLICY_VIOLATION


def test_a_message_over_the_limit_closes_the_leg(fortress: Fortress) -> None:
    """4 KiB, whole or in fragments."""
    for wire in (
        masked(Opcode.TEXT, b" " * 4097),
        masked(Opcode.TEXT, b" " * 4000, fin=False) + masked(Opcode.CONT, b" " * 97),
    ):
        with Attacker(fortress.port) as attacker:
            attacker.upgrade("/client/spare", bearer=token("client", "spare"), v1=True)
            attacker.send(wire)
            assert attacker.close_code() == CloseCode.TOO_BIG


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n", b"400"),  # TLS to a plain port
        (b"GET /client/mc HTTP/1.1\r\nHost: x\r\n\r\n", b"401"),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /client/UPPER HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /client/../host/mc HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345", b"400"),
        (b"GET /healthz HTTP/1.1\r\nA: b\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 20000, b"431"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
    ],
)
def test_a_bad_request_gets_its_status(fortress: Fortress, data: bytes, status: bytes) -> None:
    """And the connection ends."""
    with Attacker(fortress.port) as attacker:
        attacker.send(data)
        answer = attacker.head()
        assert status in answer.partition(b"\r\n")[0]


headers = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60)


@many(REQUESTS)
@given(data=st.binary(max_size=300), proper=st.booleans())
def test_garbage_instead_of_a_request(fortress: Fortress, data: bytes, proper: bool) -> None:
    """Any bytes, alone or after a proper beginning."""
    with Attacker(fortress.port) as attacker:
        attacker.send((b"GET /client/mc HTTP/1.1\r\n" if proper else b"") + data + b"\r\n\r\n")
        answer = attacker.head()
        assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), answer


@many(FRAMES)
@given(data=st.binary(max_size=300), role=st.sampled_from(["host", "client"]), v1=st.booleans())
def test_garbage_instead_of_frames(fortress: Fortress, data: bytes, role: str, v1: bool) -> None:
    """After the upgrade, from a leg of either role and kind."""
    with Attacker(fortress.port) as attacker:
        attacker.upgrade(f"/{role}/spare", bearer=token("host" if role == "host" else "client", "spare"), v1=v1)
        attacker.send(data)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["open", "resume", "ack", "fin", "reset", "accepted", "paired", "goaway", "x"])},
    optional={
        "stream": st.sampled_from(["a" * 32, "", "A" * 32]) | st.text(max_size=40),
        "key": st.just("b" * 32) | st.text(max_size=40),
        "proof": st.just("d" * 32) | st.text(max_size=40),
        "replaces": st.lists(st.just("e" * 32) | st.text(max_size=40), max_size=10) | json_like,
        "instance": st.just("c" * 32) | st.text(max_size=40),
        "window": st.integers() | st.just(1 << 20),
        "received": st.integers(),
        "sent": st.integers(),
        "attempt": st.integers(),
        "reason": st.text(max_size=600),
        "extra": json_like,
    },
)


@many(MESSAGES)
@given(batch=st.lists(messages | json_like, min_size=1, max_size=4), role=st.sampled_from(["host", "client"]))
def test_garbage_instead_of_messages(fortress: Fortress, batch: list[object], role: str) -> None:
    """JSON that is nearly right, in any order, to the tunnel that the honest streams use."""
    with Attacker(fortress.port) as attacker:
        attacker.upgrade(f"/{role}/mc", bearer=token("host" if role == "host" else "client"), v1=True)
        for message in batch:
            attacker.send(masked(Opcode.TEXT, json.dumps(message).encode()[:4096]))


genuine = token("client")


@many(TOKENS)
@given(
    bad=st.one_of(
        st.text(st.characters(codec="ascii", exclude_characters="\r\n\0"), max_size=400),
        st.tuples(st.integers(0, len(genuine) - 1), st.characters(codec="ascii", categories=["L", "N"])).map(
            lambda change: genuine[: change[0]] + change[1] + genuine[change[0] + 1 :]
        ),
        st.integers(0, len(genuine) - 1).map(lambda cut: genuine[:cut]),
    )
)
def test_garbage_instead_of_tokens(fortress: Fortress, bad: str) -> None:
    """Any text, a genuine token with one character changed, or cut off."""
    with Attacker(fortress.port) as attacker:
        attacker.send(request("/client/mc", bearer=bad))
        status = attacker.head().partition(b"\r\n")[0]
        # The last character of base64 may say nothing: then the token is still the same.
        assert b"401" in status or b"400" in status or (b"101" in status and bad[:-1] == genuine[:-1]), (bad, status)
