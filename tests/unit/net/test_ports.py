"""Addresses to listen on: what each way of naming them means."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

import pytest
from tunnel_core.net import ports

V4, V6 = (socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0, 0, 0))
NOT_OURS = (socket.AF_INET, ("192.0.2.1", 0))


def reached(host: str, port: int) -> list[str]:
    """The loopback addresses at which a connection is accepted while this is listened on."""
    found = []
    with contextlib.ExitStack() as stack:
        listening = ports.listen(host, port)
        for sock in listening:
            stack.callback(sock.close)
        (number,) = {sock.getsockname()[1] for sock in listening}
        for address in ("127.0.0.1", "127.0.0.2", "::1"):
            with contextlib.suppress(OSError), socket.create_connection((address, number), 5):
                found.append(address)
    return found


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What names mean here: each a list of (family, address)."""
    meanings: dict[str, list[Any]] = {}
    resolve = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        if host not in meanings:
            return resolve(host, *arguments, **options)
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in meanings[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return meanings


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2"]),
        ("::", ["127.0.0.1", "127.0.0.2", "::1"]),
    ],
)
def test_addresses(host: str, expected: list[str]) -> None:
    """Each is listened on alone, but for those that mean all."""
    assert reached(host, 0) == expected


def test_a_name_is_listened_on_at_all_its_addresses(names: dict[str, list[Any]]) -> None:
    """On the same port: `localhost` may be ::1 for one program, and 127.0.0.1 for the next."""
    names["both"] = [V6, V4, V4]
    assert reached("both", 0) == ["127.0.0.1", "::1"]


def test_addresses_of_a_name_that_are_not_here_are_left_out(names: dict[str, list[Any]]) -> None:
    """As ::1 is where there is no IPv6; a name that has no other cannot be listened on."""
    names["partly"], names["elsewhere"] = [NOT_OURS, V4], [NOT_OURS]
    assert reached("partly", 0) == ["127.0.0.1"]
    with pytest.raises(ports.ListenFailed, match=r"cannot listen on elsewhere:0: .*: choose an address of this"):
        ports.listen("elsewhere", 0)


def test_a_port_that_is_in_use_on_one_address(names: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Is an error if it was asked for, and passed over if any would do."""
    names["both"] = [V6, V4]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ports.ListenFailed, match=f"cannot listen on both:{port}: Address already in use"):
            ports.listen("both", port)
    bind, tries = ports._bind_all, 0

    def unlucky(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return bind(*arguments)

    monkeypatch.setattr(ports, "_bind_all", unlucky)
    assert reached("both", 0) == ["127.0.0.1", "::1"]
