"""Honest people behind a client-agent, in a process of their own: streams that last, newcomers, and a look at health.

    python -m support.honest PORT PLAYERS DOWNLOADS RELAY_PORT ADMIN_PORT PID...

It ends when its standard input does, and prints what it saw as one JSON object. PORT leads to an echo server.
A stop is the time from one byte to the next while a stream waits for an answer; `stop_own` is what is left of the
longest one without the time for which one of the processes PID, or this one, stood ready to run and others had the
processors: on machines of their own they would not have.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field

from support.blocking import waited

PLAYER = 200  # bytes of a question, and of its answer
DOWNLOAD = 512 * 1024
PACE = 0.05  # seconds between an answer and the next question
NEWCOMER = 0.5  # seconds between two of them
SAMPLE = 0.05  # seconds between looks at who waits for a processor
NOTED = 0.1  # seconds: a shorter stop is not looked into
PATIENCE = 60.0  # seconds for an answer, after which there is none


@dataclass
class Seen:
    """What is printed. Times are in seconds."""

    answers: int = 0
    carried: int = 0  # bytes, each as it should be
    stop: float = 0.0
    stop_own: float = 0.0
    newcomers: int = 0
    newcomer: float = 0.0  # the longest from a connection to its answer
    health: int = 0  # answers
    health_longest: float = 0.0
    problems: list[str] = field(default_factory=list)


class Processors:
    """For how long each process has waited for one, sampled."""

    def __init__(self, pids: list[str]) -> None:
        self._pids = [*pids, "self"]
        self._samples: list[tuple[float, list[float]]] = []

    def _look(self) -> tuple[float, list[float]]:
        return time.monotonic(), [waited(int(pid) if pid.isdigit() else pid) for pid in self._pids]

    async def watch(self) -> None:
        while True:
            self._samples.append(self._look())
            del self._samples[: -int(PATIENCE / SAMPLE)]
            await asyncio.sleep(SAMPLE)

    def queued_since(self, moment: float) -> float:
        """The longest that one of them has waited since `moment`."""
        now = self._look()[1]
        then = next((waits for when, waits in reversed(self._samples) if when <= moment), now)
        return max(b - a for a, b in zip(then, now, strict=True))


class People:
    def __init__(self, port: int, processors: Processors) -> None:
        self._port = port
        self._processors = processors
        self._stop = asyncio.Event()
        self.seen = Seen()

    def leave(self) -> None:
        self._stop.set()

    async def _pause(self, seconds: float) -> bool:
        """Whether to go on after so long."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def stays(self, number: int, size: int) -> None:
        """One stream that asks and is answered until all leave, then ends with a FIN."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=size)
            count = 0
            while await self._pause(PACE):
                count += 1
                question = (b"%d:%d;" % (number, count) * (size // 4))[:size]
                writer.write(question)
                await self._answered(reader, question)
                self.seen.answers += 1
            writer.write_eof()
            if await reader.read() != b"":
                self.seen.problems.append(f"stream {number}: more than was asked for")
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError) as exc:
            self.seen.problems.append(f"stream {number}: {exc!r}")

    async def _answered(self, reader: asyncio.StreamReader, question: bytes) -> None:
        got = 0
        since = time.monotonic()
        while got < len(question):
            async with asyncio.timeout(PATIENCE):
                data = await reader.read(len(question) - got)
            now = time.monotonic()
            self._stopped(since, now - since)
            since = now
            if not data or data != question[got : got + len(data)]:
                raise EOFError(f"{len(data)} bytes that are not those that were sent, after {got}")
            got += len(data)
        self.seen.carried += got

    def _stopped(self, since: float, stop: float) -> None:
        self.seen.stop = max(self.seen.stop, stop)
        if stop > max(NOTED, self.seen.stop_own):
            self.seen.stop_own = max(self.seen.stop_own, stop - self._processors.queued_since(since))

    async def come_and_go(self) -> None:
        """One connection after the other: opened, asked once, and ended."""
        while await self._pause(NEWCOMER):
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    writer.write(b"hello")
                    writer.write_eof()
                    answer = await reader.read()
                    writer.close()
                    await writer.wait_closed()
            except OSError as exc:  # TimeoutError is one
                self.seen.problems.append(f"newcomer after {time.monotonic() - began:.1f} s: {exc!r}")
                continue
            if answer != b"hello":
                self.seen.problems.append(f"newcomer: {answer!r}")
            self.seen.newcomers += 1
            self.seen.newcomer = max(self.seen.newcomer, time.monotonic() - began)

    async def ask_health(self, port: int) -> None:
        """What a balancer, or a kubelet, does."""
        while await self._pause(NEWCOMER):
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"GET /readyz HTTP/1.1\r\nHost: relay\r\n\r\n")
                    head = (await reader.read()).partition(b"\r\n")[0]
                    writer.close()
                    await writer.wait_closed()
            except OSError as exc:
                self.seen.problems.append(f"/readyz at {port} after {time.monotonic() - began:.1f} s: {exc!r}")
                continue
            if b" 200 " not in head:
                self.seen.problems.append(f"/readyz at {port}: {head!r}")
            self.seen.health += 1
            self.seen.health_longest = max(self.seen.health_longest, time.monotonic() - began)


async def main() -> None:
    """Live until the standard input ends."""
    port, players, downloads, *health = map(int, sys.argv[1:6])
    processors = Processors(sys.argv[6:])
    people = People(port, processors)
    loop = asyncio.get_running_loop()
    sampling = loop.create_task(processors.watch())
    reading = loop.run_in_executor(None, sys.stdin.read)
    reading.add_done_callback(lambda _: people.leave())
    streams = [PLAYER] * players + [DOWNLOAD] * downloads
    await asyncio.gather(
        *(people.stays(number, size) for number, size in enumerate(streams)),
        people.come_and_go(),
        *map(people.ask_health, health),
    )
    await reading
    sampling.cancel()
    print(json.dumps(asdict(people.seen)))


if __name__ == "__main__":
    asyncio.run(main())
