"""Socket options, and what the system says of sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import sys
from typing import Final

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
# A peer that is gone without a word is noticed after 60 s idle and 4 probes 15 s apart.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _KEEPALIVE if hasattr(socket, name)),
)
# CVE-2024-12254
_FORGETFUL: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)


def why(exc: BaseException) -> str:
    """What went wrong, in the system's own few words where it has some."""
    if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror | ssl.SSLError) and exc.errno:
        return os.strerror(exc.errno)
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__


def tune(sock: socket.socket) -> None:
    """No Nagle (its wait for a delayed ack costs 40 ms), keepalive, and urgent data in line with all other bytes.

    Accepted sockets inherit all three from the listening one. Tune others before they are read.
    """
    if sock.family == getattr(socket, "AF_UNIX", None) or sock.fileno() < 0:
        return  # no TCP, or closed already
    # The socket of a transport of uvloop's makes and drops one of Python's for each option.
    plain = socket.socket(sock.family, sock.type, sock.proto, sock.fileno())
    try:
        for level, option, value in _OPTIONS:
            plain.setsockopt(level, option, value)
    finally:
        plain.detach()


def reset_on_close(sock: socket.socket | None) -> None:
    """Make the next close send RST instead of FIN. Of a socket that is closed there is nothing to make."""
    if sock is not None and sock.fileno() >= 0 and sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


def unread_of(sock: socket.socket) -> socket.socket | None:
    """A second descriptor for what a socket that is about to be closed has received. None if all was read."""
    try:
        unread = socket.fromfd(sock.fileno(), sock.family, sock.type, sock.proto)
    except OSError:
        return None  # out of descriptors
    try:
        unread.setblocking(False)
        if unread.recv(1, socket.MSG_PEEK):
            return unread
    except OSError:
        pass
    unread.close()
    return None


def forgets_to_pause(transport: asyncio.Transport) -> bool:
    """Whether its `writelines` never says that too much waits, as of asyncio's own sockets in some versions."""
    return _FORGETFUL and type(transport).__module__ == "asyncio.selector_events"
