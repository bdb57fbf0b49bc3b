"""Legs that speak WebSocket themselves, as cheaply as can be: what is measured is the relay between them."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import BenchError, Corrupted
from ..workers import Worker
from .streams import BUFFER, MESSAGE, PATIENCE, WARM, Address, Probe, Rate, Times, connect

LARGE = 64 * 1024  # bytes of a frame in `flood`
SILENCE = 2.0  # seconds after which no message can still be on its way
MASK = b"\x37\xfa\x21\x3d"

_UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(payload: bytes) -> bytes:
    """`payload` as one masked binary frame: made once, sent often."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x82, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x82, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x82, 0x80 | 127, size)
    mask = (MASK * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return head + MASK + masked.to_bytes(size, "big")


class Unframer:
    """Takes a server's frames apart."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The payload of all data frames that are whole now; control frames are passed over."""
        if not self._rest and len(data) == MESSAGE + 2 and data[0] == 0x82:
            return data[2:]  # by far the most
        data = self._rest + data
        at, payload = 0, []
        while len(data) >= at + 2:
            start, size = at + 2, data[at + 1]
            if size >= 126:
                start += 2 if size == 126 else 8
                if len(data) < start:
                    break
                size = int.from_bytes(data[at + 2 : start], "big")
            if len(data) < start + size:
                break
            if data[at] & 0x0F < 8:
                payload.append(data[start : start + size])
            at = start + size
        self._rest = data[at:]
        return b"".join(payload)


class Leg:
    """One leg."""

    def __init__(self, address: Address, path: str) -> None:
        self.sock = connect(address)
        self.unframer = Unframer()
        self.sock.sendall(_UPGRADE.format(path=path).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.sock.recv(4096)
            if not data:
                raise BenchError(f"the relay ended the handshake: {head[:100]!r}")
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise BenchError(f"the relay refused a leg: {head[:100]!r}")
        self.early = self.unframer.feed(rest)


def pair(address: Address) -> tuple[Leg, Leg]:
    """A host leg and a client leg, joined by the relay."""
    return Leg(address, "/host/bench"), Leg(address, "/client/bench")


def intact(address: Address, size: int) -> None:
    """Send random bytes from a client leg to a host leg. Raises Corrupted if others arrive."""
    host, client = pair(address)
    sent = random.randbytes(size)
    with Worker(client.sock.sendall, b"".join(frame(sent[at : at + 10_000]) for at in range(0, size, 10_000))):
        got = [host.early]
        while sum(map(len, got)) < size:
            data = host.sock.recv(BUFFER)
            if not data:
                raise BenchError("a leg ended early")
            got.append(host.unframer.feed(data))
    host.sock.close()
    client.sock.close()
    if b"".join(got) != sent:
        raise Corrupted(f"the {size} bytes that arrived are others than were sent")


@dataclass(frozen=True, slots=True)
class Paced:
    """Messages at a pace: how many a second there were, the CPU seconds of one, how long they took."""

    rate: float
    cpu_each: float
    times: Times
    memory: int  # bytes of the relay meanwhile


def paced(
    address: Address, pairs: int, pace: float, seconds: float, probe: Probe, memory: Callable[[], int], at_once: int = 1
) -> Paced:
    """Each leg of `pairs` sends `pace` messages a second, evenly spread over time and legs.

    It sends `at_once` in one write, as what a tick of a game had to say.

    One process sends, another receives, so that neither keeps the other from looking at the clock.
    """
    legs = [leg for _ in range(pairs) for leg in pair(address)]
    held = memory()
    with Worker(_receive, legs) as receiver, Worker(_send, legs, pace, seconds, probe, at_once) as sender:
        while not sender.wait(0.5):
            held = memory()
        sent, rate, cpu_each = sender.result(PATIENCE)
        received = receiver.result(PATIENCE)
    times = []
    for number, there in enumerate(sent):
        back = received[number ^ 1]  # what a leg sent, the other of its pair received
        if len(back) < len(there):
            raise BenchError(f"{len(there) - len(back)} messages were lost")
        times += [end - begin for begin, end in zip(there, back, strict=False)]
    for leg in legs:
        leg.sock.close()
    return Paced(rate, cpu_each, Times.of(times), held)


def _send(
    legs: list[Leg], pace: float, seconds: float, probe: Probe, at_once: int
) -> tuple[list[array[float]], float, float]:
    messages = frame(random.randbytes(MESSAGE)) * at_once
    sent: list[array[float]] = [array("d") for _ in legs]
    rate = len(legs) * pace / at_once
    begun = now = time.monotonic()
    number = first = 0
    cpu = start = 0.0
    while now < begun + WARM + seconds:
        if not first and now > begun + WARM:
            first, start, cpu = number, now, probe()
        due = int((now - begun) * rate)
        while number < due:
            leg = number % len(legs)
            sent[leg].extend([time.monotonic()] * at_once)
            legs[leg].sock.sendall(messages)
            number += 1
        time.sleep(max(0.0, begun + (number + 1) / rate - time.monotonic()))
        now = time.monotonic()
    count = (number - first) * at_once
    return sent, count / (now - start), (probe() - cpu) / count


def _receive(legs: list[Leg]) -> list[array[float]]:
    received: list[array[float]] = [array("d") for _ in legs]
    got = [0] * len(legs)
    numbers = {leg.sock.fileno(): number for number, leg in enumerate(legs)}
    poll = select.epoll()
    for leg in legs:
        poll.register(leg.sock, select.EPOLLIN)
    last = time.monotonic()  # when a message came; pings come at any time
    while time.monotonic() < last + SILENCE:
        for fd, _ in poll.poll(SILENCE):
            number = numbers[fd]
            data = legs[number].sock.recv(BUFFER)
            if not data:
                raise BenchError("a leg ended early")
            before, got[number] = got[number] // MESSAGE, got[number] + len(legs[number].unframer.feed(data))
            if got[number] // MESSAGE > before:
                last = time.monotonic()
                received[number].extend([last] * (got[number] // MESSAGE - before))
    return received


def flood(address: Address, seconds: float, probe: Probe) -> Rate:
    """Frames of LARGE bytes over one pair as fast as they go: bytes that arrived, with the few of their headers."""
    host, client = pair(address)
    buffer = bytearray(BUFFER)
    with Worker(_flood, client.sock):

        def until(end: float) -> int:
            count = 0
            while time.monotonic() < end:
                size = host.sock.recv_into(buffer)
                if not size:
                    raise BenchError("a leg ended early")
                count += size
            return count

        until(time.monotonic() + WARM)
        cpu, begun = probe(), time.monotonic()
        count = until(begun + seconds)
        rate = Rate(count, time.monotonic() - begun, probe() - cpu)
    host.sock.close()
    client.sock.close()
    return rate


def _flood(sock: socket.socket) -> None:
    block = frame(random.randbytes(LARGE))
    while True:
        sock.sendall(block)
