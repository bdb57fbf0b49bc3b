"""Peers of the relay that ask, and never read the answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
import support.peer
from support.apps import Streams
from support.peer import Opcode, Peer
from support.system import System, bearer
from tunnel_core.net.liveness import LegTimes
from tunnel_core.net.outgoing import MANY_WRITES

PING = b"?" * 125


async def narrow(port: int, host: str = "127.0.0.1") -> Streams:
    """A connection whose kernel takes little that nobody reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, port))
    return await asyncio.open_connection(sock=sock, limit=1024)


@pytest.mark.parametrize(
    ("path", "v1"), [("/host/mc", False), ("/client/mc", False), ("/client/mc", True), ("/probe/client/mc", True)]
)
async def test_who_asks_and_never_reads_is_lost(
    loop_factory: Any, path: str, v1: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it pings all the time. Until then little is kept for it."""
    monkeypatch.setattr(support.peer, "connect", narrow)
    async with System(legs=LegTimes(tick=0.05, stuck=0.3), max_message_rate=10**6) as system:
        role = "host" if "host" in path else "client"
        peer = await Peer.dial(system.relay.port, path, bearer(role), v1=v1)  # type: ignore[arg-type]
        (leg,) = system.relay._monitor._legs
        assert leg._transport is not None
        leg._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        most = 0
        while leg.connected:
            with contextlib.suppress(OSError):
                await peer.send(PING, Opcode.PING)
            await asyncio.sleep(0)
            most = max(most, leg.unsent)
        assert 0 < most <= 2 * MANY_WRITES * (len(PING) + 2)
        assert leg.ended
        peer.reset()
