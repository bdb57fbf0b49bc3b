"""Names and paths: what is served, and at exactly which path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.protocol.endpoints import DEFAULT_TUNNEL, Role, is_tunnel, leg_path, parse_leg_path

PATHS = st.lists(st.sampled_from(["/", "host", "client", "mc", "probe", "http:", "x", ".", "%2F", "?"]), max_size=6)


@pytest.mark.parametrize("role", ["host", "client"])
def test_a_path_names_role_and_tunnel(role: Role) -> None:
    """With or without a tunnel."""
    assert parse_leg_path(leg_path(role, "mc")) == (role, "mc")
    assert parse_leg_path(f"/{role}") == (role, DEFAULT_TUNNEL)


@given(PATHS.map("".join))
def test_nothing_else_is_served(path: str) -> None:
    """Each of these is a path of a leg, or not one at all: nothing before, after or between is passed over."""
    parsed = parse_leg_path(path)
    if parsed is None:
        assert path not in ("/host", "/client", "/host/mc", "/client/mc")
    else:
        role, tunnel = parsed
        assert is_tunnel(tunnel)
        assert path in (leg_path(role, tunnel), f"/{role}")
