"""What the processes hold, sampled; and when that counts as flat."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from support.faults import descriptors
from support.metrics import Metrics

from bench import procfs
from demo.processes import Process

WARM: Final = 60.0  # seconds of a process' life that are not judged: caches fill, pools grow to what is needed
SPAN: Final = 200.0  # seconds beyond them that are needed to judge: a third is thrice the longest silence
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Sample:
    """One look at one process. What only its metrics tell is None while it does not answer."""

    at: float  # seconds since the soak began
    process: str
    life: int  # which process of this name: each restart is another
    age: float  # seconds since it was first seen
    memory: int  # bytes, resident
    descriptors: int
    tasks: int | None = None
    streams: int | None = None
    legs: int | None = None
    replay: int | None = None  # bytes

    def flat(self) -> dict[str, Any]:
        return asdict(self)


class Watch:
    """Samples processes."""

    def __init__(self, processes: list[Process], frozen: Collection[Process]) -> None:
        self._processes = processes
        self._frozen = frozen
        self._began = time.monotonic()
        self._lives: dict[str, tuple[int, int, float]] = {}  # name → PID, how many before it, since when
        self.samples: list[Sample] = []

    async def run(self, interval: float) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.gather(*map(self._keep, self._processes))
            await asyncio.sleep(interval)

    async def _keep(self, process: Process) -> None:
        sample = await self.look(process)
        if sample is not None:
            self.samples.append(sample)

    async def look(self, process: Process) -> Sample | None:
        """One look; None if the process is dead."""
        pid, now = process.pid, time.monotonic()
        try:
            memory = resident(pid)
            count = descriptors(process)
        except OSError:
            return None  # it ended
        known, life, since = self._lives.get(process.name, (pid, 0, now))
        if known != pid:
            life, since = life + 1, now
        self._lives[process.name] = pid, life, since
        told: dict[str, int] = {}
        if process not in self._frozen:
            try:
                _, text = await asyncio.to_thread(process.get, "/metrics")
            except OSError:
                text = ""  # it is just starting, or was killed or frozen at this moment
            if text:
                told = read(Metrics(text))
        return Sample(now - self._began, process.name, life, now - since, memory, count, **told)


def resident(pid: int) -> int:
    """Bytes of memory that a process has. Raises OSError if there is none."""
    return procfs.parse_kib(Path(f"/proc/{pid}/status").read_text(), "VmRSS")


def read(metrics: Metrics) -> dict[str, int]:
    """What a relay or an agent tells of itself."""
    names = {
        "tasks": ("tunnel_asyncio_tasks",),
        "streams": ("tunnel_agent_streams",),
        "legs": ("relay_legs", "tunnel_agent_ready_legs"),
        "replay": ("tunnel_agent_replay_memory_bytes",),
    }
    return {key: int(sum(map(metrics.value, them))) for key, them in names.items()}


@dataclass(frozen=True)
class Limit:
    """How much more a quantity may be at the end of a life than at its begin."""

    name: str
    unit: str
    scale: float  # of the unit
    least: float  # that may be added, whatever it was
    share: float  # of what it was that may be added
    quantile: int  # in tenths: which value of those of a third of a life is compared
    of: Callable[[Sample], int | None]


def unexplained(sample: Sample) -> int | None:
    """Descriptors beyond those that the streams of the moment need: how many there are is chance."""
    if sample.streams is None or sample.legs is None:
        return None
    # A stream's local socket and its leg; at the relay each leg is one.
    return sample.descriptors - (2 * sample.streams or sample.legs)


# The first and the last third of a life are compared. The load is chance, and wavers. After a long
# silence the agents hold megabytes for resumes, and malloc gives memory back late: that raises the
# high points of memory and leaves the low ones, while a leak raises the low ones, too. What they
# may rise by: a fragmented heap, and some warm legs, of which there are more while streams come fast.
LIMITS: Final = (
    Limit("memory", "MB", 1e6, 10e6, 0.1, 1, lambda sample: sample.memory),
    Limit("descriptors beside streams", "", 1, 12, 0.2, 5, unexplained),
    Limit("tasks", "", 1, 3, 0.2, 5, lambda sample: sample.tasks),
)


@dataclass(frozen=True)
class Trend:
    """One quantity in one life of a process."""

    process: str
    life: int
    seconds: float  # of the life, that were judged
    limit: Limit
    first: float  # its value in the first third
    last: float  # and in the last
    most: float

    @property
    def is_flat(self) -> bool:
        return self.last <= self.first + max(self.limit.least, self.first * self.limit.share)


def trends(samples: list[Sample]) -> Iterator[Trend]:
    """Those of each life that was long enough."""
    lives: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        if sample.age >= WARM:
            lives.setdefault((sample.process, sample.life), []).append(sample)
    for (process, life), them in lives.items():
        span = them[-1].age - them[0].age
        if span < SPAN:
            continue
        for limit in LIMITS:
            points = [(sample.age, value) for sample in them if (value := limit.of(sample)) is not None]
            first = [value for age, value in points if age < WARM + span / 3]
            last = [value for age, value in points if age > WARM + span * 2 / 3]
            if first and last:
                most = max(value for _, value in points)
                begin, end = (
                    statistics.quantiles([*part, part[-1]], n=10)[limit.quantile - 1] for part in (first, last)
                )
                yield Trend(process, life, span, limit, begin, end, most)
