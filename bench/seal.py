"""What a seal costs: `python3.13 -m bench.seal`. CPU time alone, so that other work on the machine counts little."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tunnel_core.errors import TunnelError
from tunnel_core.net.buffers import FRAME_SIZE
from tunnel_core.protocol.local import Payload
from tunnel_core.protocol.seal.keys import Keyring, derive
from tunnel_core.protocol.seal.local import SealedLocal
from tunnel_core.protocol.seal.tls import ClientTls, HostTls, require

SECRET: Final = b"a-secret-of-the-benchmark's-own-32-bytes"
ROUNDS: Final = 7
IDLE: Final = 2000  # pairs of ends that are kept


class _Local:
    """A local socket that takes everything."""

    pending = 0

    def write(self, pieces: Sequence[Payload]) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def set_window(self, window: int) -> None: ...
    def hold(self, reason: int) -> None: ...
    def release(self, reason: int) -> None: ...


class _Stream:
    """A stream that keeps what it is to carry."""

    credit = 1 << 20

    def __init__(self) -> None:
        self.said: list[Payload] = []

    def local_data(self, data: Payload) -> None:
        self.said.append(data)

    def local_eof(self) -> None: ...
    def local_broken(self, reason: str) -> None: ...
    def local_drained(self) -> None: ...


class _Pair:
    """Both ends of a sealed stream, joined by hand."""

    def __init__(self, client: ClientTls, host: HostTls) -> None:
        self.near, self.far = _Stream(), _Stream()
        self.client = SealedLocal(client, _Local(), largest=FRAME_SIZE, failed=_failed)
        self.host = SealedLocal(host, _Local(), largest=FRAME_SIZE, failed=_failed)
        self.client.carrier, self.host.carrier = self.near, self.far
        self.client.start()
        self.host.write([self.near.said.pop()])
        self.client.write([self.far.said.pop()])
        self.host.write([self.near.said.pop()])

    def there(self, data: Payload) -> None:
        self.client.local_data(data)
        self.host.write([self.near.said.pop()])

    def back(self, data: Payload) -> None:
        self.host.local_data(data)
        self.client.write([self.far.said.pop()])


def _failed(error: TunnelError) -> None:
    raise error


def _best(step: Callable[[], object], times: int) -> float:
    """The least CPU microseconds of a step, over several rounds of so many."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            step()
        best = min(best, (time.process_time() - began) / times)
    return best * 1e6


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    """Measure, and print a line each."""
    require()
    client = ClientTls(derive(SECRET, "mc", "owner"))
    host = HostTls(Keyring([SECRET], "mc"))
    print(f"handshake, both ends: {_best(lambda: _Pair(client, host), 200) / 1000:.2f} ms")
    pair = _Pair(client, host)
    small, large = bytes(100), memoryview(bytearray(pair.client.credit))

    def trip() -> None:
        pair.there(small)
        pair.back(small)

    print(f"100 bytes there and back: {_best(trip, 3000):.1f} µs")
    print(f"{len(large):,} bytes one way: {_best(lambda: pair.there(large), 300):.0f} µs")
    before = _resident()
    kept = [_Pair(client, host) for _ in range(IDLE)]
    print(f"an idle end: {(_resident() - before) / len(kept) / 2 / 1024:.1f} KiB")


if __name__ == "__main__":
    main()
