"""How often anybody may try."""

from __future__ import annotations

from tunnel_core.protocol.tries import REMEMBERED, Tries


def test_tries_are_forgotten_in_time_and_in_number() -> None:
    """No address is slowed down for ever, and strangers do not fill the memory."""
    tries = Tries(burst=2, refill=1.0)
    for number in range(REMEMBERED + 10):
        tries.take(str(number), 0.0)
        tries.take(str(number), 0.0)
    assert len(tries._spent) == REMEMBERED
    newest = str(REMEMBERED + 9)
    assert tries.take(newest, 0.0) > 0
    assert tries.take(newest, 2.0) == 0
    assert tries.take("0", 0.0) == 0, "the oldest went first"
