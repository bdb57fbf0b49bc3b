"""How much anybody may have of the relay, and whose address counts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from tunnel_core.protocol.tokens import Grant
from tunnel_core.service.settings import Secret
from tunnel_relay.access import Denied
from tunnel_relay.limits import REMEMBERED, FailedLogins, Limits, address_key
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


def test_others_have_their_own_share() -> None:
    """Another address, another token, and none: each counts for itself."""
    limit = limits(max_legs_per_address=2, max_legs_per_token=2)
    for number in range(2):
        limit.add_leg(f"198.51.100.{number}", grant(1))
        limit.add_leg(HERE, None)
    limit.check_leg(THERE, grant(2))
    limit.check_leg(THERE, None)


def test_nothing_is_kept_of_who_left() -> None:
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
            assert limit.may_stream(of)
            limit.add_stream(of)
    assert not limit.may_stream(few)
    assert not limit.may_stream(many)
    assert limit.may_stream(nobody)
    limit.remove_stream(few)
    assert limit.may_stream(few)


# Addresses.


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("unix", "unix"),
    ],
)
def test_what_counts_as_one_address(address: str, key: str) -> None:
    """Of IPv6 the network that one subscriber has: else one had 2^64 of them."""
    assert address_key(address) == key


PROXY = ("10.0.0.0/8", "2001:db8:aaaa::/48")


@pytest.mark.parametrize(
    ("trusted", "peer", "said", "address"),
    [
        # Nobody is believed unless it is said so.
        ((), "10.0.0.1", "203.0.113.9", "10.0.0.1"),
        (PROXY, "192.0.2.1", "203.0.113.9", "192.0.2.1"),
        # Who is believed.
        (PROXY, "10.0.0.1", "203.0.113.9", "203.0.113.9"),
        (PROXY, "2001:db8:aaaa::1", "2001:db8::9", "2001:db8::9"),
        # Who forges the first entries gains nothing: the proxy appends whom it saw.
        (PROXY, "10.0.0.1", "127.0.0.1, 203.0.113.9", "203.0.113.9"),
        (PROXY, "10.0.0.1", "10.0.0.99,203.0.113.9 , 10.0.0.2", "203.0.113.9"),
        (PROXY, "10.0.0.1", "203.0.113.9, , ", "203.0.113.9"),
        # Nothing is said, nothing but proxies, or nonsense.
        (PROXY, "10.0.0.1", None, "10.0.0.1"),
        (PROXY, "10.0.0.1", "", "10.0.0.1"),
        (PROXY, "10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.1"),
        (PROXY, "10.0.0.1", "unknown", "10.0.0.1"),
        (PROXY, "10.0.0.1", "203.0.113.9, _hidden", "10.0.0.1"),
        (PROXY, "10.0.0.1", "x" * 8000, "10.0.0.1"),
        # Some proxies add the port.
        (PROXY, "10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        (PROXY, "10.0.0.1", "[2001:db8::9]:4711", "2001:db8::9"),
        (PROXY, "10.0.0.1", "[2001:db8::9]", "2001:db8::9"),
        # IPv4 as a socket of both families writes it.
        (PROXY, "10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        (PROXY, "10.0.0.1", "203.0.113.9, ::ffff:10.0.0.2", "203.0.113.9"),
        # No address at all, as of a Unix socket.
        (PROXY, "unix", "203.0.113.9", "unix"),
    ],
)
@pytest.mark.parametrize("header", ["X-Forwarded-For", "Fly-Client-IP"])
def test_a_proxy_is_believed_if_it_is_trusted(
    trusted: tuple[str, ...], peer: str, said: str | None, address: str, header: str
) -> None:
    """The last address that is no trusted proxy's, of the header that the setting names."""
    limit = limits(trusted_proxy=trusted, client_address_header=header)
    other = "fly-client-ip" if header == "X-Forwarded-For" else "x-forwarded-for"
    headers = {other: "198.51.100.1"} | ({header.lower(): said} if said is not None else {})
    assert limit.address(peer, headers) == address


# Failed logins.


def test_bad_tokens_slow_an_address_down_and_no_other() -> None:
    """So many at once; then it is told how long to wait, and that is long enough."""
    limit = limits(max_failed_logins=3, failed_login_refill=10.0)
    for _ in range(3):
        limit.check_login(HERE, 0.0)
        limit.login_failed(HERE, 0.0)
    with pytest.raises(Denied) as caught:
        limit.check_login(HERE, 0.0)
    assert (caught.value.response.status, caught.value.label) == (HTTPStatus.TOO_MANY_REQUESTS, "failed-logins")
    wait = int(caught.value.response.headers["Retry-After"])
    assert 10 <= wait <= 11
    limit.check_login(THERE, 0.0)
    limit.check_login(HERE, float(wait))
    limit.login_failed(HERE, float(wait))
    with pytest.raises(Denied):
        limit.check_login(HERE, wait + 1.0)
    limit.check_login(HERE, wait + 30.0)


def test_one_subscriber_is_one_address() -> None:
    """Whoever has a /64 does not get 2^64 times the tries."""
    limit = limits(max_failed_logins=2)
    limit.login_failed("2001:db8::1", 0.0)
    limit.login_failed("2001:db8::2", 0.0)
    with pytest.raises(Denied):
        limit.check_login("2001:db8::3", 0.0)


def test_failed_logins_are_forgotten_in_time_and_in_number() -> None:
    """No address is kept out for ever, and strangers do not fill the memory."""
    failed = FailedLogins(burst=2, refill=1.0)
    for number in range(REMEMBERED + 10):
        failed.failed(str(number), 0.0)
        failed.failed(str(number), 0.0)
    assert len(failed._spent) == REMEMBERED
    assert failed.wait("0", 0.0) == 0, "the oldest went first"
    newest = str(REMEMBERED + 9)
    assert failed.wait(newest, 0.0) > 0
    assert failed.wait(newest, 2.0) == 0
