"""A relay with honest streams on it, in a thread of its own, for a test that attacks it from outside."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Any, Self

from tunnel_core.protocol import tokens
from tunnel_core.protocol.endpoints import Role

from support.apps import block, close, connect, echo, serve, until
from support.system import SECRET, System

HONEST = 20
QUESTION = 3000  # bytes


class Fortress:
    """Stands until the test leaves it. `check` asserts that the honest streams are whole and moving."""

    def __init__(self, **relay: Any) -> None:
        self._settings = relay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._stop: asyncio.Event
        self._life: Any = None
        self._ready = threading.Event()
        self.answers = [0] * HONEST
        self.longest = 0.0  # seconds that an honest stream waited for an answer
        self.failures: list[str] = []
        self.system: System

    def __enter__(self) -> Self:
        self._thread.start()
        self._life = asyncio.run_coroutine_threadsafe(self._live(), self._loop)
        while not self._ready.wait(0.1):
            if self._life.done():
                self._life.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._life.result(60)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        async with serve(echo) as target, System(**self._settings) as self.system:
            port = await self.system.pair(target)
            async with asyncio.TaskGroup() as group:
                for number in range(HONEST):
                    group.create_task(self._honest(port, number))
                await until(lambda: all(self.answers) or self.failures)
                self._ready.set()

    async def _honest(self, port: int, number: int) -> None:
        reader, writer = await connect(port)
        try:
            while not self._stop.is_set():
                question = block(QUESTION, number * 1_000_000 + self.answers[number])
                asked = time.monotonic()
                writer.write(question)
                if await reader.readexactly(QUESTION) != question:
                    self.failures.append(f"stream {number}: another answer than the question")
                    return
                self.answers[number] += 1
                self.longest = max(self.longest, time.monotonic() - asked)
                await asyncio.sleep(0.02)  # a player's pace
        except (OSError, EOFError) as exc:
            self.failures.append(f"stream {number}: {exc!r}")
        finally:
            await close(writer)

    def check(self, patience: float = 20.0) -> None:
        """All honest streams are whole, and each gets a further answer."""
        before = list(self.answers)

        async def moved() -> None:
            await until(
                lambda: self.failures or all(now > then for now, then in zip(self.answers, before, strict=True)),
                patience,
            )

        self.run(moved())
        assert self.failures == []
        assert self.system.events("bug") == []

    def run(self, coroutine: Any) -> Any:
        """Run something in the fortress' own event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    @property
    def port(self) -> int:
        return self.system.relay.port

    @property
    def legs(self) -> int:
        return len(self.system.relay.pairing.legs)


def token(role: Role, tunnel: str = "mc", subject: str = "mallory") -> str:
    """A genuine token, for an attacker who has one."""
    return tokens.issue(SECRET.encode(), role=role, tunnels=[tunnel], subject=subject, expires=4e9)
