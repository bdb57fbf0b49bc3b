"""What breaks, at random: the relay, the legs, the network, the agents. One fault after the other."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from support.wire import Wire

from demo.processes import Process

GAP: Final = (1.0, 7.0)  # seconds from the end of a fault to the next
LONG: Final = 0.15  # share of freezes that last until the silence is noticed, after 15 s
QUIET_END: Final = 3.0  # seconds before the end without a fault


@dataclass(frozen=True)
class Hurt:
    """An agent that ended, and with it its streams; times by the monotonic clock."""

    agent: str
    killed: bool  # with -9: the kernel closes its sockets, with FIN or RST as it likes
    began: float
    ended: float = float("inf")


class Chaos:
    """Breaks things until it is told to stop.

    The relay dies in the first half only: so that one relay lives long enough, in the second,
    to see whether it leaks. Of the agents those in `mortal` die.
    """

    def __init__(
        self,
        chance: random.Random,
        relay: Process,
        agents: list[Process],
        mortal: list[Process],
        near: Wire,
        far: Wire,
        tell: Callable[[str], None],
    ) -> None:
        self._chance = chance
        self._relay = relay
        self._agents = agents
        self._mortal = mortal
        self._wires = {"client": [near], "host": [far], "all": [near, far]}
        self._tell = tell
        self.count: Counter[str] = Counter()
        self.hurts: list[Hurt] = []
        self.troubles: list[tuple[float, float]] = []  # when the relay could not be reached, or a leg was lost
        self.deaths: list[float] = []  # of the relay
        self.stopped: set[Process] = set()  # by SIGSTOP
        self._faults: tuple[tuple[str, float, bool, Callable[[], Awaitable[None]]], ...] = (
            ("relay killed (-9)", 4, True, self._kill_relay),
            ("relay stopped and started (SIGTERM)", 1, True, self._redeploy),
            ("relay frozen (SIGSTOP)", 1.5, False, self._freeze_relay),
            ("client's legs cut", 2, False, lambda: self._cut("client")),
            ("hosts' legs cut", 2, False, lambda: self._cut("host")),
            ("all legs cut", 2, False, lambda: self._cut("all")),
            ("client's network silent", 1, False, lambda: self._silence("client")),
            ("hosts' network silent", 1, False, lambda: self._silence("host")),
            ("client-agent or host-agent frozen (SIGSTOP)", 0.5, False, self._freeze_agent),
            ("agent stopped and started (SIGTERM)", 0.5, False, lambda: self._end_agent(killed=False)),
            ("agent killed (-9)", 0.5, False, lambda: self._end_agent(killed=True)),
        )

    async def run(self, seconds: float) -> None:
        """Break things for so long. Everything works again afterwards."""
        began = time.monotonic()
        half, end = began + seconds / 2, began + seconds - QUIET_END
        while True:
            pause = self._chance.uniform(*GAP)
            if time.monotonic() + pause > end:
                return
            await asyncio.sleep(pause)
            faults = [fault for fault in self._faults if time.monotonic() < half or not fault[2]]
            ((name, _, _, strike),) = self._chance.choices(faults, [weight for _, weight, _, _ in faults])
            self.count[name] += 1
            self._tell(name)
            struck = time.monotonic()
            await strike()
            self.troubles.append((struck, time.monotonic()))

    def in_trouble(self, began: float, ended: float) -> bool:
        """Whether something was broken at some time between."""
        return any(until >= began and since <= ended for since, until in self.troubles)

    def _long(self) -> float:
        """Seconds of a freeze: mostly some, sometimes so many that they are noticed."""
        if self._chance.random() < LONG:
            return self._chance.uniform(15, 20)
        return self._chance.uniform(0.5, 6)

    async def _kill_relay(self) -> None:
        self.deaths.append(time.monotonic())
        self._relay.kill()
        await asyncio.sleep(self._chance.choice((0.0, self._chance.uniform(0, 3))))
        await self._start(self._relay)

    async def _redeploy(self) -> None:
        self.deaths.append(time.monotonic())
        self._relay.signal(signal.SIGTERM)
        await asyncio.to_thread(self._relay.wait, 60)
        await self._start(self._relay)

    async def _freeze_relay(self) -> None:
        await self._freeze(self._relay)

    async def _freeze_agent(self) -> None:
        await self._freeze(self._chance.choice(self._agents))

    async def _freeze(self, process: Process) -> None:
        self.stopped.add(process)
        process.signal(signal.SIGSTOP)
        await asyncio.sleep(self._long())
        process.signal(signal.SIGCONT)
        self.stopped.discard(process)

    async def _cut(self, which: str) -> None:
        for _ in range(self._chance.choice((1, 1, 3))):
            for wire in self._wires[which]:
                wire.cut()
            await asyncio.sleep(self._chance.uniform(0, 0.5))

    async def _silence(self, which: str) -> None:
        for wire in self._wires[which]:
            wire.freeze()
        await asyncio.sleep(self._long())
        for wire in self._wires[which]:
            wire.thaw()

    async def _end_agent(self, *, killed: bool) -> None:
        agent = self._chance.choice(self._mortal)
        hurt = Hurt(agent.name, killed, time.monotonic())
        self.hurts.append(hurt)
        if killed:
            agent.kill()
        else:
            await asyncio.to_thread(agent.stop)
        await asyncio.sleep(self._chance.uniform(0, 2))
        await self._start(agent)
        self.hurts[-1] = Hurt(agent.name, killed, hurt.began, time.monotonic())

    async def _start(self, process: Process) -> None:
        process.start()
        await asyncio.to_thread(process.wait_ready)

    def mend(self) -> None:
        """Let everything go on that was frozen: for an end that comes in the midst of a fault."""
        for process in self.stopped:
            with contextlib.suppress(OSError):
                process.signal(signal.SIGCONT)
        for wire in self._wires["all"]:
            wire.thaw()
