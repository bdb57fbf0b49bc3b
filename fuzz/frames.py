"""Fuzzes the frame reader: any bytes, in any pieces.

    python -m fuzz.frames CORPUS [libFuzzer options]

It must raise nothing, read the same however the bytes are cut, hold no more than a message's
worth, and find a violation wherever `websockets` finds one.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["tunnel_core.protocol"]):
    from tunnel_core.protocol.frames import Event, FrameReader

from websockets.protocol import CLIENT, OPEN, SERVER, Protocol

TEXT_LIMIT = 4096


def read(wire: bytes, *, masked: bool, raw: bool, piece: int, most: int = sys.maxsize) -> list[bytes | Event]:
    """What a reader makes of `wire` in pieces of this size; payload joined where nothing stood between."""
    reader = FrameReader(masked=masked, text_limit=None if raw else TEXT_LIMIT)
    out: list[bytes | Event] = []
    for start in range(0, len(wire), piece):
        rest = memoryview(bytearray(wire[start : start + piece]))
        while rest:
            items, _, _, consumed = reader.feed(rest, most)
            for item in items:
                if isinstance(item, Event):
                    out.append(item)
                elif out and isinstance(out[-1], bytes):
                    out[-1] += bytes(item)
                else:
                    out.append(bytes(item))
            rest = rest[consumed:]
    return out


def same(whole: list[bytes | Event], cut: list[bytes | Event]) -> None:
    """The events are the same; the payload too, but that more of a message that breaks off may have passed."""
    assert [item for item in whole if isinstance(item, Event)] == [item for item in cut if isinstance(item, Event)]
    last = whole[-1] if whole else None
    if isinstance(last, Event) and last.violation:
        passed = b"".join(item for item in cut if isinstance(item, bytes))
        assert passed.startswith(b"".join(item for item in whole if isinstance(item, bytes)))
    else:
        assert whole == cut, (whole, cut)


def one_input(data: bytes) -> None:
    """The first byte chooses the reader and the pieces, the rest is the wire."""
    if not data:
        return
    masked, raw, piece = bool(data[0] & 1), bool(data[0] & 2), 1 + (data[0] >> 2)
    wire = data[1:]
    whole = read(wire, masked=masked, raw=raw, piece=len(wire) or 1)
    same(whole, read(wire, masked=masked, raw=raw, piece=piece, most=1 + piece % 5))
    last = whole[-1] if whole else None
    found = isinstance(last, Event) and (last.violation or last.opcode == 8)
    oracle = Protocol(SERVER if masked else CLIENT, state=OPEN, max_size=None)
    oracle.receive_data(wire)
    if oracle.parser_exc is not None and not isinstance(oracle.parser_exc, EOFError):
        assert found, (oracle.parser_exc, whole)


def main() -> None:
    """Run until the options of libFuzzer say stop."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
