"""How often something may be tried again."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.agent.pace import Pace


def test_a_burst_and_then_a_rate() -> None:
    """Who has waited has the whole burst again."""
    pace = Pace(3, 2.0)
    assert [pace.take(100.0) for _ in range(5)] == [0, 0, 0, 2, 4]
    assert pace.take(104.0) == 2
    assert [pace.take(1000.0) for _ in range(4)] == [0, 0, 0, 2]


@given(
    burst=st.integers(1, 10),
    seconds=st.floats(0.01, 10),
    passes=st.lists(st.floats(0, 30), min_size=1, max_size=60),
)
def test_no_more_than_was_said(burst: int, seconds: float, passes: list[float]) -> None:
    """However they come: in any span of time at most the burst, and what that time allows."""
    pace, now, begun = Pace(burst, seconds), 0.0, []
    for passed in passes:
        now += passed
        begun.append(now + pace.take(now))
    assert begun == sorted(begun)
    for first, start in enumerate(begun):
        for last, end in enumerate(begun[first:], first):
            assert last - first + 1 <= burst + math.floor((end - start) / seconds + 1e-6)
