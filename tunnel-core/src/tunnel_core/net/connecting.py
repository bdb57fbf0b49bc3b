"""Connecting to an address: resolves names afresh and tries both address families."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Final

import aiohappyeyeballs

from . import names
from .address import Address, is_ip
from .sockets import tune

CONNECT_TIMEOUT: Final = 10.0  # seconds: about as long as a person waits before retrying by hand
RACE_DELAY: Final = 0.25  # seconds before the other address family is tried as well (RFC 8305 section 8)


async def connect(address: Address, patience: float = CONNECT_TIMEOUT) -> socket.socket:
    """A connected, tuned socket. The name is resolved each time; IPv6 and IPv4 are raced (RFC 8305).

    Raises OSError (TimeoutError after `patience` seconds).
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(patience):
        if address.is_unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address.host)
            except BaseException:
                sock.close()
                raise
            return sock
        infos: Sequence[Any]
        if is_ip(address.host):  # an address needs no resolver thread
            infos = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        else:
            infos = await names.resolve(*address)
        sock = await aiohappyeyeballs.start_connection(infos, happy_eyeballs_delay=RACE_DELAY)
    tune(sock)
    return sock
