"""The application in front of a tunnel: measures what goes through. Each runs in a process of its own."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from ..errors import BenchError, Corrupted
from ..summary import percentile
from .sink import BLOCK, COUNT, DOWN, ECHO, HELD, UP

Address = tuple[str, int]
Probe = Callable[[], float]  # CPU seconds so far of what is measured

PATIENCE = 30.0  # seconds without any progress
MESSAGE = 100  # bytes
BUFFER = 1 << 20
BATCH = 50  # connections that are opened at once
BREATH = 0.05  # seconds between an answer and the next question, where they are paced
WARM = 0.3  # seconds before bulk is counted: buffers fill


class Shared(Protocol):
    """A number that two processes see (multiprocessing.Value)."""

    value: float


@dataclass(frozen=True, slots=True)
class Rate:
    """How much in how long, and what it cost."""

    count: float  # bytes, round trips, connections
    seconds: float
    cpu: float = 0.0  # seconds

    @property
    def per_second(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_each(self) -> float:
        """CPU seconds of one."""
        return self.cpu / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Times:
    """Microseconds of round trips, and CPU seconds of one."""

    p50: float
    p90: float
    p99: float
    count: int
    cpu_each: float = 0.0

    @staticmethod
    def of(seconds: list[float], cpu: float = 0.0) -> Times:
        """Sum up; raises BenchError if there is nothing to sum up."""
        if not seconds:
            raise BenchError("not one round trip came back")
        p50, p90, p99 = (percentile(seconds, share) * 1e6 for share in (0.5, 0.9, 0.99))
        return Times(p50, p90, p99, len(seconds), cpu / len(seconds))


def connect(address: Address, kind: bytes = b"") -> socket.socket:
    """A connection on which the sink does `kind`."""
    sock = socket.create_connection(address, timeout=PATIENCE)
    # Of the kernel, not of Python, which polls before each call if it has a timeout.
    sock.setblocking(True)
    for timeout in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, timeout, struct.pack("@ll", int(PATIENCE), 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(kind)
    if kind == ECHO:
        read_exactly(sock, 1)
    return sock


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes. Raises BenchError if the connection ends before."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise BenchError("a connection ended early")
        data += more
    return data


def echo_intact(address: Address, size: int) -> None:
    """Send random bytes and read them back at the same time. Raises Corrupted if others come."""
    block = random.randbytes(1 << 20)
    sent, got = hashlib.sha256(ECHO), hashlib.sha256()
    to_send, to_read = size, size + 1
    with connect(address) as sock:
        sock.sendall(ECHO)
        sock.setblocking(False)
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        while to_read:
            poll.register(sock, select.POLLIN | (select.POLLOUT if to_send else 0))
            if time.monotonic() > deadline or not poll.poll(PATIENCE * 1000):
                raise BenchError(f"{to_read} of {size} bytes did not come back within {PATIENCE:.0f} s")
            try:
                if to_send:
                    offset = (size - to_send) % len(block)
                    count = sock.send(memoryview(block)[offset : offset + min(to_send, BLOCK)])
                    sent.update(memoryview(block)[offset : offset + count])
                    to_send -= count
            except BlockingIOError:
                pass
            try:
                data = sock.recv(min(to_read, BLOCK))
            except BlockingIOError:
                continue
            if not data:
                raise BenchError(f"the connection ended {to_read} bytes early")
            got.update(data)
            to_read -= len(data)
    if sent.digest() != got.digest():
        raise Corrupted(f"the {size} bytes that came back are others than were sent")


def download(address: Address, streams: int, seconds: float, probe: Probe, warm: float = WARM) -> Rate:
    """Read `streams` downloads at once, `warm` seconds before it counts."""
    socks = [connect(address, DOWN) for _ in range(streams)]
    return _drain(socks, seconds, probe, warm)


def held_download(address: Address, seconds: float) -> Rate:
    """Read one download that the sink holds to its rate."""
    return _drain([connect(address, HELD)], seconds, lambda: 0.0, WARM)


def _drain(socks: list[socket.socket], seconds: float, probe: Probe, warm: float) -> Rate:
    buffer = bytearray(BUFFER)
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    by_fd = {sock.fileno(): sock for sock in socks}

    def until(end: float) -> int:
        count = 0
        while time.monotonic() < end:
            ready = poll.poll(PATIENCE * 1000)
            if not ready:
                raise BenchError(f"nothing came for {PATIENCE:.0f} s")
            for fd, _ in ready:
                size = by_fd[fd].recv_into(buffer)
                if not size:
                    raise BenchError("a download ended early")
                count += size
        return count

    until(time.monotonic() + warm)
    cpu, begun = probe(), time.monotonic()
    count = until(begun + seconds)
    taken = time.monotonic() - begun
    rate = Rate(count, taken, probe() - cpu)
    close(socks)
    return rate


def upload(address: Address, seconds: float, probe: Probe, warm: float = WARM) -> Rate:
    """Write one stream. What counts is what the sink says that it has, and when it had it."""
    block = random.randbytes(BLOCK)
    counts = b""
    with connect(address, UP) as sock:
        begun = time.monotonic()
        first: tuple[float, int] | None = None
        cpu = 0.0
        while True:
            sock.sendall(block)
            now = time.monotonic()
            try:
                data = sock.recv(BLOCK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if now > begun + warm + seconds + PATIENCE:
                    raise BenchError("the upload does not arrive") from None
                continue
            if not data:
                raise BenchError("the upload ended early")
            counts += data
            whole = len(counts) // COUNT.size * COUNT.size
            for count, then in COUNT.iter_unpack(counts[:whole]):
                if first is None and then >= begun + warm:
                    first, cpu = (then, count), probe()
                elif first is not None and then >= first[0] + seconds:
                    return Rate(count - first[1], then - first[0], probe() - cpu)
            counts = counts[whole:]


def ping(address: Address, seconds: float, probe: Probe) -> Times:
    """Round trips of MESSAGE bytes on one connection, one after the other."""
    message = random.randbytes(MESSAGE)
    times: list[float] = []
    with connect(address, ECHO) as sock:
        for _ in range(20):  # the first ones warm caches up
            _trip(sock, message)
        cpu, end = probe(), time.monotonic() + seconds
        while time.monotonic() < end:
            times.append(_trip(sock, message))
        return Times.of(times, probe() - cpu)


def _trip(sock: socket.socket, message: bytes) -> float:
    begun = time.perf_counter()
    sock.sendall(message)
    answer = sock.recv(MESSAGE)
    if len(answer) < MESSAGE:
        answer += read_exactly(sock, MESSAGE - len(answer))
    taken = time.perf_counter() - begun
    if answer != message:
        raise Corrupted("another answer than the question")
    return taken


def pings(address: Address, streams: int, seconds: float) -> Times:
    """Round trips on `streams` connections at once, each one after the other, with a breath between: few, far ones."""
    message = random.randbytes(MESSAGE)
    socks = {sock.fileno(): sock for sock in (connect(address, ECHO) for _ in range(streams))}
    begun = dict.fromkeys(socks, 0.0)
    left = dict.fromkeys(socks, 0)
    times: list[float] = []
    poll = select.poll()
    for sock in socks.values():
        poll.register(sock, select.POLLIN)
    end = time.monotonic() + seconds
    due = {fd: time.monotonic() + BREATH * number / streams for number, fd in enumerate(socks)}
    while time.monotonic() < end or due.keys() != socks.keys():
        now = time.monotonic()
        if now > end + PATIENCE:
            raise BenchError(f"a round trip took longer than {PATIENCE:.0f} s")
        for fd in [fd for fd, when in due.items() if when <= now < end]:
            del due[fd]
            begun[fd], left[fd] = now, MESSAGE
            socks[fd].sendall(message)
        for fd, _ in poll.poll(1):
            data = socks[fd].recv(MESSAGE)
            if not data:
                raise BenchError("a connection ended early")
            left[fd] -= len(data)
            if not left[fd]:
                times.append(time.monotonic() - begun[fd])
                due[fd] = time.monotonic() + BREATH
    return Times.of(times)


def connections(address: Address, seconds: float) -> tuple[Rate, float]:
    """Connect, have one byte echoed, close: one after the other. Also the median's microseconds."""
    times = []
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        before = time.perf_counter()
        connect(address, ECHO).close()
        times.append(time.perf_counter() - before)
    return Rate(len(times), time.monotonic() - begun), percentile(times, 0.5) * 1e6


def trips(address: Address, streams: int, seconds: float, probe: Probe) -> Rate:
    """Round trips of MESSAGE bytes on many connections at once, each one after the other."""
    message = random.randbytes(MESSAGE)
    socks = {sock.fileno(): sock for sock in (connect(address, ECHO) for _ in range(streams))}
    left = dict.fromkeys(socks, MESSAGE)
    poll = select.epoll()
    for sock in socks.values():
        poll.register(sock, select.EPOLLIN)
        sock.sendall(message)

    def until(end: float) -> int:
        count = 0
        while time.monotonic() < end:
            ready = poll.poll(PATIENCE)
            if not ready:
                raise BenchError(f"nothing came for {PATIENCE:.0f} s")
            for fd, _ in ready:
                sock = socks[fd]
                size = len(sock.recv(MESSAGE))
                if not size:
                    raise BenchError("a connection ended early")
                left[fd] -= size
                if not left[fd]:
                    left[fd] = MESSAGE
                    count += 1
                    sock.send(message)
        return count

    until(time.monotonic() + WARM)
    cpu, begun = probe(), time.monotonic()
    count = until(begun + seconds)
    rate = Rate(count, time.monotonic() - begun, probe() - cpu)
    close(socks.values())
    return rate


def answers_after(address: Address, streams: int, back: Shared, ready: Shared) -> list[float]:
    """Questions and answers on `streams` connections, until each has had an answer after the time `back`.

    `ready` becomes 1 when all have had one answer; somebody else then sets `back`. Returns
    for each connection the seconds from `back` to its first answer.
    """
    socks = {sock.fileno(): sock for sock in (connect(address, ECHO) for _ in range(streams))}
    asked = dict.fromkeys(socks, b"")
    left = dict.fromkeys(socks, b"")  # of the answer
    first: dict[int, float] = {}
    answered: set[int] = set()
    due = dict.fromkeys(socks, 0.0)
    poll = select.epoll()
    for sock in socks.values():
        poll.register(sock, select.EPOLLIN)
    deadline = time.monotonic() + 2 * PATIENCE
    while len(first) < streams:
        now = time.monotonic()
        if now > deadline:
            raise BenchError(f"{streams - len(first)} of {streams} streams did not come back")
        for fd in [fd for fd, when in due.items() if when <= now]:
            del due[fd]
            asked[fd] = left[fd] = random.randbytes(MESSAGE)
            socks[fd].sendall(asked[fd])
        for fd, _ in poll.poll(0.005):
            data = socks[fd].recv(MESSAGE)
            if not data:
                raise BenchError("a stream was ended")
            if not left[fd].startswith(data):
                raise Corrupted("another answer than the question")
            left[fd] = left[fd][len(data) :]
            if left[fd]:
                continue
            now = time.monotonic()
            due[fd] = now + BREATH
            answered.add(fd)
            if 0 < back.value < now:
                first.setdefault(fd, now - back.value)
        ready.value = float(len(answered) == streams)
    return list(first.values())


def open_idle(address: Address, streams: int, patience: float) -> list[socket.socket]:
    """Open `streams` connections and see one byte through each. Raises BenchError after `patience` seconds."""
    deadline = time.monotonic() + patience
    socks: list[socket.socket] = []
    try:
        while len(socks) < streams and time.monotonic() < deadline:
            batch = [connect(address) for _ in range(min(BATCH, streams - len(socks)))]
            socks += batch
            for sock in batch:
                sock.sendall(ECHO)
            for sock in batch:
                read_exactly(sock, 1)
    except BaseException:
        close(socks)
        raise
    if len(socks) < streams:
        close(socks)
        raise BenchError(f"only {len(socks)} of {streams} streams opened within {patience:.0f} s")
    return socks


def close(socks: Iterable[socket.socket]) -> None:
    """Close all of them."""
    for sock in socks:
        sock.close()
