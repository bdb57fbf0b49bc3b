"""What Linux tells of processes: who descends from whom, their CPU and their memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
KTHREADD = 2  # the parent of the kernel's own threads


@dataclass(frozen=True, slots=True)
class Stat:
    """A process, by /proc/PID/stat. Seconds of user and system time together."""

    pid: int
    parent: int
    cpu: float  # its own
    reaped: float  # of its children that have ended and were waited for, and of theirs


def parse_stat(text: str) -> Stat:
    """Read the one line of /proc/PID/stat. The name in it may hold spaces and parentheses."""
    pid, _, rest = text.partition(" ")
    fields = rest.rpartition(")")[2].split()
    user, system, reaped_user, reaped_system = (int(field) for field in fields[11:15])
    return Stat(int(pid), int(fields[1]), (user + system) / TICKS, (reaped_user + reaped_system) / TICKS)


def parse_kib(text: str, name: str) -> int:
    """Bytes of the line `NAME: 123 kB` in a file such as /proc/PID/smaps_rollup; 0 without it."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return 0


def parse_steal(text: str) -> float:
    """Seconds that the hypervisor gave to others, all cores together, from /proc/stat."""
    return int(text.splitlines()[0].split()[8]) / TICKS


def all_stats() -> dict[int, Stat]:
    """Every process of the machine (of the container, inside one)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = parse_stat((entry / "stat").read_text())
            except OSError:
                continue  # it ended meanwhile
            found[stat.pid] = stat
    return found


def family(roots: Iterable[int], stats: dict[int, Stat]) -> set[int]:
    """`roots` and all that descend from them, as far as they live."""
    children: dict[int, list[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    found: set[int] = set()
    left = [pid for pid in roots if pid in stats]
    while left:
        pid = left.pop()
        if pid not in found:
            found.add(pid)
            left += children.get(pid, ())
    return found


def cpu_seconds(roots: Collection[int]) -> float:
    """User and system seconds of `roots` and their descendants, those that have ended included."""
    stats = all_stats()
    # The scheduler counts nanoseconds, for threads that live; /proc/PID/stat ticks, for all.
    return sum(max(stats[pid].cpu, _scheduled(pid)) + stats[pid].reaped for pid in family(roots, stats))


def _scheduled(pid: int) -> float:
    """Seconds that the threads of `pid` have run."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except OSError:
        pass  # it ended meanwhile, or the kernel has no such file
    return total / 1e9


def memory(roots: Collection[int]) -> int:
    """Bytes that `roots` and their descendants hold: Pss, which counts a shared page once in all."""
    total = 0
    for pid in family(roots, all_stats()):
        try:
            total += parse_kib(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss")
        except OSError:
            continue  # it ended meanwhile
    return total


def others_cpu(me: int) -> float:
    """CPU seconds so far of all that is neither `me`, nor descends from it, nor is the kernel's.

    The sum does not change when a process ends and is waited for: its parent takes it over.
    """
    stats = all_stats()
    not_others = family((me, KTHREADD), stats)
    others = sum(stat.cpu + stat.reaped for pid, stat in stats.items() if pid not in not_others)
    return others + parse_steal(Path("/proc/stat").read_text())
