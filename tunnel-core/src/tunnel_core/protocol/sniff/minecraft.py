"""The handshake of Minecraft, Java edition, since 1.7, and the ping of older versions."""

from __future__ import annotations

from typing import Final, NamedTuple

from .reader import Reader, normal

MOST_IN_NAME: Final = 255  # characters that a server reads
# varints of the packet's id, the version and the name's length; the name in UTF-8; the port; the next state
LONGEST: Final = 1 + 5 + 2 + 3 * MOST_IN_NAME + 2 + 1
SHORTEST: Final = 6
STATUS, LOGIN, TRANSFER = 1, 2, 3  # what follows

LEGACY: Final = 0xFE  # begins a ping of before 1.7, which is FE, FE 01, or FE 01 FA and more
_PING_HOST: Final = b"\xfe\x01\xfa" + b"\x00\x0b" + "MC|PingHost".encode("utf-16-be")


class Handshake(NamedTuple):
    """A handshake: how many bytes it takes, the name as it was sent, and which state follows."""

    size: int
    name: str
    next_state: int


def may_begin(first: int) -> bool:
    """Whether a handshake or a ping can begin with this byte: its length, the first 7 bits of that, or LEGACY."""
    return first >= SHORTEST


def is_legacy_ping(held: bytes | bytearray) -> bool:
    """Whether `held` is a ping of before 1.7, or begins one. FE and FE 01 may also begin a handshake."""
    return held[:1] == b"\xfe" and b"\xfe\x01\xfa".startswith(held[:3])


def read(held: bytearray) -> Reader[str | None]:
    """The name that is asked for, empty if there is none; None if it is not Minecraft."""
    if held[0] == LEGACY:
        if len(held) < 3:
            yield 3  # FE 01 00 is a handshake of 254 bytes
        if held[2] == 0xFA:
            return (yield from _read_ping(held))
    handshake = yield from read_handshake(held)
    return None if handshake is None else normal(handshake.name)


def read_handshake(held: bytes | bytearray) -> Reader[Handshake | None]:
    """The handshake at the start of `held`; None if it is none."""
    length, at = yield from _varint(held, 0, 2)
    end = at + length
    if not SHORTEST <= length <= LONGEST:
        return None
    if len(held) <= at:
        yield at + 1
    if held[at]:  # the packet's id
        return None
    _, at = yield from _varint(held, at + 1, 5)
    size, at = yield from _varint(held, at, 2)
    if size < 0 or at + size + 2 + 1 != end:
        return None
    if len(held) < end:
        yield end
    state = held[end - 1]
    if not STATUS <= state <= TRANSFER:
        return None
    try:
        name = held[at : at + size].decode()
    except UnicodeDecodeError:
        return None
    return Handshake(end, name, state) if len(name) <= MOST_IN_NAME else None


def _varint(held: bytes | bytearray, at: int, most: int) -> Reader[tuple[int, int]]:
    """(the number at `at`, where the next thing begins); -1 if it takes more than `most` bytes."""
    value = 0
    for index in range(most):
        if len(held) <= at:
            yield at + 1
        byte = held[at]
        value |= (byte & 0x7F) << 7 * index
        at += 1
        if byte < 0x80:
            return value, at
    return -1, at


def _read_ping(held: bytearray) -> Reader[str | None]:
    """The name in a ping of 1.6: a plugin message with version, name and port."""
    at = len(_PING_HOST) + 5
    if len(held) < at:
        yield at
    if not held.startswith(_PING_HOST):
        return None
    length, size = int.from_bytes(held[at - 5 : at - 3]), 2 * int.from_bytes(held[at - 2 : at])
    if size > 2 * MOST_IN_NAME or length != 1 + 2 + size + 4:
        return None
    if len(held) < at + size + 4:
        yield at + size + 4
    try:
        return normal(held[at : at + size].decode("utf-16-be"))
    except UnicodeDecodeError:
        return None
