"""When to try the relay again: by a clock that the test holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.net.dialer import LAST_RETRY, Outage


def test_the_first_retry_is_at_once() -> None:
    """A relay that was just started again is met at its first moment."""
    outage = Outage()
    assert (outage.active, outage.wait(100.0)) == (False, 0)
    outage.failed(100.0)
    assert (outage.active, outage.wait(100.0)) == (True, 0)


def test_an_outage_ends_when_the_relay_is_back() -> None:
    """And the next one begins anew."""
    outage = Outage()
    for second in range(100, 200, 10):
        outage.failed(float(second))
    assert outage.wait(190.0) > 1
    outage.hurry()
    assert outage.wait(190.0) == 0
    outage.ended()
    assert not outage.active
    assert outage.wait(190.0) == 0
    outage.failed(191.0)
    assert outage.wait(191.0) == 0


@given(st.lists(st.floats(0, 20), max_size=200))
def test_waits_grow_with_the_outage_and_never_over_five_seconds(delays: list[float]) -> None:
    """Each is at most an eighth of the outage so far, and at least a moment; jittered, so that not all come at once."""
    outage, now = Outage(), 1000.0
    outage.failed(now)
    for delay in delays:
        now += outage.wait(now) + delay
        outage.failed(now)
        longest = min(LAST_RETRY, max(0.05, (now - 1000.0) / 8))
        assert longest / 2 - 1e-6 <= outage.wait(now) <= longest + 1e-6


def test_waits_differ() -> None:
    """A thousand agents of one relay do not come back together."""
    waits = set()
    for _ in range(50):
        outage = Outage()
        outage.failed(0.0)
        outage.failed(40.0)
        waits.add(outage.wait(40.0))
    assert len(waits) == 50
    assert max(waits) - min(waits) > 1


@given(st.floats(0, 1e12), st.booleans())
def test_the_relays_wish_counts_up_to_a_minute(wish: float, first: bool) -> None:
    """Retry-After is respected, and cannot send anybody away for good."""
    outage = Outage()
    if not first:
        outage.failed(0.0)
    outage.failed(10.0, wish)
    shortest = min(wish, 60.0)
    assert shortest - 1e-6 <= outage.wait(10.0) <= max(shortest, 1.25) + 1e-6
