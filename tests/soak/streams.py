"""What applications do with a stream: ten kinds, both ends of each, every byte checked."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from support.apps import CHUNK, reset

PERIOD: Final = 3_145_739  # bytes until content repeats: a prime beyond three windows, so that no replay fits by chance
BLOCK: Final = random.Random(0).randbytes(PERIOD)
# Seconds without a byte where one is due. The longest that is meant: an agent is killed, and the
# other end waits for the resume window of 60 s.
STUCK: Final = 120.0
AHEAD: Final = 3 << 20  # bytes that a server writes before it reads: three windows


class Corrupt(Exception):
    """Other bytes than were sent, or not as many."""


class FalseEnd(Exception):
    """A FIN that the sender did not send."""


class Flow:
    """One direction of a stream: what its sender gave, and what its receiver got."""

    def __init__(self, seed: int) -> None:
        self._start = random.Random(seed).randrange(PERIOD)
        self.sent = self.got = 0
        self.ended = False  # by its sender
        self._hashes = hashlib.sha256(), hashlib.sha256()

    def give(self, size: int) -> bytes:
        """The next bytes to send."""
        data = self._content(self.sent, size)
        self.sent += size
        self._hashes[0].update(data)
        return data

    def take(self, data: bytes) -> None:
        """Check what came. Raises Corrupt at the first byte that is another."""
        if data != self._content(self.got, len(data)):
            raise Corrupt(f"other bytes than were sent, from {self.got} on, in the next {len(data)}")
        self.got += len(data)
        self._hashes[1].update(data)

    def take_end(self) -> None:
        """Check that the end is where the sender put it. Raises FalseEnd or Corrupt."""
        if not self.ended:
            raise FalseEnd(f"a FIN after {self.got} bytes that nobody sent")
        sent, got = self._hashes
        if self.got != self.sent or sent.digest() != got.digest():
            raise Corrupt(f"{self.got} of {self.sent} bytes came")

    def _content(self, offset: int, size: int) -> bytes:
        at = (self._start + offset) % PERIOD
        data = BLOCK[at : at + size]
        while len(data) < size:
            data += BLOCK[: size - len(data)]
        return data


@dataclass
class End:
    """One end of a stream, as its application has it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    out: Flow
    into: Flow
    chance: random.Random
    stopping: asyncio.Event
    seconds: float  # that the stream is to last, about
    resets: bool = False  # this end breaks it off; if neither does, a reset is not meant

    async def send(self, size: int) -> None:
        """Send so many bytes."""
        while size:
            data = self.out.give(min(size, CHUNK))
            self._alive()
            self.writer.write(data)
            async with asyncio.timeout(STUCK):
                await self.writer.drain()
            size -= len(data)

    def end(self) -> None:
        """Send FIN."""
        self._alive()
        self.out.ended = True
        self.writer.write_eof()

    def _alive(self) -> None:
        if self.writer.transport.is_closing():  # uvloop has other words for it
            raise ConnectionResetError("the connection is closed")

    async def some(self, most: int = CHUNK) -> int:
        """Receive what there is: how many bytes, 0 at the end."""
        async with asyncio.timeout(STUCK):
            data = await self.reader.read(most)
        if data:
            self.into.take(data)
        else:
            self.into.take_end()
        return len(data)

    async def get(self, size: int) -> None:
        """Receive so many bytes."""
        while size:
            count = await self.some(min(size, CHUNK))
            if not count:
                raise Corrupt(f"an end where {size} more bytes were due")
            size -= count

    async def rest(self) -> None:
        """Receive all to the end."""
        while await self.some():
            pass

    async def pour(self, pace: float) -> None:
        """Send `pace` bytes a second for as long as the stream is to last, and FIN."""
        async for _ in self.rounds(0.1, 0.3):
            await self.send(int(pace * 0.2))
        self.end()

    async def pause(self, least: float, most: float) -> None:
        """Do nothing for a while; less if the soak stops."""
        try:
            async with asyncio.timeout(self.chance.uniform(least, most)):
                await self.stopping.wait()
        except TimeoutError:
            pass

    async def rounds(self, least: float, most: float) -> Any:
        """Again and again with pauses between, as long as the stream is to last."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.seconds
        while loop.time() < until and not self.stopping.is_set():
            yield
            await self.pause(least, most)


async def both(*work: Coroutine[Any, Any, None]) -> None:
    """Two directions at once. Raises what is raised first."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def bulk(end: End) -> None:
    """Both directions at a throttled pace."""
    await both(end.pour(end.chance.uniform(50e3, 200e3)), end.rest())


async def pours(end: End) -> None:
    """One direction: the end that sends."""
    await end.pour(end.chance.uniform(100e3, 400e3))
    await end.rest()


async def drains(end: End) -> None:
    """One direction: the end that receives."""
    await end.rest()
    end.end()


async def stalls(end: End) -> None:
    """Receives, and then does not for a while: what comes meanwhile piles up, as far as the windows let it."""
    async for _ in end.rounds(10, 40):
        left = end.chance.randrange(1, 1 << 20)
        while left:
            count = await end.some(min(left, CHUNK))
            if not count:
                end.end()
                return
            left -= count
    await end.rest()
    end.end()


async def answers(end: End) -> None:
    """As many bytes back as came."""
    while count := await end.some():
        await end.send(count)
    end.end()


async def asks(end: End) -> None:
    """A player: a request and its answer, over and over."""
    async for _ in end.rounds(0.02, 0.3):
        size = end.chance.randrange(1, 3000)
        await end.send(size)
        await end.get(size)
    end.end()
    await end.rest()


async def bursts(end: End) -> None:
    """Idle, then much at once."""
    async for _ in end.rounds(3, 30):
        size = end.chance.randrange(1, 512 * 1024)
        await both(end.send(size), end.get(size))
    end.end()
    await end.rest()


async def short(end: End) -> None:
    """One request, its answer, and the end."""
    size = end.chance.randrange(1, 20_000)
    await both(end.send(size), end.get(size))
    end.end()
    await end.rest()


async def requests(end: End) -> None:
    """All of the request, FIN, and then all of the answer."""
    await end.send(end.chance.randrange(1, 1 << 20))
    end.end()
    await end.rest()


async def answers_after(end: End) -> None:
    """The answer comes after the request's end, and takes long."""
    await end.rest()
    await end.pour(end.chance.uniform(50e3, 200e3))


async def writes_first(end: End) -> None:
    """Writes more than a window before it reads."""
    await end.send(AHEAD)
    end.end()
    await end.rest()


async def talks_over(end: End) -> None:
    """Writes as much at the same time, and reads."""

    async def write() -> None:
        await end.send(AHEAD)
        end.end()

    await both(write(), end.rest())


async def breaks_off(end: End) -> None:
    """A talk that one end breaks off with RST."""
    async for _ in end.rounds(0.02, 0.3):
        size = end.chance.randrange(1, 3000)
        await end.send(size)
        await end.get(size)
    if end.resets:
        reset(end.writer)
        return
    while True:  # until the other end does
        await end.send(1000)
        await end.get(1000)
        await end.pause(0.1, 0.1)


async def is_broken_off(end: End) -> None:
    """The other end of it."""
    loop = asyncio.get_running_loop()
    until = loop.time() + end.seconds
    while count := await end.some():
        await end.send(count)
        if end.resets and (loop.time() > until or end.stopping.is_set()):
            reset(end.writer)
            return


Script = Callable[[End], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """What the two ends do, how many such streams run at once, and how many seconds each lasts."""

    name: str
    client: Script
    server: Script
    count: int
    lasts: tuple[float, float]


KINDS: Final = (
    Kind("bulk both ways", bulk, bulk, 8, (10, 120)),
    Kind("bulk up", pours, drains, 4, (10, 120)),
    Kind("bulk down", drains, pours, 4, (10, 120)),
    Kind("request and answer", asks, answers, 12, (10, 300)),
    Kind("idle and bursts", bursts, answers, 6, (30, 300)),
    Kind("half-close, long answer", requests, answers_after, 4, (5, 60)),
    Kind("short", short, answers, 4, (0, 0)),
    Kind("broken off", breaks_off, is_broken_off, 4, (0.5, 10)),
    Kind("writes before it reads", talks_over, writes_first, 2, (0, 0)),
    Kind("stalled reader", stalls, pours, 2, (30, 120)),
)
