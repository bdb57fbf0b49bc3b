"""What a leg keeps for a peer that does not read: a transport that a test has in its hands."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
from tunnel_core.net.buffers import READ_SIZE
from tunnel_core.net.leg import Leg
from tunnel_core.net.liveness import LegMonitor
from tunnel_core.net.outgoing import HIGH_WATER, MANY_WRITES, MOST_UNSENT
from tunnel_core.protocol.control import EARLY_DATA
from tunnel_core.protocol.frames import FrameReader, control_frame
from websockets.frames import Opcode


class Transport:
    """A socket's transport whose peer takes bytes when the test says so."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self._unsent = bytearray()
        self._paused = False
        self._closing = False
        self._high = 0
        self.writes = 0  # that wait
        self.taken = b""

    def set_write_buffer_limits(self, high: int, low: int = 0) -> None:
        self._high = high
        self._pause()

    def _pause(self) -> None:
        if len(self._unsent) > self._high and not self._paused:
            self._paused = True
            self._leg.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes) -> None:
        assert not self._closing
        self._unsent += data
        self.writes += 1
        self._pause()

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def abort(self) -> None:
        self._unsent.clear()
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._leg.connection_lost, None)

    def takes_all(self) -> None:
        """The peer reads all that waits."""
        self.taken, self._unsent, self.writes = bytes(self._unsent), bytearray(), 0
        if self._paused:
            self._paused = False
            self._leg.resume_writing()


class Noted(Leg):
    """A leg that notes how it ended."""

    ends: list[tuple[int, str]]

    def __init__(self, *, client: bool) -> None:
        super().__init__(LegMonitor(lambda _: None, lambda _: None), client=client, text_limit=4096)
        self.ends = []

    def on_end(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))


def connected(*, client: bool = False) -> tuple[Noted, Transport]:
    leg = Noted(client=client)
    transport = Transport(leg)
    leg.connection_made(cast("asyncio.Transport", transport))
    return leg, transport


async def turn() -> None:
    """Let what is corked leave."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_only_the_latest_ping_of_a_peer_that_does_not_read_is_answered() -> None:
    """Pings without end cost no more than the bound of everything else, and all but one are forgotten."""
    leg, transport = connected()
    for number in range(3000):
        leg.feed(memoryview(control_frame(Opcode.PING, b"%0125d" % number, b"mask")))
        await turn()
    assert 0 < leg.unsent <= HIGH_WATER
    transport.takes_all()
    await turn()
    transport.takes_all()
    (pong,), *_ = FrameReader(masked=False, text_limit=None).feed(transport.taken)
    assert pong == (Opcode.PONG, b"%0125d" % 2999, 0, False)
    assert not leg.ended


@pytest.mark.parametrize("client", [True, False])
async def test_tiny_frames_that_wait_are_few(client: bool) -> None:
    """What a loop keeps for each write is many times a byte: long before they are many bytes the leg is congested."""
    leg, transport = connected(client=client)

    def send() -> None:
        leg.send((b"x",), 1)

    for _ in range(3 * MANY_WRITES):
        send()
        if leg.congested:
            break
    assert transport.writes <= 2 * MANY_WRITES
    transport.takes_all()
    assert not leg.congested
    # A socket that takes what it is given may be given any number.
    for _ in range(10 * MANY_WRITES):
        send()
        transport.takes_all()
        assert not leg.congested
    leg.send((bytes(HIGH_WATER),), HIGH_WATER)
    assert leg.congested


async def test_what_honest_feeders_may_add_to_a_congested_leg_fits() -> None:
    """What is on its way when they are told to pause: a read, and what waited for the pairing with one of its own."""
    assert HIGH_WATER + READ_SIZE + EARLY_DATA + READ_SIZE <= MOST_UNSENT


def texts(leg: Leg) -> None:
    leg.send_text(bytes(4000))


def lingering_texts(leg: Leg) -> None:
    leg.send_text(bytes(100), linger=True)


def pieces(leg: Leg) -> None:
    leg.send((bytes(5000), bytes(5000)), 10_000)


def small_pieces(leg: Leg) -> None:
    leg.send((bytes(500),), 500)


def data(leg: Leg) -> None:
    leg.send((bytes(100_000),), 100_000)


@pytest.mark.parametrize("sends", [texts, lingering_texts, pieces, small_pieces, data])
async def test_a_leg_with_too_much_unsent_is_lost(sends: Callable[[Leg], Any]) -> None:
    """Whatever it is that waits: the memory is free at once, and the owner learns of it in the next turn."""
    leg, _ = connected(client=sends is data)
    most = 0
    for count in itertools.count(1):
        sends(leg)
        if not leg.open:
            break
        most = max(most, leg.unsent)
        if not count % 20:
            await turn()  # the others wait corked meanwhile
    assert MOST_UNSENT < most <= MOST_UNSENT + 128 * 1024
    assert leg.unsent == 0
    assert not leg.ends
    await turn()
    assert leg.ends == [(1006, "over 1024 KiB unsent")]
