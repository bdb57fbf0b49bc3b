"""This machine: what it is, and whether somebody else uses it."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from . import procfs

QUIET = 0.08  # cores that others may use
LOOK = 0.4  # seconds that one look takes


@dataclass(frozen=True)
class Machine:
    """What figures depend on."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    congestion: str  # TCP's algorithm
    python: str

    def __str__(self) -> str:
        return (
            f"{self.cores} cores ({self.cpu}), {self.memory_gb:.0f} GB, Linux {self.kernel}, "
            f"TCP {self.congestion}, Python {self.python}"
        )


def describe() -> Machine:
    """This one."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        models[0] if models else platform.machine(),
        len(os.sched_getaffinity(0)),
        round(memory / 1e9, 1),
        platform.release(),
        Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        platform.python_version(),
    )


class Others:
    """How many cores others have used since this object was made."""

    def __init__(self) -> None:
        self._cpu = procfs.others_cpu(os.getpid())
        self._began = time.monotonic()

    def cores(self) -> float:
        used = procfs.others_cpu(os.getpid()) - self._cpu
        return max(0.0, used / (time.monotonic() - self._began))


def wait_quiet(patience: float) -> float:
    """Wait until others leave the machine alone, for `patience` seconds at most. Returns how long it took."""
    began = time.monotonic()
    while True:
        others = Others()
        time.sleep(LOOK)
        if others.cores() <= QUIET or time.monotonic() - began > patience:
            return time.monotonic() - began
