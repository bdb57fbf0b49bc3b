"""Which tunnel a name leads to."""

from __future__ import annotations

import pytest
from tunnel_core.errors import UsageError
from tunnel_core.protocol.routes import Route, Routes, parse_route


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("mc.example.com=mc", Route("mc.example.com", "mc")),
        ("MC.Example.com.=mc", Route("mc.example.com", "mc")),
        ("192.0.2.1=mc", Route("192.0.2.1", "mc")),
        ("*.play.example.com", Route("play.example.com", "")),
        ("*.Play.example.com.", Route("play.example.com", "")),
    ],
)
def test_forms(text: str, route: Route) -> None:
    """A name, or all names that stand one label below one."""
    assert parse_route(text) == route


@pytest.mark.parametrize(
    "text",
    ["mc.example.com", "*.play.example.com=mc", "*=mc", "*", "*.", "=mc", "mc.example.com=", "a=B", "a b=mc", "*.*.x"],
)
def test_invalid_routes_are_refused(text: str) -> None:
    """One line says what to write."""
    with pytest.raises(UsageError, match="write"):
        parse_route(text)


ROUTES = Routes(
    [parse_route(text) for text in ("mc.example.com=mc", "*.play.example.com", "lobby.play.example.com=hall")]
)


@pytest.mark.parametrize(
    ("name", "tunnel"),
    [
        ("mc.example.com", "mc"),
        ("survival.play.example.com", "survival"),
        ("lobby.play.example.com", "hall"),
        ("play.example.com", ""),
        ("a.b.play.example.com", ""),
        ("_x.play.example.com", ""),
        (".play.example.com", ""),
        ("other.example.com", ""),
        ("", ""),
    ],
)
def test_where_a_name_leads(name: str, tunnel: str) -> None:
    """One that is given itself comes first; `*` is one label, and a tunnel's name."""
    assert ROUTES.tunnel(name) == tunnel
