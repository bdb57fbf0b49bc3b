"""The way to the relay, and that it has changed."""

from __future__ import annotations

import socket

import pytest
from tunnel_core.net import route
from tunnel_core.net.route import RouteWatch, SocketAddress, source_address


def test_the_address_that_the_kernel_would_use() -> None:
    """Of this machine, for either family; nothing where there is no way."""
    assert source_address(("127.0.0.1", 9)) == "127.0.0.1"
    if socket.has_dualstack_ipv6():
        assert source_address(("::1", 9, 0, 0)) == "::1"
    assert source_address(("2001:db8::1%nonexistent", 9)) is None


def test_changes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another address, and one after there was none; not that there is none, nor that the relay is elsewhere."""
    at: SocketAddress | None = None
    source: str | None = None
    changes: list[str | None] = []
    monkeypatch.setattr(route, "source_address", lambda peer: source)
    watch = RouteWatch(lambda: at, lambda: changes.append(source), 3600)
    watch.look()
    at = "192.0.2.1", 443
    for now in ("10.0.0.2", "10.0.0.2", "10.0.0.3", None, None, "10.0.0.3", "10.0.0.3"):
        source = now
        watch.look()
    assert changes == ["10.0.0.3", "10.0.0.3"]
    at, source = ("127.0.0.1", 443), "127.0.0.1"
    watch.look()
    assert changes == ["10.0.0.3", "10.0.0.3"]
