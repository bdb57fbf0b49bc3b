"""The way to the relay through a proxy that the environment names (docs/troubleshooting.md, "Proxies")."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from typing import Any, Final, cast

from python_socks import ProxyError as SocksError
from python_socks import ProxyType
from python_socks.async_.asyncio import Proxy as SocksProxy
from websockets.exceptions import InvalidProxy
from websockets.proxy import Proxy, get_proxy, parse_proxy, prepare_connect_request
from websockets.uri import WebSocketURI

from ..errors import RelayUnavailable, UsageError
from . import names, sockets
from .sockets import Address

PATIENCE: Final = 9.0  # seconds until a proxy has connected: less than a dial has, so that the proxy is named
ADVICE: Final = "mend the variable that names it (http_proxy, https_proxy, all_proxy), or go without it: no_proxy"
MAX_HEAD: Final = 16 * 1024  # bytes of an answer to CONNECT

_SOCKS: Final = {  # scheme → its version, and whether the proxy looks names up
    "socks5h": (ProxyType.SOCKS5, True),
    "socks5": (ProxyType.SOCKS5, False),
    "socks4a": (ProxyType.SOCKS4, True),
    "socks4": (ProxyType.SOCKS4, False),
}
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r\n")
_LOGIN: Final = "write both in the variable that names it: http://USER:PASSWORD@HOST:PORT"


def of_environment(uri: WebSocketURI) -> Proxy | None:
    """The proxy for this relay, if the environment names one. Raises UsageError, which shows nothing of its URL."""
    url = get_proxy(uri)
    if url is None and not urllib.request.proxy_bypass(f"{uri.host}:{uri.port}"):
        url = urllib.request.getproxies().get("all")
    if url is None:
        return None
    if url.startswith("socks://"):
        url = f"socks5h{url[5:]}"
    try:
        return parse_proxy(url)
    except (InvalidProxy, ValueError) as exc:
        raise UsageError("the proxy in the environment is none: write http_proxy=http://HOST:PORT") from exc


def address_of(proxy: Proxy) -> Address:
    return Address(proxy.host, proxy.port)


def url_of(proxy: Proxy) -> str:
    """What `parse_proxy` makes this proxy of."""
    login = ""
    if proxy.user_info is not None:
        login = ":".join(urllib.parse.quote(word, safe="") for word in proxy.user_info) + "@"
    return f"{proxy.scheme}://{login}{address_of(proxy)}"


async def connect(proxy: Proxy, uri: WebSocketURI, user_agent: str) -> socket.socket:
    """A socket that leads to the relay at `uri` through an HTTP or SOCKS proxy. Raises RelayUnavailable."""
    async with _named(proxy, uri):
        sock = await _reach(proxy)
        try:
            if proxy.scheme in _SOCKS:
                await _socks(sock, proxy, uri)
            else:
                await _http(sock, proxy, uri, user_agent)
        except BaseException:
            sock.close()
            raise
        return sock


async def numeric(proxy: Proxy) -> Proxy:
    """The same proxy with its name looked up. Raises RelayUnavailable."""
    try:
        infos = await names.resolve(proxy.host, proxy.port)
    except OSError as exc:
        raise unreachable(proxy, exc) from exc
    return Proxy(proxy.scheme, str(infos[0][4][0]), proxy.port, proxy.username, proxy.password)


@contextlib.asynccontextmanager
async def _named(proxy: Proxy, uri: WebSocketURI) -> AsyncIterator[None]:
    """Turn failures into errors that name the proxy."""
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except TimeoutError as exc:
        there = Address(uri.host, uri.port)
        raise RelayUnavailable(
            f"the proxy {address_of(proxy)} did not connect to {there} within {PATIENCE:g} s",
            "is it running, and does it let you out to there?",
        ) from exc
    except SocksError as exc:
        if "authentication" in str(exc).lower():
            raise _login(proxy) from exc
        raise RelayUnavailable(f"the proxy {address_of(proxy)} failed: {exc}", "have it let you out to there") from exc
    except socket.gaierror:
        raise  # the relay's name, which SOCKS leaves to us
    except OSError as exc:
        raise RelayUnavailable(f"the proxy {address_of(proxy)} hung up: {sockets.why(exc)}", "is it a proxy?") from exc


async def _reach(proxy: Proxy) -> socket.socket:
    try:
        return await sockets.connect(address_of(proxy), PATIENCE)
    except TimeoutError:
        raise
    except OSError as exc:
        raise unreachable(proxy, exc) from exc


def unreachable(proxy: Proxy, exc: OSError) -> RelayUnavailable:
    """The error for a proxy to which there is no connection."""
    return RelayUnavailable(
        f"the proxy {address_of(proxy)} cannot be reached: {sockets.why(exc)}",
        ADVICE,
    )


def _login(proxy: Proxy) -> RelayUnavailable:
    if proxy.username is None:
        return RelayUnavailable(f"the proxy {address_of(proxy)} asks for a user name and a password", _LOGIN)
    return RelayUnavailable(f"the proxy {address_of(proxy)} refuses the user name or the password", _LOGIN)


async def _http(sock: socket.socket, proxy: Proxy, uri: WebSocketURI, user_agent: str) -> None:
    """CONNECT (RFC 9110 section 9.3.6). Nothing follows the answer: the relay does not speak first."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, prepare_connect_request(proxy, uri, user_agent))
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
        data = await loop.sock_recv(sock, MAX_HEAD)
        if not data:
            raise ConnectionResetError("no whole answer")
        head += data
    match = _STATUS_LINE.match(head)
    if match is None or (match[1][:1] == b"2" and not head.endswith(b"\r\n\r\n")):
        raise RelayUnavailable(f"what answers at {address_of(proxy)} is no HTTP proxy", "mend its variable")
    status = int(match[1])
    if 200 <= status < 300:
        return
    if status == 407:
        raise _login(proxy)
    phrase = "".join(c for c in (match[2] or b"").decode(errors="replace") if c.isprintable())[:100]
    raise RelayUnavailable(
        f"the proxy {address_of(proxy)} does not connect to {Address(uri.host, uri.port)}: HTTP {status} {phrase}",
        "it does not reach the relay" if status >= 500 else "have it let you out to there",
    )


class _Socket:
    """Poses as the proxy that python-socks goes through to its own, to hand it a connection that is open already."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, **_: Any) -> socket.socket:
        return self._sock


async def _socks(sock: socket.socket, proxy: Proxy, uri: WebSocketURI) -> None:
    """RFC 1928, or SOCKS 4."""
    version, by_proxy = _SOCKS[proxy.scheme]
    host = uri.host
    if not by_proxy and not sockets.is_ip(host):
        found = sorted(await names.resolve(host, uri.port), key=lambda info: info[0])
        host = str(found[0][4][0])  # IPv4 first, for SOCKS 4 has nothing else
    way = SocksProxy(
        version, proxy.host, proxy.port, proxy.username, proxy.password, by_proxy,
        forward=cast("SocksProxy", _Socket(sock)),
    )  # fmt: skip
    await way.connect(host, uri.port)
