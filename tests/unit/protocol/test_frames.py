"""Frames: ours against the parser of `websockets`, which serves as the oracle."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tunnel_core.protocol.frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    CloseCode,
    Event,
    FrameReader,
    control_frame,
    mask_keys,
    masked_frame,
    plain_frame,
)
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol

MASKS = pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])


def read(
    wire: bytes, *, masked: bool, cuts: Iterable[int] = (), text_limit: int | None = 4096, most: int = sys.maxsize
) -> list[bytes | Event]:
    """All that a reader makes of `wire`, cut at these places; payload joined where nothing stood between."""
    reader = FrameReader(masked=masked, text_limit=text_limit)
    places = [0, *sorted({cut % (len(wire) + 1) for cut in cuts}), len(wire)]
    out: list[bytes | Event] = []
    for start, end in itertools.pairwise(places):
        # The buffer is written over afterwards, as the shared one is.
        buffer = bytearray(wire[start:end])
        rest = memoryview(buffer)
        while rest:
            items, event_count, payload_size, consumed = reader.feed(rest, most)
            assert payload_size == sum(len(item) for item in items if not isinstance(item, Event))
            assert event_count == sum(isinstance(item, Event) for item in items)
            for item in items:
                if isinstance(item, Event):
                    out.append(item)
                elif out and isinstance(out[-1], bytes):
                    out[-1] += bytes(item)
                else:
                    out.append(bytes(item))
            assert consumed
            rest = rest[consumed:]
        buffer[:] = b"\xee" * len(buffer)
    return out


def oracle(wire: bytes, *, masked: bool) -> tuple[list[bytes | Event], bool]:
    """The same, as `websockets` reads it; and whether it found a violation."""
    protocol = Protocol(SERVER if masked else CLIENT, state=OPEN, max_size=None)
    protocol.receive_data(wire)
    out: list[bytes | Event] = []
    message, text = 0, b""
    for frame in protocol.events_received():
        assert isinstance(frame, Frame)
        data = bytes(frame.data)
        if frame.opcode is Opcode.CLOSE:
            close = Close.parse(data)
            out.append(Event(CLOSE, close.reason.encode(), close.code))
        elif frame.opcode in (Opcode.PING, Opcode.PONG):
            out.append(Event(int(frame.opcode), data))
        else:
            message = int(frame.opcode) or message
            if message == TEXT:
                text += data
                if frame.fin:
                    out.append(Event(TEXT, text))
                    text = b""
            elif data and out and isinstance(out[-1], bytes):
                out[-1] += data
            elif data:
                out.append(data)
    return out, protocol.parser_exc is not None


payloads = st.one_of(
    st.binary(max_size=300),
    st.integers(0, 70000).map(lambda size: bytes(itertools.islice(itertools.cycle(range(251)), size))),
)
control_payloads = st.binary(max_size=125)
texts = st.text(max_size=200).map(str.encode)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A frame that stands well on its own."""
    match draw(st.sampled_from([Opcode.BINARY, Opcode.BINARY, Opcode.TEXT, Opcode.PING, Opcode.PONG])):
        case Opcode.BINARY:
            return Frame(Opcode.BINARY, draw(payloads))
        case Opcode.TEXT:
            return Frame(Opcode.TEXT, draw(texts))
        case opcode:
            return Frame(opcode, draw(control_payloads))


@st.composite
def conversations(draw: st.DrawFn) -> list[Frame]:
    """Frames in an order that RFC 6455 allows: messages whole or in fragments, control frames between them."""
    out: list[Frame] = []
    for frame in draw(st.lists(frames(), max_size=8)):
        if frame.opcode in (Opcode.BINARY, Opcode.TEXT) and draw(st.booleans()):
            data = bytes(frame.data)
            places = sorted(draw(st.lists(st.integers(0, len(data)), min_size=1, max_size=3)))
            parts = [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)])]
            for number, part in enumerate(parts):
                out.append(Frame(frame.opcode if not number else Opcode.CONT, part, fin=number == len(parts) - 1))
                if draw(st.booleans()):
                    out.append(Frame(Opcode.PING, draw(control_payloads)))
        else:
            out.append(frame)
    if draw(st.booleans()):
        code = draw(st.sampled_from([1000, 1001, 1011, 3000, 4410, 4999]))
        out.append(Frame(Opcode.CLOSE, Close(code, draw(st.text(max_size=20))).serialize()))
    return out


@MASKS
@given(
    conversation=conversations(),
    cuts=st.lists(st.integers(0, 1 << 20), max_size=12),
    most=st.integers(1, 4) | st.just(sys.maxsize),
)
def test_reads_every_conversation_as_the_oracle_does(
    masked: bool, conversation: list[Frame], cuts: list[int], most: int
) -> None:
    """Whatever the frames, their sizes and masks, wherever the reads fall, and however few are taken at once."""
    wire = b"".join(frame.serialize(mask=masked) for frame in conversation)
    expected, violated = oracle(wire, masked=masked)
    assert not violated
    assert read(wire, masked=masked, cuts=cuts, most=most) == expected


@MASKS
@given(conversation=conversations())
def test_reads_a_conversation_byte_by_byte(masked: bool, conversation: list[Frame]) -> None:
    """Each header and each payload split at every place."""
    wire = b"".join(frame.serialize(mask=masked) for frame in conversation)[:3000]
    expected, _ = oracle(wire, masked=masked)
    # Payload passes through before its frame is whole; the oracle waits for whole frames.
    got = read(wire, masked=masked, cuts=range(len(wire)))
    assert got[: len(expected)][:-1] == expected[:-1]
    assert sum(isinstance(item, Event) for item in got) == sum(isinstance(item, Event) for item in expected)


@MASKS
@given(wire=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=5), most=st.integers(1, 9))
@example(wire=b"\x88\x01\x03", cuts=[], most=9)
@example(wire=b"\x88\x02\x03\xec", cuts=[], most=9)
@example(wire=b"\x81\x01\xff", cuts=[], most=9)
def test_finds_a_violation_wherever_the_oracle_does(masked: bool, wire: bytes, cuts: list[int], most: int) -> None:
    """Garbage: the same events before it, and a verdict where the oracle has one."""
    expected, violated = oracle(wire, masked=masked)
    got = read(wire, masked=masked, cuts=cuts, most=most)
    last = got[-1] if got else None
    found = isinstance(last, Event) and last.violation
    if violated:
        assert found
    elif found:
        # We judge text, and header fields, as soon as they are there; the oracle when the frame is whole.
        assert isinstance(last, Event)
        assert last.code in (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.TOO_BIG)
    events = [item for item in got if isinstance(item, Event) and not item.violation]
    assert events[: len(expected)] == [item for item in expected if isinstance(item, Event)][: len(events)]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\xc2\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # RSV1
        (b"\xa2\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # RSV2
        (b"\x92\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # RSV3
        (b"\x82\x00", CloseCode.PROTOCOL_ERROR),  # not masked
        (b"\x83\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # opcode 3
        (b"\x8b\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # opcode 11
        (b"\x80\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # a continuation of nothing
        (b"\x02\x80\0\0\0\0\x82\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # a message inside another
        (b"\x09\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # a fragmented ping
        (b"\x89\xfe\x00\x7e\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # a ping of 126 bytes
        (b"\x82\xff\x80" + bytes(7) + bytes(4), CloseCode.PROTOCOL_ERROR),  # a length of 2^63
        (b"\x81\xfe\x10\x01" + bytes(4), CloseCode.TOO_BIG),  # text of 4097 bytes
        (b"\x01\xfe\x10\x00" + bytes(4) + b"a" * 4096 + b"\x80\x81" + bytes(4) + b"a", CloseCode.TOO_BIG),
        (b"\x81\x81\0\0\0\0\xff", CloseCode.INVALID_DATA),  # text that is not UTF-8
        (b"\x88\x81\0\0\0\0\x03", CloseCode.PROTOCOL_ERROR),  # half a close code
        (b"\x88\x82\0\0\0\0\x03\xed", CloseCode.PROTOCOL_ERROR),  # close code 1005
        (b"\x88\x82\0\0\0\0\xff\xff", CloseCode.PROTOCOL_ERROR),  # close code 65535
        (b"\x88\x83\0\0\0\0\x03\xe8\xff", CloseCode.INVALID_DATA),  # a reason that is not UTF-8
    ],
)
def test_each_violation_has_its_code(wire: bytes, code: int) -> None:
    """And nothing is read after it."""
    for cuts in (range(0), range(len(wire))):
        got = read(wire + b"\x82\x80\0\0\0\0" * 3, masked=True, cuts=cuts)
        (event,) = (item for item in got if isinstance(item, Event))
        assert (event.opcode, event.code, event.violation) == (CLOSE, code, True)
        assert event is got[-1]


def test_a_frame_of_any_length_passes_through() -> None:
    """Payload is handed on as it comes: a frame of 2^62 bytes holds no memory."""
    reader = FrameReader(masked=False, text_limit=4096)
    assert reader.feed(memoryview(b"\x82\x7f\x40" + bytes(7))) == ([], 0, 0, 10)
    for _ in range(3):
        (piece,), *_ = reader.feed(memoryview(b"x" * 1000))
        assert bytes(piece) == b"x" * 1000  # type: ignore[arg-type]


@given(text=st.text(max_size=500).map(str.encode), cuts=st.lists(st.integers(0, 600), max_size=9))
def test_raw_text_passes_as_payload(text: bytes, cuts: list[int]) -> None:
    """A raw leg's text is its UTF-8 bytes, of any length, wherever the reads fall."""
    wire = Frame(Opcode.TEXT, text).serialize(mask=True)
    got = read(wire, masked=True, cuts=cuts, text_limit=None)
    assert got == ([text] if text else [])


def test_raw_text_must_still_be_utf8() -> None:
    """Also when the bad byte comes in another fragment than the character began in."""
    wire = Frame(Opcode.TEXT, b"\xe2\x82", fin=False).serialize(mask=True) + Frame(Opcode.CONT, b"A").serialize(
        mask=True
    )
    last = read(wire, masked=True, text_limit=None)[-1]
    assert isinstance(last, Event)
    assert last.code == CloseCode.INVALID_DATA


@MASKS
@given(payload=payloads, cut=st.integers(0, 200))
def test_writes_what_the_oracle_reads(masked: bool, payload: bytes, cut: int) -> None:
    """One message, whole, of one piece or of two."""
    pieces = (payload[:cut], payload[cut:]) if cut < len(payload) else (payload,)
    wire = b"".join((masked_frame if masked else plain_frame)(pieces, len(payload)))
    assert oracle(wire, masked=masked) == ([payload] if payload else [], False)


@MASKS
@pytest.mark.parametrize("opcode", [TEXT, PING, PONG])
def test_writes_control_frames(masked: bool, opcode: int) -> None:
    """Text, ping and pong."""
    wire = control_frame(opcode, b"hello", next(mask_keys()) if masked else b"")
    assert oracle(wire, masked=masked) == ([Event(opcode, b"hello")], False)


def test_mask_keys_do_not_repeat() -> None:
    """RFC 6455 section 5.3: unpredictable. Of 5000 random ones a repeat is as likely as 1 in 300."""
    keys = list(itertools.islice(mask_keys(), 5000))
    assert {len(key) for key in keys} == {4}
    assert len(set(keys)) > 4990
