"""What the bench reads in /proc."""

from __future__ import annotations

import os
import time

from bench import procfs
from bench.procfs import Stat
from bench.workers import Worker


def test_a_process_line_with_anything_in_its_name() -> None:
    """Spaces and parentheses in the name do not move the fields after it."""
    line = f"7 (a) b (c)) S 3 7 7 0 -1 4194304 1 2 0 0 {procfs.TICKS} {2 * procfs.TICKS} {procfs.TICKS} 0 20 0 1 0\n"
    assert procfs.parse_stat(line) == Stat(pid=7, parent=3, cpu=3.0, reaped=1.0)


def test_a_size_by_its_name() -> None:
    """Only the whole name counts, and a missing one is nothing."""
    text = "00400000-7ff rw-p 00000000 00:00 0 [rollup]\nRss:  2048 kB\nPss:  1000 kB\nPss_Dirty:  10 kB\n"
    assert procfs.parse_kib(text, "Pss") == 1000 * 1024
    assert procfs.parse_kib(text, "Swap") == 0


def test_stolen_time() -> None:
    """The eighth number of the first line."""
    assert procfs.parse_steal("cpu  1 2 3 4 5 6 7 800 9 10\ncpu0 1 2\n") == 800 / procfs.TICKS


def test_a_family_is_all_that_descend() -> None:
    """Children of children too; others, and roots that have ended, are not in it."""
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1}
    stats = {pid: Stat(pid, parent, 0.0, 0.0) for pid, parent in parents.items()}
    assert procfs.family((10, 99), stats) == {10, 11, 12}


def test_cpu_and_memory_of_a_real_process() -> None:
    """What a busy child uses is seen, with its own child's, and is not others'."""
    with Worker(_busy) as worker:
        pid = worker.pid
        deadline = time.monotonic() + 20
        while procfs.cpu_seconds((pid,)) < 0.05:
            assert time.monotonic() < deadline
        assert procfs.memory((pid,)) > 1 << 20
        assert pid in procfs.family((os.getpid(),), procfs.all_stats())


def _busy() -> None:
    deadline = time.monotonic() + 20
    os.fork()
    while time.monotonic() < deadline:
        pass
