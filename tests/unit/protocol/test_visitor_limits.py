"""How much visitors may have of a gateway."""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tunnel_core.protocol.tries import REMEMBERED
from tunnel_core.protocol.visitor_limits import Turned, VisitorLimits

HERE, THERE = "192.0.2.1", "192.0.2.2"


def limits(**changed: Any) -> VisitorLimits:
    """So much that nothing is in the way, but for what is asked for."""
    usual = {"connections": 1000, "per_tunnel": 1000, "per_address": 1000, "rate_per_address": 1000}
    return VisitorLimits(**(usual | changed))


def test_so_many_in_all_and_of_an_address() -> None:
    """One too many is turned away until one leaves; a network of IPv6 is one address."""
    all_of_it = limits(connections=2)
    assert [all_of_it.admit(HERE, 0), all_of_it.admit(THERE, 0)] == [None, None]
    assert all_of_it.admit("192.0.2.3", 0) is Turned.CONNECTIONS
    all_of_it.leave(HERE)
    assert all_of_it.admit("192.0.2.3", 0) is None

    each = limits(per_address=1)
    assert [each.admit("2001:db8::1", 0), each.admit(HERE, 0)] == [None, None]
    assert each.admit("2001:db8::2", 0) is Turned.PER_ADDRESS
    assert each.admit("2001:db8:0:1::2", 0) is None
    each.leave("2001:db8::2")
    assert each.admit("2001:db8::3", 0) is None


def test_so_many_for_a_tunnel() -> None:
    """Who asks for another tunnel is not in the way."""
    each = limits(per_tunnel=1)
    assert each.enter(HERE, "mc") is None
    assert each.enter(THERE, "mc") is Turned.PER_TUNNEL
    assert each.enter(THERE, "db") is None


def test_so_many_in_ten_seconds() -> None:
    """Who comes and goes and comes again; one who was turned away for it is admitted later."""
    each = limits(rate_per_address=10)
    assert [each.admit(HERE, 0) for _ in range(11)] == [None] * 10 + [Turned.RATE]
    assert each.admit(THERE, 0) is None
    assert each.admit(HERE, 1.0) is None
    assert each.admit(HERE, 1.0) is Turned.RATE
    assert [each.admit(HERE, 11.1) for _ in range(11)] == [None] * 10 + [Turned.RATE]


def test_only_from_where_it_is_allowed() -> None:
    """A tunnel of which nothing is said is for everybody; IPv4 is IPv4 also inside IPv6."""
    some = limits(allowed={"mc": [ipaddress.ip_network("192.0.2.0/31"), ipaddress.ip_network("2001:db8::/32")]})
    for address in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8:1::1"):
        assert some.enter(address, "mc") is None
    for address in ("192.0.2.2", "2001:db9::1", "a Unix socket"):
        assert some.enter(address, "mc") is Turned.NOT_ALLOWED
        assert some.enter(address, "db") is None


def test_a_flood_is_remembered_in_bounded_memory() -> None:
    """Of those who have left, only the last that tried."""
    some = limits(per_address=1)
    for number in range(REMEMBERED + 100):
        address = str(ipaddress.ip_address(number))
        assert some.admit(address, 0) is None
        some.leave(address)
    assert not len(some)
    assert not some._of_address
    assert len(some._tries._spent) == REMEMBERED


class Gateway(RuleBasedStateMachine):
    """Visitors come, enter and leave in any order; beside it the same is counted plainly."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = limits(connections=5, per_tunnel=3, per_address=2)
        self.inside: list[tuple[str, str]] = []

    @rule(address=st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]))
    def come(self, address: str) -> None:
        same = sum(inside == address for inside, _ in self.inside)
        expected = (
            Turned.CONNECTIONS if len(self.inside) >= 5 else Turned.PER_ADDRESS if same >= 2 else None
        )  # in this order
        assert self.limits.admit(address, 0) is expected
        if expected is None:
            self.inside.append((address, ""))

    @precondition(lambda self: any(not tunnel for _, tunnel in self.inside))
    @rule(tunnel=st.sampled_from(["mc", "db"]))
    def enter(self, tunnel: str) -> None:
        address, _ = visitor = next(visitor for visitor in self.inside if not visitor[1])
        full = sum(inside == tunnel for _, inside in self.inside) >= 3
        assert self.limits.enter(address, tunnel) is (Turned.PER_TUNNEL if full else None)
        if not full:
            self.inside.remove(visitor)
            self.inside.append((address, tunnel))

    @precondition(lambda self: self.inside)
    @rule(which=st.integers(0, 4))
    def leave(self, which: int) -> None:
        self.limits.leave(*self.inside.pop(which % len(self.inside)))

    @invariant()
    def counts(self) -> None:
        assert len(self.limits) == len(self.inside)
        assert self.limits._of_address == Counter(address for address, _ in self.inside)
        assert self.limits._of_tunnel == Counter(tunnel for _, tunnel in self.inside if tunnel)


Gateway.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestGateway = Gateway.TestCase
