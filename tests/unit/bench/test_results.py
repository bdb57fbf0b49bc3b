"""How runs become what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runs import run

from bench import results
from bench.results import Results
from bench.summary import median, midmean, percentile


def test_percentiles_and_medians() -> None:
    """Of few and many values, in any order."""
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([7], 0.99) == 7
    assert percentile(range(1000), 0.99) == 990
    assert midmean([1000, 1, 2, 3]) == 2.5
    assert midmean([3, 1]) == 2
    assert midmean([7]) == 7
    assert median([4, 1, 3]) == 3
    assert median([4, 1, 3, 2]) == 2.5
    assert median([]) is None


def test_a_value_is_the_median_of_quiet_rounds() -> None:
    """A disturbed round counts only where there is no other."""
    noisy = run("ours", 3, metrics={"ping.p50": 900.0}, disturbed={"ping": 0.5})
    quiet = [run("ours", number, metrics={"ping.p50": 100.0 + number}) for number in (1, 2)]
    assert Results([*quiet, noisy]).value("ours", "ping", "p50") == 101.5
    assert Results([noisy]).value("ours", "ping", "p50") == 900
    assert Results([noisy]).value("ours", "ping", "p99") is None


def test_a_ratio_is_made_within_each_round() -> None:
    """The machine may be twice as fast in one of them; rounds that one of the two lacks are left out."""
    ours = [run("ours", n, metrics={"bulk.down": value}) for n, value in ((1, 50.0), (2, 100.0), (3, 1.0))]
    theirs = [run("haproxy3", n, metrics={"bulk.down": value}) for n, value in ((1, 100.0), (2, 200.0))]
    assert Results([*ours, *theirs]).ratio("ours", "bulk", "down", "haproxy3") == 0.5
    assert Results(ours).ratio("ours", "bulk", "down", "haproxy3") is None


def test_why_there_is_no_value() -> None:
    """Missing altogether, not started, or one figure that went wrong."""
    runs = [
        run("socat3", 1, missing="not installed"),
        run("ssh", 1, problems={"start": "no key"}),
        run("ours", 1, problems={"memory": "too slow"}),
    ]
    found = Results(runs)
    assert found.why_not("socat3", "ping") == "not installed"
    assert found.why_not("ssh", "ping") == "no key"
    assert (found.why_not("ours", "ping"), found.why_not("ours", "memory")) == ("", "too slow")


def test_the_last_session_is_read_back(tmp_path: Path) -> None:
    """As it was written; earlier ones stay in the file."""
    path = tmp_path / "build" / "bench.jsonl"
    runs = [run("ours", 1, "earlier"), run("ours", 1, "later", metrics={"ping.p50": 1.5}), run("haproxy3", 1, "later")]
    for one in runs:
        results.append(path, one)
    assert results.read_last(path) == runs[1:]


@pytest.mark.parametrize("empty", ["", "\n"])
def test_no_session_at_all(tmp_path: Path, empty: str) -> None:
    """An empty file has none."""
    path = tmp_path / "bench.jsonl"
    path.write_text(empty)
    assert results.read_last(path) == []
