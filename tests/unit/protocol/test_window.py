"""How much the other end of a stream may send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.protocol.budget import Budget
from tunnel_core.protocol.control import EARLY_DATA, MAX_WINDOW
from tunnel_core.protocol.window import IDLE, LEAST, Window, ack_step

MIB = 1 << 20
KIB = 1 << 10


def window(limit: int = 64 * MIB, *, most: int = MIB) -> tuple[Window, Budget]:
    budget = Budget(limit)
    made = Window(budget.share("somebody"))
    made.agree(most)
    return made, budget


def carry(made: Window, size: int, *, at: int = 0) -> int:
    """Acknowledge `size` bytes from `at` on, as they fall due. Returns the offset then."""
    for _ in range(size // ack_step(made.size)):
        at += ack_step(made.size)
        made.acknowledge(at, 0, due=True)
    return at


def test_doubles_while_acks_fall_due_and_is_paid_for() -> None:
    """Up to what both ends will hold. What comes slowly, below a quarter at a time, changes nothing."""
    made, budget = window()
    for offset in range(0, 10 * MIB, KIB):
        assert made.acknowledge(offset, 0, due=False) == 0
    assert (made.size, budget.used) == (EARLY_DATA, 0)
    told, offset = [], 10 * MIB
    for _ in range(20):
        offset += ack_step(made.size)
        told.append(made.acknowledge(offset, 0, due=True))
    assert [size for size in told if size] == [128 * KIB, 256 * KIB, 512 * KIB, MIB]
    assert made.edge == offset + MIB
    assert budget.used == MIB - EARLY_DATA


def test_what_waits_within_the_start_is_paid_for_when_it_does() -> None:
    made, budget = window()
    made.charge(1000)
    made.charge(EARLY_DATA)
    assert budget.used == EARLY_DATA
    made.charge(0)
    assert budget.used == 0


def test_grows_as_far_as_there_is_room() -> None:
    """And asks for half of it back once others have made it too large."""
    made, budget = window(MIB)
    at = carry(made, 10 * MIB)
    assert made.size == 256 * KIB
    budget.share("another").take(MIB // 2)
    assert made.acknowledge(at + made.size, 0, due=True) == 128 * KIB
    assert made.edge == at + 512 * KIB, "what was promised stays promised until it is given back"
    assert made.given_back(128 * KIB, at + 256 * KIB, 0)
    assert made.edge == at + 384 * KIB
    assert budget.used == MIB // 2 + 64 * KIB


def test_is_asked_back_when_it_is_idle() -> None:
    """Once; and again when more has come."""
    made, budget = window()
    start = carry(made, 10 * MIB)
    for at in (start, start + 1):
        assert [made.tick(at) for _ in range(IDLE + 2)] == [0] * IDLE + [EARLY_DATA, 0]
        assert made.size == MIB
    assert made.given_back(EARLY_DATA, start + 1, 0)
    assert not made.ticks
    assert budget.used == 0
    carry(made, 10 * MIB, at=start + 1)
    assert made.size == MIB, "it grows at once when there is more to carry"


def test_who_gives_back_unasked_gets_no_more_for_a_while() -> None:
    """It is short of memory itself: it would give it back again, with a message each time."""
    made, _ = window()
    at = carry(made, 10 * MIB)
    assert made.given_back(LEAST, at, 0)
    assert ack_step(made.size) == LEAST // 2
    end = carry(made, 15 * LEAST, at=at)
    assert made.size == LEAST
    carry(made, 10 * MIB, at=end)
    assert made.size == MIB


def test_nonsense_changes_nothing() -> None:
    """More given back than there is; anything from a peer that does not adapt."""
    made, budget = window()
    for use in (1, LEAST - 1, EARLY_DATA, EARLY_DATA + 1, MAX_WINDOW):
        assert not made.given_back(use, 0, 0)
    fixed = Window(budget.share("old"))
    fixed.fix(MIB)
    assert not fixed.given_back(LEAST, 0, 0)
    assert fixed.acknowledge(MIB, 0, due=True) == 0
    assert fixed.tick(MIB) == fixed.tick(MIB) == fixed.tick(MIB) == 0
    assert not fixed.ticks
    assert (fixed.edge, budget.used) == (2 * MIB, MIB - EARLY_DATA)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("ack", "due", "tick", "use", "others")), st.integers(0, 2 * MIB), st.integers(0, 2 * MIB)
        ),
        max_size=60,
    )
)
def test_a_promise_is_kept_and_paid_for(steps: list[tuple[str, int, int]]) -> None:
    """The edge moves back only when it was given back; the share covers what may come, but for the start."""
    budget = Budget(4 * MIB)
    share, other = budget.share("a"), budget.share("b")
    made = Window(share)
    made.agree(MIB)
    told = 0
    for step, first, second in steps:
        edge = made.edge
        if step in ("ack", "due"):
            told += first % (made.edge - told + 1)
            made.acknowledge(told, second % (made.edge - told + 1), due=step == "due")
            assert made.edge >= edge
        elif step == "tick":
            made.tick(told)
            assert made.edge == edge
        elif step == "use":
            made.given_back(first, told, second % (MIB + 1))
            assert made.edge <= max(edge, told + first)
        else:
            other.take(min(first, max(other.room, 0)))
        assert LEAST <= made.size <= MIB
        assert made.size - EARLY_DATA <= share.used
        assert made.edge - told >= made.size
        assert budget.used <= budget.limit
    assert 0 < ack_step(made.size) < made.size
