"""Drives traffic through an echo and checks every byte of it.

    python -m demo.traffic ADDRESS:PORT [--streams N] [--size MIB] [--seconds N] [--json]

Several streams at once, each sending random blocks and reading them back at the same time;
SHA-256 on both sides. Then round trips of 100 bytes on one quiet stream. Exit code 1 if
anything was lost, duplicated, changed or reset.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import socket
import statistics
import sys
import threading
import time
from dataclasses import asdict, dataclass, field

CHUNK = 128 * 1024
PATIENCE = 60.0  # seconds without any progress: longer than any pause that a resume may take
PINGS = 500


@dataclass
class Report:
    """The results. `problems` is empty if everything was fine."""

    streams: int = 0
    bytes_verified: int = 0  # each counted once, after its way there and back
    seconds: float = 0.0
    megabytes_per_second: float = 0.0  # each way
    round_trip_p50_ms: float = 0.0
    round_trip_p99_ms: float = 0.0
    longest_pause_s: float = 0.0  # between two reads of any stream
    problems: list[str] = field(default_factory=list)


class _Stream:
    """One connection: a thread sends, another reads back."""

    def __init__(self, address: tuple[str, int], size: int, seconds: float, seed: int) -> None:
        self._address = address
        self._size = size
        self._seconds = seconds  # to spread the sending over, so that it lasts
        self._random = random.Random(seed)
        self._sent = hashlib.sha256()
        self._got = hashlib.sha256()
        self.received = 0
        self.longest_pause = 0.0
        self.problem = ""

    def run(self) -> None:
        """Send and read all of it."""
        try:
            with socket.create_connection(self._address, timeout=PATIENCE) as sock:
                sender = threading.Thread(target=self._send, args=(sock,))
                sender.start()
                self._receive(sock)
                sender.join()
            if not self.problem and (self.received != self._size or self._sent.digest() != self._got.digest()):
                self.problem = f"{self.received} of {self._size} bytes came back, or others"
        except OSError as exc:
            self.problem = self.problem or f"broken after {self.received} bytes: {exc}"

    def _send(self, sock: socket.socket) -> None:
        block = self._random.randbytes(CHUNK)
        begun, left = time.monotonic(), self._size
        try:
            while left:
                data = block[: min(left, CHUNK)]
                block = block[1:] + block[:1]  # no two blocks alike
                self._sent.update(data)
                sock.sendall(data)
                left -= len(data)
                ahead = self._seconds * (1 - left / self._size) - (time.monotonic() - begun)
                if ahead > 0:
                    time.sleep(ahead)
            sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self.problem = f"broken while sending: {exc}"

    def _receive(self, sock: socket.socket) -> None:
        last = time.monotonic()
        while data := sock.recv(CHUNK):
            now = time.monotonic()
            self.longest_pause = max(self.longest_pause, now - last)
            last = now
            self._got.update(data)
            self.received += len(data)


def round_trips(address: tuple[str, int]) -> list[float]:
    """Milliseconds of round trips of 100 bytes on one connection."""
    out = []
    with socket.create_connection(address, timeout=PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(PINGS):
            message = b"%099d\n" % number
            begun = time.perf_counter()
            sock.sendall(message)
            answer = b""
            while len(answer) < len(message):
                data = sock.recv(len(message) - len(answer))
                if not data:
                    raise ConnectionError("the connection ended")
                answer += data
            if answer != message:
                raise ConnectionError("another answer than the question")
            out.append((time.perf_counter() - begun) * 1000)
    return out


def drive(address: tuple[str, int], *, streams: int, size: int, seconds: float = 0.0) -> Report:
    """Send `size` bytes on each of so many streams at once, over at least `seconds`, and then ping."""
    report = Report(streams=streams)
    all_streams = [_Stream(address, size, seconds, seed) for seed in range(streams)]
    threads = [threading.Thread(target=stream.run) for stream in all_streams]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.seconds = round(time.monotonic() - begun, 3)
    report.problems = [f"stream {n}: {s.problem}" for n, s in enumerate(all_streams) if s.problem]
    report.bytes_verified = sum(stream.received for stream in all_streams if not stream.problem)
    report.megabytes_per_second = round(report.bytes_verified / report.seconds / 1e6, 1)
    report.longest_pause_s = round(max(stream.longest_pause for stream in all_streams), 3)
    try:
        times = round_trips(address)
        report.round_trip_p50_ms = round(statistics.median(times), 3)
        report.round_trip_p99_ms = round(statistics.quantiles(times, n=100)[98], 3)
    except OSError as exc:
        report.problems.append(f"round trips: {exc}")
    return report


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m demo.traffic", description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("address", metavar="ADDRESS:PORT")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--size", type=float, default=8, help="MiB a stream (default: 8)")
    parser.add_argument("--seconds", type=float, default=0, help="spread the sending over so long")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    flags = parser.parse_args()
    host, _, port = flags.address.rpartition(":")
    size = int(flags.size * (1 << 20))
    report = drive((host.strip("[]"), int(port)), streams=flags.streams, size=size, seconds=flags.seconds)
    if flags.json:
        print(json.dumps(asdict(report)))
    else:
        show(report)
    return 1 if report.problems else 0


def show(report: Report) -> None:
    """Print the report for people."""
    print(f"  streams      {report.streams} at once, both directions")
    print(f"  verified     {report.bytes_verified / (1 << 20):.0f} MiB there and back, equal SHA-256")
    print(f"  throughput   {report.megabytes_per_second:.0f} MB/s each way, for {report.seconds:.1f} s")
    print(f"  round trip   {report.round_trip_p50_ms:.2f} ms (p50), {report.round_trip_p99_ms:.2f} ms (p99)")
    for problem in report.problems:
        print(f"  PROBLEM      {problem}")


if __name__ == "__main__":
    sys.exit(main())
