"""WebSocket frames (RFC 6455 section 5) after the opening handshake, without I/O.

`FrameReader` parses received bytes into binary payload and events (text, ping, pong, close).
Payload is cut-through: passed on as it arrives and never reassembled, so no frame length can cost
memory. `plain_frame`, `masked_frame` and `control_frame` build outgoing frames.
"""

from __future__ import annotations

import codecs
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from websockets.exceptions import ProtocolError
from websockets.frames import Close

try:
    from websockets.speedups import apply_mask  # in C: 40 GB/s, accepts any buffer

    _in_c = True
except ImportError:
    from websockets.utils import apply_mask  # requires the key as bytes

    _in_c = False

__all__ = [
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "CloseCode",
    "Event",
    "FrameReader",
    "apply_mask",
    "control_frame",
    "mask_keys",
    "masked_frame",
    "new_key",
    "plain_frame",
]

CONT: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FIN: Final = 0x80
MASKED: Final = 0x80
FINAL_BINARY: Final = FIN | BINARY
FINAL_TEXT: Final = FIN | TEXT
# Reads up to this size are copied: slicing `bytes` takes half the time of slicing a memoryview.
SMALL: Final = 4096 if _in_c else sys.maxsize
MAX_CONTROL_PAYLOAD: Final = 125  # RFC 6455 section 5.5

_pack_16 = struct.Struct("!BBH").pack
_pack_64 = struct.Struct("!BBQ").pack
_unpack_16 = struct.Struct("!H").unpack_from
_unpack_64 = struct.Struct("!Q").unpack_from


class CloseCode:
    """The close codes this project sends (RFC 6455 section 7.4.1; 44xx: PROTOCOL.md)."""

    NORMAL: Final = 1000
    GOING_AWAY: Final = 1001
    PROTOCOL_ERROR: Final = 1002
    NO_STATUS: Final = 1005  # never on the wire: the close frame was empty
    ABNORMAL: Final = 1006  # never on the wire: the connection was lost
    INVALID_DATA: Final = 1007
    POLICY_VIOLATION: Final = 1008
    TOO_BIG: Final = 1009
    INTERNAL_ERROR: Final = 1011
    SERVICE_RESTART: Final = 1012
    TRY_AGAIN_LATER: Final = 1013
    STALE_ATTEMPT: Final = 4409
    PEER_LOST: Final = 4410
    RESET: Final = 4411
    MOVED: Final = 4412


class Event(NamedTuple):
    """A complete message or control frame that is not binary payload.

    `opcode` is TEXT, PING, PONG or CLOSE. For CLOSE, `code` and `payload` are the
    status and its reason (1005 and empty for an empty frame). A violation of
    RFC 6455 is reported as a CLOSE event with `violation` set, and the code and reason to fail the
    connection with.
    """

    opcode: int
    payload: bytes
    code: int = 0
    violation: bool = False


def _violation(code: int, reason: str) -> Event:
    return Event(CLOSE, reason.encode(), code, violation=True)


class FrameReader:
    """Parses the frames of one direction of a connection (RFC 6455 section 5.2).

    `masked` says whether the peer must mask, as WebSocket clients do. Text of up to
    `text_limit` bytes is collected and returned whole. With `text_limit` None, text is
    checked to be UTF-8 and returned as payload, like binary (for raw legs).
    """

    __slots__ = (
        "_collected",
        "_dead",
        "_event_count",
        "_fin",
        "_head",
        "_key",
        "_left",
        "_masked",
        "_message",
        "_opcode",
        "_payload_size",
        "_text",
        "_text_limit",
        "_utf8",
        "empty",
    )

    def __init__(self, *, masked: bool, text_limit: int | None) -> None:
        self._masked = MASKED if masked else 0
        self._text_limit = text_limit
        self._head = bytearray()  # an incomplete frame header
        self._left = -1  # remaining payload bytes of the current frame; -1: no frame
        self._key = b""  # the current frame's mask, rotated to its next payload byte
        self._opcode = 0  # of the current frame, and TEXT or BINARY for a continuation
        self._fin = False
        self._message = 0  # TEXT or BINARY while a fragmented message is open
        self._collected = bytearray()  # a control frame's payload so far
        self._text = bytearray()  # a text message's payload so far
        self._utf8: codecs.IncrementalDecoder | None = None
        self._dead = False  # after a close frame or a violation, everything is ignored
        self._event_count = 0  # of the current call of `feed`
        self._payload_size = 0
        self.empty = 0  # data frames without payload, ever

    def feed(  # noqa: PLR0915 - calls would cost more
        self, data: memoryview | bytes, most: int = sys.maxsize
    ) -> tuple[list[memoryview | bytes | Event], int, int, int]:
        """Parse the next bytes of the connection. Returns (items, event count, payload size, consumed).

        `items` has the events and the pieces of payload in order; the two counts are their totals,
        payload in bytes. At most `most` frames are parsed: feed the bytes beyond `consumed`
        again. Pieces of payload are bytes, or slices of `data` that are valid only
        until `data` is overwritten. Nothing follows a CLOSE event.
        """
        out: list[memoryview | bytes | Event] = []
        self._event_count = self._payload_size = 0
        end = len(data)
        if self._dead:
            return out, 0, 0, end
        if end <= SMALL:
            data = bytes(data)
        pos = 0
        last = end - 1  # no header begins here
        masked = self._masked
        if self._head:
            pos = self._finish_header(data, out)
            if pos < 0:
                return out, self._event_count, 0, end
        while True:
            if self._left >= 0:
                pos = self._payload(data, pos, out)
                if self._left >= 0 or self._dead:
                    return out, self._event_count, self._payload_size, end
            # Fast path: final binary frames, complete or not. Everything else falls
            # through to the slower, clearer path.
            whole = not self._message
            size = 0
            while pos < last and whole and most > 0 and data[pos] == FINAL_BINARY:
                length = data[pos + 1] ^ masked
                start = pos + 2
                if length > 125:
                    if length == 126 and end - pos > 3:
                        length = data[pos + 2] << 8 | data[pos + 3]
                        start = pos + 4
                    elif length == 127 and end - pos > 9:
                        (length,) = _unpack_64(data, pos + 2)
                        start = pos + 10
                    else:
                        break
                if masked:
                    start += 4
                stop = start + length
                if stop > end:
                    if start <= end and not length >> 63:
                        self._opcode, self._fin, self._left = BINARY, True, length
                        if masked:
                            self._key = bytes(data[start - 4 : start])
                        pos = start
                    break
                pos = stop
                most -= 1
                size += length
                if not length:
                    self.empty += 1
                elif masked:
                    out.append(apply_mask(data[start:stop], data[start - 4 : start]))  # type: ignore[arg-type]
                else:
                    out.append(data[start:stop])
            if self._left < 0 and (pos == end or most <= 0):
                return out, self._event_count, self._payload_size + size, pos
            self._payload_size += size
            if self._left >= 0:
                continue
            most -= 1
            header_size = self._whole_text(data, pos, out) or self._header(data, pos, out)
            if not header_size:
                if not self._dead:
                    self._head += data[pos:]
                return out, self._event_count, self._payload_size, end
            pos += header_size

    def stop(self) -> None:
        """Ignore everything that is fed from now on."""
        self._dead = True

    def _whole_text(self, data: memoryview | bytes, pos: int, out: list[memoryview | bytes | Event]) -> int:
        """Fast path for a text message in one short, complete ASCII frame, as control messages are.

        Returns its length on the wire, or 0 if it is not one.
        """
        limit = self._text_limit
        if limit is None or self._message or len(data) - pos < 4 or data[pos] != FINAL_TEXT:
            return 0
        length = data[pos + 1] ^ self._masked
        start = pos + 2
        if length == 126:
            length = data[pos + 2] << 8 | data[pos + 3]
            start = pos + 4
        elif length > 126:
            return 0
        if self._masked:
            start += 4
        stop = start + length
        if stop > len(data) or length > limit:
            return 0
        part = data[start:stop]
        text = apply_mask(part, bytes(data[start - 4 : start])) if self._masked else bytes(part)
        if not text.isascii():
            return 0
        self._event_count += 1
        out.append(Event(TEXT, text))
        return stop - pos

    def _finish_header(self, data: memoryview | bytes, out: list[memoryview | bytes | Event]) -> int:
        """Complete a partial header. Returns the position after it, or -1 if it is still incomplete."""
        had = len(self._head)
        self._head += data[: 14 - had]  # 14: the longest header, 2 + 8 + 4
        taken = self._header(bytes(self._head), 0, out)
        if not taken:
            return -1
        self._head.clear()
        return taken - had

    def _header(self, data: memoryview | bytes, pos: int, out: list[memoryview | bytes | Event]) -> int:
        """Parse a frame header at `pos` (RFC 6455 section 5.2). Returns its length, or 0 if it is incomplete."""
        have = len(data) - pos
        if have < 2:
            return 0
        first, second = data[pos], data[pos + 1]
        opcode = first & 0x0F
        if first & 0x70:
            return self._fail(out, CloseCode.PROTOCOL_ERROR, "reserved bits must be 0")
        if (second & MASKED) != self._masked:
            return self._fail(out, CloseCode.PROTOCOL_ERROR, "incorrect masking")
        length = second & 0x7F
        size = 2 + (length == 126) * 2 + (length == 127) * 8 + (4 if self._masked else 0)
        if opcode >= CLOSE:
            if opcode > PONG:
                return self._fail(out, CloseCode.PROTOCOL_ERROR, "invalid opcode")
            if length > MAX_CONTROL_PAYLOAD:
                return self._fail(out, CloseCode.PROTOCOL_ERROR, "control frame too long")
            if not first & FIN:
                return self._fail(out, CloseCode.PROTOCOL_ERROR, "fragmented control frame")
        elif opcode > BINARY:
            return self._fail(out, CloseCode.PROTOCOL_ERROR, "invalid opcode")
        elif opcode == CONT:
            if not self._message:
                return self._fail(out, CloseCode.PROTOCOL_ERROR, "unexpected continuation frame")
            opcode = self._message
        elif self._message:
            return self._fail(out, CloseCode.PROTOCOL_ERROR, "expected a continuation frame")
        if have < size:
            return 0
        if length == 126:
            (length,) = _unpack_16(data, pos + 2)
        elif length == 127:
            (length,) = _unpack_64(data, pos + 2)
            if length >> 63:
                return self._fail(out, CloseCode.PROTOCOL_ERROR, "frame length over 2^63")
        fin = bool(first & FIN)
        if opcode < CLOSE:
            self.empty += not length
            self._message = 0 if fin else opcode
            limit = self._text_limit
            if opcode == TEXT and limit is not None and len(self._text) + length > limit:
                return self._fail(out, CloseCode.TOO_BIG, f"text over {limit} bytes")
        self._opcode = opcode
        self._fin = fin
        self._left = length
        self._key = bytes(data[pos + size - 4 : pos + size]) if self._masked else b""
        return size

    def _payload(self, data: memoryview | bytes, pos: int, out: list[memoryview | bytes | Event]) -> int:
        """Consume the current frame's payload in `data`. Returns the position after it."""
        left = self._left
        take = len(data) - pos
        if take >= left:
            take = left
            self._left = -1
        else:
            self._left = left - take
        part: memoryview | bytes = data[pos : pos + take]
        if self._masked and take:
            key = self._key
            part = apply_mask(part, key)
            if take & 3 and take < left:
                self._key = key[take & 3 :] + key[: take & 3]
        if self._opcode == BINARY:
            if take:
                self._payload_size += take
                out.append(part)
        elif self._opcode == TEXT:
            self._text_part(part, out)
        else:
            self._collected += part
            if self._left < 0:
                self._control(out)
        return pos + take

    def _text_part(self, part: memoryview | bytes, out: list[memoryview | bytes | Event]) -> None:
        last = self._fin and self._left < 0
        try:
            if self._text_limit is None:
                if self._utf8 is None:
                    self._utf8 = codecs.getincrementaldecoder("utf-8")()
                self._utf8.decode(bytes(part), final=last)
                if part:
                    self._payload_size += len(part)
                    out.append(part)
                return
            self._text += part
            if last:
                text = bytes(self._text)
                self._text.clear()
                text.decode()
                self._event(out, Event(TEXT, text))
        except UnicodeDecodeError:
            self._fail(out, CloseCode.INVALID_DATA, "text is not UTF-8")

    def _control(self, out: list[memoryview | bytes | Event]) -> None:
        payload = bytes(self._collected)
        self._collected.clear()
        if self._opcode != CLOSE:
            self._event(out, Event(self._opcode, payload))
            return
        try:
            close = Close.parse(payload)
        except ProtocolError as exc:
            self._fail(out, CloseCode.PROTOCOL_ERROR, str(exc))
        except UnicodeDecodeError:
            self._fail(out, CloseCode.INVALID_DATA, "close reason is not UTF-8")
        else:
            self._dead = True
            self._event(out, Event(CLOSE, close.reason.encode(), close.code))

    def _event(self, out: list[memoryview | bytes | Event], event: Event) -> None:
        self._event_count += 1
        out.append(event)

    def _fail(self, out: list[memoryview | bytes | Event], code: int, reason: str) -> int:
        self._dead = True
        self._event(out, _violation(code, reason))
        return 0


def mask_keys() -> Iterator[bytes]:
    """Yield unpredictable masking keys endlessly (RFC 6455 section 5.3).

    They come from the kernel 1024 at a time: a system call for each frame would cost more than
    masking a small frame.
    """
    while True:
        block = os.urandom(4096)
        for start in range(0, 4096, 4):
            yield block[start : start + 4]


def _header(first: int, length: int, mask: int) -> bytes:
    if length < 126:
        return bytes((first, mask | length))
    if length < 65536:
        return _pack_16(first, mask | 126, length)
    return _pack_64(first, mask | 127, length)


_SHORT_HEADERS: Final = tuple(_header(FINAL_BINARY, length, 0) for length in range(126))
_SHORT_MASKED_HEADERS: Final = tuple(_header(FINAL_BINARY, length, MASKED) for length in range(126))


new_key: Final = mask_keys().__next__


def plain_frame(pieces: Sequence[memoryview | bytes], size: int) -> tuple[memoryview | bytes, ...]:
    """An unmasked binary message of `size` bytes in one frame: its header, then the pieces as they are."""
    return _SHORT_HEADERS[size] if size < 126 else _header(FINAL_BINARY, size, 0), *pieces


def masked_frame(pieces: Sequence[memoryview | bytes], size: int) -> tuple[memoryview | bytes, ...]:
    """A masked binary message of `size` bytes in one frame: its header, then a masked copy of the pieces."""
    key = new_key()
    header = _SHORT_MASKED_HEADERS[size] if size < 126 else _header(FINAL_BINARY, size, MASKED)
    return header + key, apply_mask(pieces[0] if len(pieces) == 1 else b"".join(pieces), key)


def control_frame(opcode: int, payload: bytes, key: bytes) -> bytes:
    """A text, ping, pong or close frame, masked with `key` unless that is empty."""
    if key:
        return _header(FIN | opcode, len(payload), MASKED) + key + apply_mask(payload, key)
    return _header(FIN | opcode, len(payload), 0) + payload
