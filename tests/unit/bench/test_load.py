"""The bench's own WebSocket frames, sink and generators."""

from __future__ import annotations

import random
import socket
import time

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from bench.errors import BenchError, Corrupted
from bench.link import mirror
from bench.load import sink, streams
from bench.load.legs import Unframer, frame
from bench.load.streams import Address
from bench.stage import free_port
from bench.workers import Worker, call


@pytest.mark.parametrize("size", [0, 1, 100, 125, 126, 65535, 65536])
def test_frames_are_what_a_server_understands(size: int) -> None:
    """By websockets' own parser."""
    payload = random.Random(size).randbytes(size)
    reader = StreamReader()
    reader.feed_data(frame(payload))
    parser = Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as stop:
        next(parser)
    assert (stop.value.value.opcode, bytes(stop.value.value.data)) == (Opcode.BINARY, payload)


@pytest.mark.parametrize("step", [1, 3, 102, 5000])
def test_payload_comes_out_of_frames_however_they_are_split(step: int) -> None:
    """Of a server's data frames; pings between them are passed over."""
    payloads = [random.Random(size).randbytes(size) for size in (100, 0, 7, 126, 70_000, 100)]
    data = b""
    for payload in payloads:
        data += Frame(Opcode.BINARY, payload).serialize(mask=False)
        data += Frame(Opcode.PING, b"there?").serialize(mask=False)
    unframer = Unframer()
    got = b"".join(unframer.feed(data[at : at + step]) for at in range(0, len(data), step))
    assert got == b"".join(payloads)


def test_the_sink_and_the_generators() -> None:
    """Without a tunnel between them every figure has a value, and content is intact."""
    with sink.listen("127.0.0.1") as listener, Worker(sink.serve, listener):
        address: Address = listener.getsockname()
        streams.echo_intact(address, 3_000_000)
        assert call(60, streams.download, address, 2, 0.1, float, 0.1).count > 0
        assert call(60, streams.upload, address, 0.1, float, 0.1).count > 0
        assert call(60, streams.ping, address, 0.1, float).p50 > 0
        assert call(60, streams.pings, address, 3, 0.1).count >= 3
        assert call(60, streams.trips, address, 3, 0.1, float).count > 0
        rate, p50 = call(60, streams.connections, address, 0.1)
        assert rate.count > 0
        assert p50 > 0
        streams.close(streams.open_idle(address, 120, 60))


def test_other_bytes_are_noticed() -> None:
    """An echo that changes one of them."""
    with sink.listen("127.0.0.1") as listener, Worker(_lies, listener), pytest.raises(Corrupted):
        call(60, streams.echo_intact, listener.getsockname(), 100_000)


def test_a_worker_that_fails_says_so() -> None:
    """Its error comes out of `result`; one that takes too long is ended."""
    with pytest.raises(BenchError, match="refused"):
        call(60, streams.connect, ("127.0.0.1", free_port()))
    with pytest.raises(BenchError, match="within"):
        call(0.1, _never)


def test_a_mirrored_packet_goes_back() -> None:
    """Source and destination change places, and nothing else."""
    packet = bytes(12) + bytes((198, 18, 0, 1)) + bytes((198, 18, 0, 2)) + b"rest"
    assert mirror(packet) == bytes(12) + bytes((198, 18, 0, 2)) + bytes((198, 18, 0, 1)) + b"rest"
    assert mirror(mirror(packet)) == packet


def _lies(listener: socket.socket) -> None:
    sock, _ = listener.accept()
    data = bytearray(sock.recv(1))
    while data:
        sock.sendall(data)
        data = bytearray(sock.recv(65536))
        if data:
            data[0] ^= 1


def _never() -> None:
    while True:
        time.sleep(1)
