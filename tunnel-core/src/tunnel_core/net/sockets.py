"""Socket options, addresses, and opening connections."""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import os
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import aiohappyeyeballs

from ..errors import TunnelError, UsageError
from . import names

CONNECT_TIMEOUT: Final = 10.0  # seconds: what a person waits before trying again by hand
BACKLOG: Final = 1024
BATCH: Final = 8  # connections that asyncio accepts in one turn of its loop
# Descriptors by which a bound on accepted connections is passed: asyncio tells of a connection two turns
# after accepting it, and closes one a turn after it is told to.
OVERSHOOT: Final = 3 * BATCH
FREE_PORT_TRIES: Final = 10  # one that is free on one address is seldom in use on the next
RACE_DELAY: Final = 0.25  # seconds before the other address family is tried too (RFC 8305 section 8)
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

_LISTEN_HINTS: Final = {
    errno.EADDRINUSE: ": choose another port, or stop what uses this one",
    errno.EADDRNOTAVAIL: ": choose an address of this machine",
    errno.EACCES: ": choose a port from 1024 on",
}


class ListenFailed(TunnelError):
    """An address that cannot be listened on: in use, not ours, or not permitted."""


class Address(NamedTuple):
    """A TCP address, or with `port` 0 and a `host` that begins with `/` a Unix socket."""

    host: str
    port: int

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_port(text: str, *, lowest: int = 0) -> int:
    """A port number. Raises UsageError."""
    if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= 65535:
        raise UsageError(f"'{text}' is not a port: write a number from {lowest} to 65535")
    return int(text)


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`. Raises UsageError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise UsageError(f"'{text}' is not a Unix socket: write unix:/the/full/path")
        return Address(path, 0)
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise UsageError(f"'{text}' is not an address: write HOST:PORT, such as 127.0.0.1:25565")
    return Address(parse_host(host), parse_port(port, lowest=1))


def why(exc: BaseException) -> str:
    """What went wrong, in the system's own few words where it has some."""
    if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror | ssl.SSLError) and exc.errno:
        return os.strerror(exc.errno)
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__


def parse_host(text: str) -> str:
    """A host name or IP address; IPv6 in brackets. Raises UsageError."""
    host = text
    if text.startswith("[") and text.endswith("]"):
        host = text[1:-1]
        if is_ip(host, 6):
            return host
    elif ":" not in text and text and not any(c.isspace() or c in "/@[]" for c in text) and _is_name(text):
        return host
    hint = f"[{text}]" if is_ip(text, 6) else "a name, an IPv4 address, or an IPv6 address in brackets"
    raise UsageError(f"'{text}' is not a host: write {hint}")


def parse_local_host(text: str) -> str:
    """An address to listen on, where no port follows it: `*` is all addresses, and IPv6 needs no brackets.

    Raises UsageError.
    """
    if text == "*":
        return "::"
    return text if is_ip(text, 6) else parse_host(text)


def _is_name(host: str) -> bool:
    """Whether a resolver can be asked for `host`: no empty part of a name, and none over 63 characters."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


@functools.lru_cache(maxsize=256)
def is_ip(host: str, version: int = 0) -> bool:
    """Whether `host` is an IP address and no name; `version` 4 or 6 asks for one of these."""
    try:
        return version in (0, ipaddress.ip_address(host).version)
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's own loopback, by its name or number alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


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
    # A server of asyncio's sets the backlog anew, and accepts that many connections in one turn.
    server = await asyncio.get_running_loop().create_server(make_protocol, sock=sock, backlog=BATCH)
    sock.listen(BACKLOG)
    return server


async def connect(address: Address, patience: float = CONNECT_TIMEOUT) -> socket.socket:
    """A connected, tuned socket. The name is resolved anew; IPv6 and IPv4 are raced (RFC 8305).

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
        if is_ip(address.host):  # no thread for what needs no resolver
            infos = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        else:
            infos = await names.resolve(*address)
        sock = await aiohappyeyeballs.start_connection(infos, happy_eyeballs_delay=RACE_DELAY)
    tune(sock)
    return sock
