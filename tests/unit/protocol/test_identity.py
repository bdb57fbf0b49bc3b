"""Instances and proofs: the test vectors of PROTOCOL.md."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.protocol.identity import instance_of, resume_proof, resumed_proof

KEY = "000102030405060708090a0b0c0d0e0f"
STREAM = "101112131415161718191a1b1c1d1e1f"
LEG = "202122232425262728292a2b2c2d2e2f"
PROTOCOL = (Path(__file__).parents[3] / "PROTOCOL.md").read_text()

ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
offsets = st.integers(0, 2**62 - 1)


def test_the_vectors_of_the_specification() -> None:
    """Whoever writes an agent or a relay can check theirs against these."""
    vectors = {
        "instance": instance_of(KEY),
        "resume": resume_proof(KEY, stream=STREAM, leg=LEG, attempt=1, received=65536),
        "resumed": resumed_proof(KEY, stream=STREAM, leg=LEG, received=4096, done=False),
        "resumed, done": resumed_proof(KEY, stream=STREAM, leg=LEG, received=0, done=True),
    }
    table = dict(re.findall(r"^\| ([a-z, ]+?) \| .*? \| `([0-9a-f]{32})` \|$", PROTOCOL, re.MULTILINE))
    assert vectors == table


@given(
    first=st.tuples(ids, ids, ids, st.integers(0, 2**31 - 1), offsets),
    second=st.tuples(ids, ids, ids, st.integers(0, 2**31 - 1), offsets),
)
def test_no_two_proofs_are_alike(first: tuple[str, str, str, int, int], second: tuple[str, str, str, int, int]) -> None:
    """Each field counts, and no proof of one kind serves as one of another."""
    proofs = set()
    for key, stream, leg, attempt, received in {first, second}:
        proofs.add(resume_proof(key, stream=stream, leg=leg, attempt=attempt, received=received))
        for done in (False, True):
            proofs.add(resumed_proof(key, stream=stream, leg=leg, received=received, done=done))
    expected = 3 if first == second else 6
    if first[:3] + first[4:] == second[:3] + second[4:] and first != second:
        expected = 4  # `resumed` says nothing of the attempt: no leg has two
    assert len(proofs) == expected
