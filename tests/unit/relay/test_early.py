"""What waits at the relay for a peer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.protocol.control import Fin, Reset, encode, from_client
from tunnel_core.protocol.endpoints import new_id
from tunnel_relay.early import ITEM, Early, EarlyMessage


@given(st.lists(st.one_of(st.binary(max_size=20), st.just(None)), max_size=30))
def test_what_comes_early_keeps_its_order(brought: list[bytes | None]) -> None:
    """Data that comes in many pieces is one item, and costs its bytes; each message costs more than its own."""
    early = Early()
    cost = 0
    expected: list[bytes | None] = []
    for data in brought:
        if data is None:
            cost += early.add_message(b"{}", object())
            expected.append(None)
        else:
            cost += early.add_data((data[:7], memoryview(data)[7:]), len(data))
            if expected and expected[-1] is not None:
                expected[-1] += data
            else:
                expected.append(data)
    assert [None if isinstance(item, EarlyMessage) else bytes(item) for item in early.items] == expected
    assert cost == len(expected) * ITEM + sum(2 if item is None else len(item) for item in expected)


def test_the_end_is_decoded_once() -> None:
    """Of messages only those are kept decoded that a raw peer is to be told in another way."""
    fin, reset = Fin(new_id(), 7), Reset(new_id(), "why")
    early = Early()
    for message in (fin, reset):
        early.add_message(encode(message), from_client(encode(message)))
    early.add_message(b"{}", object())
    assert [item.end for item in early.items if isinstance(item, EarlyMessage)] == [fin, reset, None]
