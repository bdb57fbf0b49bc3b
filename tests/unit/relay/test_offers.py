"""How many host-agents offer a tunnel, however many legs each has."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from tunnel_relay.offers import Offers

LEGS = st.tuples(st.sampled_from(["mc", "db"]), st.sampled_from(["a", "b", ""]))


@given(st.lists(st.tuples(LEGS, st.booleans())))
def test_a_host_agent_counts_once(steps: list[tuple[tuple[str, str], bool]]) -> None:
    """Its first leg and its last one are told of; nothing is kept of who left."""
    offers = Offers()
    legs: Counter[tuple[str, str]] = Counter()
    for leg, comes in steps:
        if comes:
            legs[leg] += 1
            assert offers.add(*leg) == (legs[leg] == 1)
        elif legs[leg]:
            legs[leg] -= 1
            assert offers.remove(*leg) == (legs[leg] == 0)
        legs = +legs
        for tunnel in ("mc", "db"):
            assert offers.hosts(tunnel) == len([leg for leg in legs if leg[0] == tunnel])
        assert set(offers) == {tunnel for tunnel, _ in legs}
