"""Answers Minecraft clients while their server is away: "the server is asleep". Pure."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import msgspec

from .sniff import minecraft
from .sniff.reader import read_at_once

_REQUEST: Final = b"\x01\x00"  # for the status
_PING: Final = b"\x09\x01"  # and 8 bytes to echo
_PING_SIZE: Final = 10
_NO_VERSION: Final = -1  # no client has it, so clients show the version's name in place of the player count
_LEGACY_VERSION: Final = 127  # the same for clients before 1.7


class Reply(NamedTuple):
    """Everything to send for what was received so far. `done`: the conversation is over."""

    data: bytes
    done: bool


def describe(seconds: float | None) -> str:
    """The message for players, with how long the server has been away if that is known."""
    if seconds is None or seconds < 60:
        return "The server is asleep."
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"The server is asleep (for {count} {unit}{'s' if count > 1 else ''})."
    raise AssertionError("a minute is the least")


def reply(received: bytes | bytearray, message: str) -> Reply:
    """Answer `received`, all that a visitor has sent from the handshake on, with `message`.

    A status request is answered, as is the ping after it; who logs in is disconnected with the message; FE or FE 01
    is taken for a ping of before 1.7. For more of the same visitor, what was answered already comes first again.
    """
    if minecraft.is_legacy_ping(received):
        return Reply(_kick(message, with_version=len(received) > 1), True)
    handshake = read_at_once(minecraft.read_handshake(received))
    if handshake is None:
        return Reply(b"", True)
    if handshake.next_state != minecraft.STATUS:
        return Reply(_packet(msgspec.json.encode({"text": message})), True)
    said = bytes(received[handshake.size :])
    if not said.startswith(_REQUEST):
        return Reply(b"", not _REQUEST.startswith(said))
    status = {
        "version": {"name": "asleep", "protocol": _NO_VERSION},
        "players": {"max": 0, "online": 0},
        "description": {"text": message},
    }
    answer = _packet(msgspec.json.encode(status))
    ping = said[len(_REQUEST) :][:_PING_SIZE]
    if not ping.startswith(_PING[: len(ping)]):
        return Reply(answer, True)
    whole = len(ping) == _PING_SIZE
    return Reply(answer + ping if whole else answer, whole)


def _packet(text: bytes) -> bytes:
    """A packet of id 0 with one string in it: a status, or a disconnect while logging in."""
    body = b"\0" + _varint(len(text)) + text
    return _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _kick(message: str, *, with_version: bool) -> bytes:
    """The answer to a ping from before 1.7. Clients before 1.4 read no version."""
    new = ("§1", str(_LEGACY_VERSION), "asleep", message, "0", "0")
    text = ("\0".join(new) if with_version else f"{message}§0§0").encode("utf-16-be")
    return struct.pack("!BH", 0xFF, len(text) // 2) + text
