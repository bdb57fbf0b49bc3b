"""Open ports: listening on an address, and accepting what comes."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..errors import TunnelError
from .address import Address
from .sockets import tune, why

BACKLOG: Final = 1024
BATCH: Final = 8  # connections that asyncio accepts in one iteration of its loop
# Descriptors by which a bound on accepted connections is passed: asyncio tells of a connection two iterations
# after accepting it, and closes one an iteration after the call.
OVERSHOOT: Final = 3 * BATCH
FREE_PORT_TRIES: Final = 10  # one that is free on one address is seldom in use on the next

_LISTEN_HINTS: Final = {
    errno.EADDRINUSE: ": choose another port, or stop what uses this one",
    errno.EADDRNOTAVAIL: ": choose an address of this machine",
    errno.EACCES: ": choose a port from 1024 on",
}


class ListenFailed(TunnelError):
    """An address that cannot be listened on: in use, not ours, or not permitted."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets, tuned: one for each address that `host` means, and one alone for `::`, which is all addresses.

    Port 0 picks a port that is free on all of them. Raises ListenFailed.
    """
    try:
        places = _local_addresses(host)
        for _ in range(FREE_PORT_TRIES if port == 0 else 0):
            try:
                return _bind_all(places, port)
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise
        return _bind_all(places, port)
    except OSError as exc:
        hint = _LISTEN_HINTS.get(exc.errno or 0, "")
        raise ListenFailed(f"cannot listen on {Address(host, port)}: {why(exc)}{hint}") from exc


def _local_addresses(host: str) -> list[tuple[int, tuple[Any, ...]]]:
    """(family, address with port 0) of each place that `host` means. Raises OSError."""
    if host == "::" and socket.has_dualstack_ipv6():
        return [(socket.AF_INET6, ("::", 0))]
    found = socket.getaddrinfo("0.0.0.0" if host == "::" else host, 0, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bind_all(places: Sequence[tuple[int, tuple[Any, ...]]], port: int) -> list[socket.socket]:
    """Listen at all places, on the same port. Those of a name that this machine lacks are left out, unless all are."""
    listening: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, (address, _, *scope) in places:
            both = (family, address) == (socket.AF_INET6, "::") and len(places) == 1 and not scope
            try:
                sock = socket.create_server(
                    (address, port, *scope), family=family, backlog=BACKLOG, dualstack_ipv6=both
                )
            except OSError as exc:
                if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = exc  # `localhost` names ::1 also where there is no IPv6
                continue
            listening.append(sock)
            port = sock.getsockname()[1]
            tune(sock)
            sock.setblocking(False)
        if not listening and missing is not None:
            raise missing
    except OSError:
        for sock in listening:
            sock.close()
        raise
    return listening


async def accept(make_protocol: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> asyncio.Server:
    """Accept connections on `sock`, which is the server's from now on."""
    # A server of asyncio's sets the backlog anew, and accepts that many connections in one iteration.
    server = await asyncio.get_running_loop().create_server(make_protocol, sock=sock, backlog=BATCH)
    sock.listen(BACKLOG)
    return server
