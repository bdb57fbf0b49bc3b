"""What a visitor hears whose server is away."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.visitors import STATUS_REQUEST, handshake, legacy_ping
from tunnel_core.protocol.asleep import Reply, describe, reply

PING = b"\x09\x01" + b"12345678"


def packet(data: bytes) -> tuple[dict[str, object], bytes]:
    """(the JSON in a packet of id 0, what follows it)."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                return value, at

    length, at = varint(0)
    end = at + length
    assert data[at] == 0
    size, at = varint(at + 1)
    assert at + size == end
    return json.loads(data[at:end]), data[end:]


def test_a_status_request_is_answered() -> None:
    """The list of servers shows the words, and since the versions differ, `asleep` in place of the players."""
    data, done = reply(handshake("mc.example.com", 1) + STATUS_REQUEST, "The server is asleep.")
    status, rest = packet(data)
    assert status == {
        "version": {"name": "asleep", "protocol": -1},
        "players": {"max": 0, "online": 0},
        "description": {"text": "The server is asleep."},
    }
    assert (rest, done) == (b"", False)


def test_the_ping_after_it_comes_back() -> None:
    """Then all is said."""
    before = reply(handshake("mc", 1) + STATUS_REQUEST, "zzz")
    after = reply(handshake("mc", 1) + STATUS_REQUEST + PING + b"more", "zzz")
    assert after == Reply(before.data + PING, True)


@pytest.mark.parametrize("state", [2, 3], ids=["login", "transfer"])
def test_who_logs_in_is_told_in_words(state: int) -> None:
    """As soon as the handshake is there; the name of the player is of no interest."""
    data, done = reply(handshake("mc.example.com", state), 'asleep, "they" say')
    assert packet(data) == ({"text": 'asleep, "they" say'}, b"")
    assert done


@pytest.mark.parametrize("ping", [b"\xfe\x01", legacy_ping("mc.example.com")])
def test_old_clients_hear_it_too(ping: bytes) -> None:
    """By a kick, whose fields are separated by zeros since 1.4."""
    data, done = reply(ping, "Zzz 💤")
    assert done
    kind, length = struct.unpack("!BH", data[:3])
    assert (kind, 2 * length) == (0xFF, len(data) - 3)
    assert data[3:].decode("utf-16-be").split("\0") == ["§1", "127", "asleep", "Zzz 💤", "0", "0"]


def test_very_old_clients_hear_it_too() -> None:
    """They split at the sign of a colour."""
    data, _ = reply(b"\xfe", "zzz")
    assert data[3:].decode("utf-16-be").split("§") == ["zzz", "0", "0"]


@pytest.mark.parametrize(
    "received",
    [b"GET / HTTP/1.1\r\n\r\n", handshake("mc", 1) + b"\x01\x01", handshake("mc", 1) + STATUS_REQUEST + b"\x02"],
)
def test_what_is_not_understood_ends_it(received: bytes) -> None:
    """Nothing more is waited for."""
    assert reply(received, "zzz").done


@given(st.integers(0, 100))
def test_an_answer_only_grows(end: int) -> None:
    """What was sent for a part comes first in the answer to more of it."""
    whole = handshake("mc", 1) + STATUS_REQUEST + PING
    start = len(handshake("mc", 1))
    part = reply(whole[: start + end], "zzz")
    assert reply(whole, "zzz").data.startswith(part.data)
    assert part.done == (start + end >= len(whole))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "The server is asleep."),
        (59.9, "The server is asleep."),
        (60, "The server is asleep (for 1 minute)."),
        (330, "The server is asleep (for 5 minutes)."),
        (3 * 3600, "The server is asleep (for 3 hours)."),
        (47 * 3600, "The server is asleep (for 1 day)."),
    ],
)
def test_since_when(seconds: float | None, words: str) -> None:
    """In the largest unit of which there is one."""
    assert describe(seconds) == words
