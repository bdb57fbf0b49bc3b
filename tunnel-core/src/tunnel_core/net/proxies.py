"""The way to the relay through a proxy that the environment names (docs/troubleshooting.md, "Proxies")."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from typing import Any, Final, cast

from python_socks import ProxyError, ProxyType
from python_socks.async_.asyncio.v2 import Proxy as Way
from websockets.exceptions import InvalidProxy
from websockets.proxy import Proxy, get_proxy, parse_proxy
from websockets.uri import WebSocketURI

from ..errors import RelayUnavailable, UsageError
from . import connecting, names, sockets
from .address import Address, is_ip
from .channel import BLANK_LINE, Channel

PATIENCE: Final = 9.0  # seconds until a proxy has connected: less than a dial has, so that the proxy is named
ADVICE: Final = "mend the variable that names it (http_proxy, https_proxy, all_proxy), or go without it: no_proxy"

_SOCKS: Final = {  # scheme → its version, and whether the proxy looks names up
    "socks5h": (ProxyType.SOCKS5, True),
    "socks5": (ProxyType.SOCKS5, False),
    "socks4a": (ProxyType.SOCKS4, True),
    "socks4": (ProxyType.SOCKS4, False),
}
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


async def connect(proxy: Proxy, uri: WebSocketURI) -> Channel:
    """A connection that leads to the relay at `uri` through the proxy. Raises RelayUnavailable."""
    async with _named(proxy, uri):
        channel = await Channel.over(await _reach(proxy))
        try:
            if proxy.scheme == "https":
                await channel.start_tls(ssl.create_default_context(), proxy.host)
            await _pass(channel, proxy, uri)
        except BaseException:
            channel.transport.abort()
            raise
        return channel


@contextlib.asynccontextmanager
async def _named(proxy: Proxy, uri: WebSocketURI) -> AsyncIterator[None]:
    """Convert failures into errors that name the proxy."""
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except TimeoutError as exc:
        there = Address(uri.host, uri.port)
        raise RelayUnavailable(
            f"the proxy {address_of(proxy)} did not connect to {there} within {PATIENCE:g} s",
            "is it running, and does it let you out to there?",
        ) from exc
    except ProxyError as exc:
        raise _refused(proxy, uri, exc) from exc
    except ssl.SSLError as exc:
        raise RelayUnavailable(
            f"no TLS with the proxy {address_of(proxy)}: {sockets.why(exc)}",
            "write http:// in the variable that names it, or have this machine trust its certificate",
        ) from exc
    except socket.gaierror:
        raise  # the relay's name, which SOCKS leaves to us
    except OSError as exc:
        raise RelayUnavailable(f"the proxy {address_of(proxy)} hung up: {sockets.why(exc)}", "is it a proxy?") from exc


async def _reach(proxy: Proxy) -> socket.socket:
    try:
        return await connecting.connect(address_of(proxy), PATIENCE)
    except TimeoutError:
        raise
    except OSError as exc:
        raise RelayUnavailable(f"the proxy {address_of(proxy)} cannot be reached: {sockets.why(exc)}", ADVICE) from exc


def _refused(proxy: Proxy, uri: WebSocketURI, exc: ProxyError) -> RelayUnavailable:
    """The error for what a proxy answers."""
    said = "".join(c for c in str(exc) if c.isprintable())[:100]
    if exc.error_code == 407 or "authentication" in said.lower():
        return _login(proxy)
    if proxy.scheme in _SOCKS:
        return RelayUnavailable(f"the proxy {address_of(proxy)} failed: {said}", "have it let you out to there")
    if exc.error_code is None:
        return RelayUnavailable(f"what answers at {address_of(proxy)} is no HTTP proxy", "mend its variable")
    return RelayUnavailable(
        f"the proxy {address_of(proxy)} does not connect to {Address(uri.host, uri.port)}: HTTP {said}",
        "it does not reach the relay" if exc.error_code >= 500 else "have it let you out to there",
    )


def _login(proxy: Proxy) -> RelayUnavailable:
    if proxy.username is None:
        return RelayUnavailable(f"the proxy {address_of(proxy)} asks for a user name and a password", _LOGIN)
    return RelayUnavailable(f"the proxy {address_of(proxy)} refuses the user name or the password", _LOGIN)


class _Stream:
    """Our connection to the proxy, as python-socks has its own: it is told that one more proxy leads there."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def connect(self, **_: Any) -> _Stream:
        return self

    async def write(self, data: bytes) -> None:
        self._channel.transport.write(data)

    async def read(self) -> bytes:
        """The whole head of HTTP's answer, in however many pieces it comes."""
        head = await self._channel.read_head()
        if not head.endswith(BLANK_LINE):
            raise ConnectionResetError("no whole answer")
        return head

    async def read_exactly(self, size: int) -> bytes:
        return await self._channel.read_exactly(size)

    async def close(self) -> None:
        self._channel.transport.abort()


async def _pass(channel: Channel, proxy: Proxy, uri: WebSocketURI) -> None:
    """Have the proxy connect to the relay: CONNECT (RFC 9110 section 9.3.6), SOCKS 5 (RFC 1928), or SOCKS 4."""
    kind, looks_up = _SOCKS.get(proxy.scheme, (ProxyType.HTTP, True))
    host, login = uri.host, (proxy.username, proxy.password)
    if not looks_up and not is_ip(host):
        found = sorted(await names.resolve(host, uri.port), key=lambda info: info[0])
        host = str(found[0][4][0])  # IPv4 first, for SOCKS 4 has nothing else
    if kind is ProxyType.HTTP and proxy.user_info is not None:  # python-socks knows Latin-1 there, and proxies UTF-8
        login = (proxy.user_info[0].encode().decode("latin-1"), proxy.user_info[1].encode().decode("latin-1"))
    way = Way(kind, proxy.host, proxy.port, *login, rdns=looks_up, forward=cast("Way", _Stream(channel)))
    await way.connect(host, uri.port)
    if channel.unread:  # the relay does not speak first
        raise RelayUnavailable(f"what answers at {address_of(proxy)} is no proxy", "mend its variable")
