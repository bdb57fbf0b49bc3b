"""What is remembered for a while, and of whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.protocol.remembered import Remembered

MOST = 6
SECONDS = 5

steps = st.lists(
    st.tuples(st.sampled_from(["put", "forget", "get"]), st.integers(0, 11), st.sampled_from("abc"), st.integers(0, 2)),
    max_size=60,
)


@given(steps)
def test_it_is_a_dict_that_forgets(steps: list[tuple[str, int, str, int]]) -> None:
    """What is old goes, and the oldest of whoever has the most: checked against a list."""
    remembered: Remembered[str] = Remembered(SECONDS, MOST)
    model: list[tuple[str, str, int]] = []  # (id, owner, when), oldest first
    now = 0
    for step, number, owner, passes in steps:
        now += passes
        key = f"id {number}"
        if step != "forget":
            model = [entry for entry in model if entry[2] + SECONDS > now]
        if step != "get":
            model = [entry for entry in model if entry[0] != key]
        if step == "forget":
            remembered.forget(key)
        elif step == "put":
            remembered.put(key, owner, key.upper(), now)
            model.append((key, owner, now))
            if len(model) > MOST:
                counts = [sum(other == owner for _, other, _ in model) for owner in "abc"]
                victims = [owner for owner, count in zip("abc", counts, strict=True) if count == max(counts)]
                gone = [entry for entry in model if entry[1] in victims and entry[0] not in remembered]
                assert len(gone) == 1
                assert gone[0] == next(entry for entry in model if entry[1] == gone[0][1])
                model.remove(gone[0])
        else:
            known = any(entry[0] == key for entry in model)
            assert remembered.get(key, now) == (key.upper() if known else None)
        assert len(remembered) == len(model) <= MOST
        assert all(entry[0] in remembered for entry in model)


def test_a_flood_pushes_out_its_own_only() -> None:
    """However much somebody brings: what the others brought stays."""
    remembered: Remembered[int] = Remembered(60, 100)
    for number in range(10):
        remembered.put(f"alex {number}", "alex", number, 0)
    for number in range(10_000):
        remembered.put(f"mallory {number}", "mallory", number, 0)
    assert [remembered.get(f"alex {number}", 1) for number in range(10)] == list(range(10))
    assert (len(remembered), "mallory 9999" in remembered, "mallory 9909" in remembered) == (100, True, False)
