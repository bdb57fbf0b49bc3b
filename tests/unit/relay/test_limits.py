"""How much anybody may have of the relay."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from tunnel_core.protocol.control import EARLY_DATA
from tunnel_core.protocol.tokens import Grant
from tunnel_core.service.settings import Secret
from tunnel_relay.access import Denied
from tunnel_relay.limits import SHARES, SPARE_RESUMES, Limits
from tunnel_relay.settings import RelaySettings

HERE, THERE = "192.0.2.1", "192.0.2.2"


def limits(**settings: Any) -> Limits:
    """Limits as a relay's settings give them."""
    return Limits(RelaySettings(secret=Secret("x" * 32), **({"max_legs": 100} | settings)))


def grant(number: int = 1, streams: int | None = None) -> Grant:
    """What a token says."""
    return Grant("someone", "client", ("mc",), 2e9, f"id{number}", streams)


# Legs.


@pytest.mark.parametrize(
    ("settings", "address", "of", "status", "label"),
    [
        ({"max_legs": 3}, THERE, grant(2), HTTPStatus.SERVICE_UNAVAILABLE, "legs"),
        ({"max_legs_per_address": 3}, HERE, grant(2), HTTPStatus.TOO_MANY_REQUESTS, "legs-per-address"),
        ({"max_legs_per_token": 3}, THERE, grant(1), HTTPStatus.TOO_MANY_REQUESTS, "legs-per-token"),
    ],
)
def test_one_leg_too_many_is_refused_until_one_goes(
    settings: dict[str, int], address: str, of: Grant, status: HTTPStatus, label: str
) -> None:
    """In all, of an address, with a token: the answer says when to come again, and counts under its name."""
    limit = limits(**settings)
    for _ in range(3):
        limit.check_leg(HERE, grant())
        limit.add_leg(HERE, grant())
    with pytest.raises(Denied) as caught:
        limit.check_leg(address, of)
    assert (caught.value.response.status, caught.value.label) == (status, label)
    assert int(caught.value.response.headers["Retry-After"]) > 0
    limit.remove_leg(HERE, grant())
    limit.check_leg(address, of)


def test_a_paired_host_leg_counts_in_all_alone() -> None:
    """Its client's leg counts for the client; it makes room for another of the same host."""
    limit = limits(max_legs_per_token=1, max_legs_per_address=1, max_legs=2)
    limit.add_leg(HERE, grant())
    limit.host_paired(HERE, grant())
    limit.check_leg(HERE, grant())
    limit.add_leg(HERE, grant())
    with pytest.raises(Denied):
        limit.check_leg(THERE, grant(2))
    limit.remove_leg(HERE, grant(), paired_host=True)
    with pytest.raises(Denied) as caught:
        limit.check_leg(HERE, grant())
    assert caught.value.label == "legs-per-address"
    limit.remove_leg(HERE, grant())
    assert (limit._legs, limit._by_address, limit._by_token) == (0, {}, {})


def test_others_have_their_own_share() -> None:
    """Another address, another token, and none: each counts for itself."""
    limit = limits(max_legs_per_address=2, max_legs_per_token=2)
    for number in range(2):
        limit.add_leg(f"198.51.100.{number}", grant(1))
        limit.add_leg(HERE, None)
    limit.check_leg(THERE, grant(2))
    limit.check_leg(THERE, None)


def test_nothing_is_kept_of_clients_that_left() -> None:
    """A million strangers, one after the other, leave no memory of themselves."""
    limit = limits()
    for number in range(50):
        limit.add_leg(f"198.51.100.{number}", grant(number))
        limit.add_stream(grant(number))
    for number in range(50):
        limit.remove_stream(grant(number))
        limit.remove_leg(f"198.51.100.{number}", grant(number))
    assert not limit._by_address
    assert not limit._by_token
    assert not limit._streams


def test_streams_of_a_token() -> None:
    """As many as the relay allows, or as the token itself says; where no tokens are asked for, any number."""
    limit = limits(max_streams_per_token=2)
    few, many, nobody = grant(1, streams=1), grant(2), None
    for of, allowed in ((few, 1), (many, 2), (nobody, 10)):
        for _ in range(allowed):
            assert limit.may_open(of)
            limit.add_stream(of)
    assert not limit.may_open(few)
    assert not limit.may_open(many)
    assert limit.may_open(nobody)
    limit.remove_stream(few)
    assert limit.may_open(few)


def test_resumes_of_a_token() -> None:
    """All its streams may move at once, and some more than once; they count as its streams do."""
    limit = limits(max_streams_per_token=5)
    for _ in range(5):
        limit.add_stream(grant())
    for _ in range(5 + SPARE_RESUMES):
        assert not limit.may_open(grant())
        assert limit.may_resume(grant())
        limit.add_stream(grant())
    assert not limit.may_resume(grant())
    assert limit.may_resume(None)
    limit.remove_stream(grant())
    assert limit.may_resume(grant())


def test_what_waits_is_bounded_in_all_and_for_each() -> None:
    """A quarter for one token; what is paired or leaves makes room; nothing is kept of who left."""
    limit = limits(max_waiting_memory=400)
    assert limit.hold("a", 60)
    assert limit.hold("a", 40)
    assert not limit.hold("a", 1)
    assert all(limit.hold(name, 100) for name in "bcd")
    assert not limit.hold("e", 1)
    limit.let_go("a", 60)
    assert limit.hold("e", 60)
    assert not limit.hold("a", 1)
    for name, size in (("a", 40), ("b", 100), ("c", 100), ("d", 100), ("e", 60), ("f", 0)):
        limit.let_go(name, size)
    assert not limit._held
    assert not limit._held_by


def test_defaults_fit_each_other() -> None:
    """Every stream that a token may have can wait with all the data that it may send at once, and move."""
    settings = RelaySettings(secret=Secret("x" * 32))
    assert settings.max_waiting_memory // SHARES >= settings.max_streams_per_token * (EARLY_DATA + 1024)
    assert settings.max_legs_per_token >= 2 * settings.max_streams_per_token
    assert settings.max_legs_per_address >= settings.max_legs_per_token


# Failed logins.


def test_bad_tokens_slow_an_address_down_and_no_other() -> None:
    """So many at once; then it is told how long to wait, and that is long enough."""
    limit = limits(max_failed_logins=3, failed_login_refill=10.0)
    assert [limit.login_failed(HERE, 0.0) for _ in range(3)] == [0, 0, 0]
    wait = limit.login_failed(HERE, 0.0)
    assert 10 <= wait <= 11
    assert limit.login_failed(HERE, 0.0) == wait, "an attempt that comes too early does not make it longer"
    assert limit.login_failed(THERE, 0.0) == 0
    assert limit.login_failed(HERE, float(wait)) == 0
    assert limit.login_failed(HERE, wait + 1.0) > 0
    assert limit.login_failed(HERE, wait + 30.0) == 0


def test_one_subscriber_is_one_address() -> None:
    """Whoever has a /64 does not get 2^64 times the tries."""
    limit = limits(max_failed_logins=2)
    assert [limit.login_failed(f"2001:db8::{number}", 0.0) > 0 for number in range(3)] == [False, False, True]
