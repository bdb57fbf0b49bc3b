"""Who may have how much of an agent's memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.protocol.budget import Budget, Share

LIMIT = 1 << 20


def fill(share: Share, most: int = LIMIT) -> int:
    """Take whatever there is room for, bit by bit, up to `most` in all. Returns how much the share has then."""
    while share.room > 0 and share.used < most:
        share.take(min(share.room, most - share.used, LIMIT // 256))
    return share.used


def test_each_account_finds_as_much_as_the_others_have() -> None:
    """Of one account alone half, of two a third each: and another newcomer the same again."""
    budget = Budget(LIMIT)
    for _ in range(200):
        fill(budget.share("hoarder"))
    assert LIMIT * 0.45 < budget.used <= LIMIT / 2
    before = budget.used
    for _ in range(200):
        fill(budget.share("second"))
    assert LIMIT * 0.2 < budget.used - before <= LIMIT / 4 + 1
    assert fill(budget.share("third")) > LIMIT * 0.05
    assert budget.used <= LIMIT


def test_streams_of_one_account_leave_each_other_room() -> None:
    """Each has at most what the others leave of the account's own; what one gives back, the next may have."""
    budget = Budget(LIMIT)
    shares = [budget.share("hoarder") for _ in range(20)]
    took = [fill(share, most=LIMIT // 20) for share in shares]
    assert took[0] == LIMIT // 20
    assert took == sorted(took, reverse=True)
    assert budget.used < LIMIT * 0.51
    shares[0].take(-shares[0].used)
    assert fill(budget.share("hoarder")) > took[-1]
    assert fill(budget.share("honest"), most=LIMIT // 10) == LIMIT // 10


def test_what_is_given_back_can_be_had_again() -> None:
    budget = Budget(LIMIT)
    first, second = budget.share("a"), budget.share("a")
    fill(first)
    second.take(1000)
    first.starve(True)
    second.starve(True)
    second.starve(True)
    assert budget.starved == 2
    room = second.room
    first.take(-500)
    assert second.room == room + 1000
    first.close()
    first.close()
    assert (budget.used, budget.starved) == (1000, 1)
    second.close()
    assert (budget.used, budget.starved) == (0, 0)
    assert first.room == 0
    assert budget.share("a").room == LIMIT


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(-LIMIT // 2, LIMIT), st.booleans()), max_size=60
    )
)
def test_no_order_of_events_takes_more_than_there_is(steps: list[tuple[int, int, int, bool]]) -> None:
    """Whoever takes no more than there is room for, and whoever comes and goes in between."""
    budget = Budget(LIMIT)
    shares: dict[tuple[int, int], Share] = {}
    for owner, number, size, close in steps:
        share = shares.setdefault((owner, number), budget.share(f"{owner}"))
        share.take(min(size, max(share.room, 0)) if size > 0 else max(size, -share.used))
        assert budget.used == sum(each.used for each in shares.values())
        assert 0 <= budget.used <= LIMIT
        assert budget.share("newcomer").room == LIMIT - budget.used
        if close:
            shares.pop((owner, number)).close()
    for share in shares.values():
        share.close()
    assert budget.used == 0
