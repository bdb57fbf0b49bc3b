"""What an agent says of answers that open no leg, and of certificates it does not believe: each its own advice."""

from __future__ import annotations

import datetime as dt
import ssl
from typing import Any

import pytest
import trustme
from tunnel_core.errors import AccessDenied, RelayUnavailable
from tunnel_core.net import refusals
from websockets.datastructures import Headers
from websockets.http11 import Response

RELAY, PATH = "wss://relay.example.com/sub", "/client/mc"
RELAYS = {"Tunnel-Relay": "tcp-ws-tunnel", "Content-Type": "text/plain; charset=utf-8"}
PAGE = {"Content-Type": "text/html"}
WALL = "<!DOCTYPE html><html><head>\n<title>Attention\nRequired! | Wall</title></head><body>token=hunter2</body></html>"


def answer(status: int, body: str = "", headers: dict[str, str] | None = None, phrase: str = "Phrase") -> Any:
    """The error for an answer."""
    response = Response(status, phrase, Headers(headers or {}), body.encode())
    return refusals.of_answer(response, RELAY, PATH, "client")


@pytest.mark.parametrize("status", [401, 403])
def test_only_the_relay_refuses_a_token(status: int) -> None:
    """What a firewall or a login wall says is tried again: it says nothing about the token."""
    ours = answer(status, "the token is not valid\n", RELAYS)
    assert isinstance(ours, AccessDenied)
    assert ours.reason == "the relay refuses this client: the token is not valid"
    for body, headers in ((WALL, PAGE), ("", {}), ("denied", {"Server": "tcp-ws-tunnel"})):
        theirs = answer(status, body, headers)
        assert isinstance(theirs, RelayUnavailable)
        assert "not the relay, but something before it" in theirs.advice
        assert "--header" in theirs.advice


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "advice"),
    [
        (200, WALL, PAGE, "200: Attention Required! | Wall", "a web page is no relay: is the URL the relay's"),
        (200, "hello\nworld", {}, "200: hello", "a web page is no relay"),
        (400, "<html>", PAGE, "400: Phrase", "a proxy on the way may take the WebSocket headers away"),
        (403, "<html>", {}, "403: Phrase", "not the relay, but something before it forbids this"),
        (404, "no such page", {}, "404: no such page", "there is nothing of a relay at this address"),
        (426, "", {}, "426: Phrase", "a proxy on the way takes the WebSocket headers away"),
        (429, "slow down", {}, "429: slow down", "something before the relay limits how often one may dial"),
        (502, "<html><body>Bad", PAGE, "502: Phrase", "the proxy there does not reach the relay"),
        (503, "", {}, "503: Phrase", "the relay is not running there, or is just starting"),
        (504, "<title>504 Gateway Time-out</title>", PAGE, "504: Gateway Time-out", "the proxy there gets no answer"),
        (505, "unsupported HTTP", {}, "505: unsupported HTTP", "a proxy on the way speaks HTTP/1.0: have it use"),
        (521, "", {}, "521: Phrase", "the proxy before the relay has a fault"),
        (418, "full\x1b[2J" + "x" * 500, {}, "418: full[2J" + "x" * 193, "is the URL the relay's"),
        (429, "too many bad tokens: wait\n", RELAYS, "429: too many bad tokens: wait", ""),
        (503, "the relay is full\n", RELAYS, "503: the relay is full", ""),
        (
            404,
            "legs are at …\n",
            RELAYS,
            "404: legs are at …",
            "have the proxy before the relay take /sub off the path",
        ),
        (426, "Failed to open a WebSocket connection", RELAYS, "426: Failed", "a proxy on the way takes the WebSocket"),
    ],
)
def test_each_answer_has_its_own_advice(
    status: int, body: str, headers: dict[str, str], reason: str, advice: str
) -> None:
    """A page is not shown, but for its title."""
    error = answer(status, body, headers)
    assert isinstance(error, RelayUnavailable)
    assert error.reason.startswith(f"{RELAY} answered HTTP {reason}")
    assert error.advice.startswith(advice)
    assert bool(error.advice) == bool(advice)
    assert "<" not in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("status", "location", "shown", "advice"),
    [
        (301, "https://tunnel.example.net/client/mc", "https://tunnel.example.net/client/mc",
         "give --relay wss://tunnel.example.net"),
        (308, "http://relay.example.com/client/mc?t=hunter2", "http://relay.example.com/client/mc",
         "it leads away from TLS: have that redirect mended"),
        (301, "/sub/client/mc/", "https://relay.example.com/sub/client/mc/", "a proxy on the way adds a slash"),
        (302, "/login?to=hunter2", "https://relay.example.com/login", "something before the relay asks for a login"),
        (302, "https://me:hunter2@id.example.com/auth", "https://id.example.com/auth", "something before the relay"),
        (307, "gopher://x/client/mc", "gopher://x/client/mc", "something before the relay"),
        (302, "/sub/client/mc", "https://relay.example.com/sub/client/mc", "something before the relay"),
        (303, "http://[x", "", "is the URL the relay's"),
    ],
)  # fmt: skip
def test_redirects(status: int, location: str, shown: str, advice: str) -> None:
    """A relay that has moved, an added slash and a login wall are told apart; no query is shown."""
    error = answer(status, "", {"Location": location})
    assert f"answered HTTP {status}" in error.reason
    assert shown in error.reason
    assert error.advice.startswith(advice)
    assert "hunter2" not in str(error)


def test_retry_after_of_the_relay_is_honoured() -> None:
    """In whole seconds; what else stands there is nothing."""
    assert answer(503, "", {**RELAYS, "Retry-After": "30"}).retry_after == 30
    assert answer(503, "", {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}).retry_after is None


# Certificates.

NOW = dt.datetime.now(tz=dt.UTC)
DAY = dt.timedelta(days=1)


def failure(context: ssl.SSLContext, server: ssl.SSLContext, name: str) -> ssl.SSLError:
    """What a client's handshake with a server fails with."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_client, to_server, server_hostname=name)
    its = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for side in (ours, its):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as exc:
                assert side is ours
                return exc
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(
    ("whose", "name", "dates", "advice"),
    [
        ("another's", "relay.test", {}, "give its CA with --ca-file"),
        ("ours", "relay.test", {"not_before": NOW - 3 * DAY, "not_after": NOW - DAY}, "it has to be renewed there"),
        ("ours", "relay.test", {"not_before": NOW + DAY, "not_after": NOW + 3 * DAY}, "set this machine's clock"),
        ("ours", "other.test", {}, "write the name that it is for in --relay, or give that name with --relay-host"),
        ("ours", "127.0.0.1", {}, "write the name that it is for"),
    ],
)
def test_each_bad_certificate_has_its_own_advice(whose: str, name: str, dates: dict[str, Any], advice: str) -> None:
    """Its CA is asked for only if that is what is missing."""
    ours, other = trustme.CA(), trustme.CA()
    client = ssl.create_default_context()
    ours.configure_trust(client)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (ours if whose == "ours" else other).issue_cert("relay.test", **dates).configure_cert(server)
    exc = failure(client, server, name)
    error = refusals.of_error(exc, "wss://relay.test", None)
    assert error.reason.startswith("the certificate of wss://relay.test is not trusted (")
    assert error.advice.startswith(advice)
    if whose != "ours":
        assert refusals.of_error(exc, "wss://relay.test", "ca.pem").advice == "its CA is not the one of --ca-file"


def test_no_tls_and_broken_tls() -> None:
    """Another protocol is not the same as TLS that does not agree."""
    plain = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    plain.reason = "WRONG_VERSION_NUMBER"
    assert refusals.of_error(plain, RELAY, None).advice == "is it ws:// there, or another port?"
    alert = ssl.SSLError(1, "[SSL: TLSV1_UNRECOGNIZED_NAME] tlsv1 unrecognized name")
    alert.reason = "TLSV1_UNRECOGNIZED_NAME"
    assert "host name" in refusals.of_error(alert, RELAY, None).advice
