"""Notices that this machine has come to another network: what was connected before may be dead, and not say so."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

SocketAddress = tuple[Any, ...]  # as the socket module has it: of IPv4 or IPv6


def source_address(peer: SocketAddress) -> str | None:
    """The address from which this machine would send to `peer` now; None if there is no way there. Sends nothing."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(peer)
            return str(sock.getsockname()[0])
    except OSError:
        return None


class RouteWatch:
    """Looks every `interval` seconds at the way to `peer`, where that is known.

    `changed` is called when the source address is another than before, and when there is one
    again after there was none.
    """

    def __init__(self, peer: Callable[[], SocketAddress | None], changed: Callable[[], None], interval: float) -> None:
        self._peer = peer
        self._changed = changed
        self._interval = interval
        self._at: SocketAddress | None = None  # the peer of the last look
        self._source: str | None = None  # and the way to it
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self.look()
        self.start()

    def look(self) -> None:
        peer = self._peer()
        if peer is None:
            return
        source = source_address(peer)
        known = peer == self._at
        if source != self._source and source is not None and known:
            self._changed()
        self._at, self._source = peer, source
