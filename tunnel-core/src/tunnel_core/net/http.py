"""A port that answers small GETs and upgrades requests to legs.

`websockets`' Sans-I/O server parses the request and writes the response; this module handles the
socket. A connection carries one request, and needs no task and one timer.
"""

from __future__ import annotations

import asyncio
import socket
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from websockets.http11 import Request as WebSocketRequest
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from ..protocol.endpoints import RELAY_HEADER
from .leg import Leg
from .ports import accept

HANDSHAKE_TIMEOUT: Final = 10.0  # seconds from the connection to the end of the request
MAX_HEAD: Final = 16 * 1024  # bytes of request line and headers: a token has 300, a browser's cookies 4 KiB
AT_ONCE: Final = 32  # open connections without an answer; a request takes a millisecond
SERVER: Final = "tcp-ws-tunnel"


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a request that handlers need."""

    path: str  # without the query
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case; repeated ones joined by commas (RFC 9110 section 5.3)
    subprotocols: tuple[str, ...]
    peer: str  # the IP address it came from
    is_upgrade: bool
    method: str = "GET"


@dataclass(frozen=True, slots=True)
class Response:
    """A response other than an upgrade. HEAD requests get it without the body.

    `headers` override the default ones. The peer has `patience` seconds to read it (None: whatever is left
    of the time for its request). `done` is called once the connection is gone.
    """

    status: HTTPStatus
    body: str | bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/plain; charset=utf-8"
    patience: float | None = None
    done: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Upgrade the request to the leg that `make_leg` returns, with `subprotocol` (None for a raw leg).

    `headers` are added to the 101 response.
    """

    make_leg: Callable[[], Leg]
    subprotocol: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Response | Upgrade]


class HttpServer:
    """Serves `handler` on listening sockets.

    At most `at_once` connections may be open without an answer, and at most `per_client` of one client.
    `client_of` maps an address to its client (None: exempt from the second bound). Beyond a bound the
    oldest connection is closed, so that silent ones make room for those with a request. An honest request
    follows its connection within a round trip.

    `dropped` is called with a reason and the peer's address for each connection without a proper request in time.
    """

    def __init__(
        self,
        socks: Sequence[socket.socket],
        handler: Handler,
        *,
        timeout: float = HANDSHAKE_TIMEOUT,
        max_head: int = MAX_HEAD,
        at_once: int = AT_ONCE,
        per_client: int = AT_ONCE,
        client_of: Callable[[str], str | None] = lambda peer: None,
        dropped: Callable[[str, str], None] = lambda reason, peer: None,
    ) -> None:
        self._socks = socks
        self.handler = handler
        self.timeout = timeout
        self.max_head = max_head
        self.dropped = dropped
        self._at_once = at_once
        self._per_client = per_client
        self._client_of = client_of
        self._connections: dict[HttpConnection, str | None] = {}  # → its client; oldest first
        self._by_client: dict[str, dict[HttpConnection, None]] = {}  # oldest first
        self._servers: list[asyncio.Server] = []
        self._stopped = False

    @property
    def port(self) -> int:
        return int(self._socks[0].getsockname()[1])

    async def start(self) -> None:
        """Accept connections."""
        for sock in self._socks:
            self._servers.append(await accept(lambda: HttpConnection(self), sock))

    async def close_port(self) -> None:
        """Accept no more connections. Those already open are still answered."""
        # asyncio forgets a connection accepted in the loop iteration in which its server is closed, and would
        # leak it. So stop accepting one iteration earlier.
        loop = asyncio.get_running_loop()
        for sock in self._socks:
            if sock.fileno() >= 0:
                loop.remove_reader(sock)
        await asyncio.sleep(0)
        self._stopped = True
        for server in self._servers:
            server.close()
        for sock in self._socks:
            sock.close()

    async def stop(self) -> None:
        """Close the port and all connections that are not legs yet."""
        await self.close_port()
        for connection in tuple(self._connections):
            connection.abort()

    def opened(self, connection: HttpConnection) -> None:
        """A connection was accepted: make room for it."""
        if self._stopped:
            connection.abort()  # accepted while the port was closing
            return
        client = self._client_of(connection.peer)
        of_client = self._by_client.get(client, {}) if client is not None else {}
        if len(of_client) >= self._per_client:
            self._drop(next(iter(of_client)), "handshakes-per-address")
        elif len(self._connections) >= self._at_once:
            self._drop(next(iter(self._connections)), "handshakes")
        self._connections[connection] = client
        if client is not None:
            self._by_client.setdefault(client, {})[connection] = None

    def closed(self, connection: HttpConnection) -> None:
        """A connection has gone, or has become a leg."""
        client = self._connections.pop(connection, None)
        if client is not None:
            of_client = self._by_client[client]
            del of_client[connection]
            if not of_client:
                del self._by_client[client]

    def _drop(self, connection: HttpConnection, reason: str) -> None:
        self.closed(connection)
        self.dropped(reason, connection.peer)
        connection.abort()


class HttpConnection(asyncio.Protocol):
    """One connection, until its request is answered or has become a leg."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._head = bytearray()
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle
        self._done: Callable[[], None] = lambda: None
        self.peer = ""  # the IP address it came from

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]).removeprefix("::ffff:") if isinstance(peer, tuple) else "unix"
        # Bounds the time for the request, and for the peer to read the answer.
        self._timer = asyncio.get_running_loop().call_later(self._server.timeout, self._too_late)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._server.closed(self)
        self._done()

    def abort(self) -> None:
        self._transport.abort()

    def _too_late(self) -> None:
        self._dropped("handshake-timeout")
        self._transport.abort()

    def _dropped(self, reason: str) -> None:
        self._server.dropped(reason, self.peer)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n", 0, self._server.max_head)
        if end >= 0:
            head, rest = bytes(self._head[: end + 4]), bytes(self._head[end + 4 :])
            self._head.clear()
            self._request(head, rest)
        elif not self._head[:1].isalpha():
            self._request(bytes(self._head), b"")  # mostly TLS: answer at once, so that the sender learns why
        elif len(self._head) >= self._server.max_head:
            self._dropped("header-size")
            self._answer(ServerProtocol(), Response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers too large\n"))

    def _request(self, head: bytes, rest: bytes) -> None:
        chosen: list[str] = []
        protocol = ServerProtocol(
            select_subprotocol=lambda _, offered: Subprotocol(chosen[0]) if chosen and chosen[0] in offered else None
        )
        protocol.receive_data(head)
        events = protocol.events_received()
        if not events:
            self._dropped("not-http")
            refusal = b"".join(protocol.data_to_send())  # `websockets` explains some cases better
            if refusal:
                self._transport.write(refusal)
                self._transport.close()
            else:
                self._answer(protocol, Response(HTTPStatus.BAD_REQUEST, "this is not an HTTP request\n"))
            return
        request = cast("WebSocketRequest", events[0])
        answer = self._server.handler(self._read(request))
        if isinstance(answer, Response):
            self._answer(protocol, answer, head_only=request.method == "HEAD")
            return
        if answer.subprotocol is not None:
            chosen.append(answer.subprotocol)
        response = protocol.accept(request)
        response.headers["Server"] = response.headers[RELAY_HEADER] = SERVER
        response.headers.update(answer.headers)
        protocol.send_response(response)
        self._transport.write(b"".join(protocol.data_to_send()))
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._transport.close()
            return
        self._timer.cancel()
        self._server.closed(self)
        leg = answer.make_leg()
        self._transport.set_protocol(leg)
        leg.connection_made(self._transport)
        if rest:
            leg.feed(memoryview(rest))

    def _read(self, request: WebSocketRequest) -> Request:
        path, _, query = request.path.partition("?")
        headers: dict[str, str] = {}
        for name, value in request.headers.raw_items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        return Request(
            path,
            dict(urllib.parse.parse_qsl(query)),
            headers,
            tuple(name.strip() for name in headers.get("sec-websocket-protocol", "").split(",") if name.strip()),
            self.peer,
            headers.get("upgrade", "").lower() == "websocket",
            request.method,
        )

    def _answer(self, protocol: ServerProtocol, answer: Response, *, head_only: bool = False) -> None:
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        response = protocol.reject(answer.status, "")
        for name, value in {
            "Server": SERVER,
            RELAY_HEADER: SERVER,
            "Cache-Control": "no-store",
            "Content-Type": answer.content_type,
            "Content-Length": str(len(body)),
            **answer.headers,
        }.items():
            if name in response.headers:
                del response.headers[name]
            response.headers[name] = value
        self._done = answer.done
        if answer.patience is not None:
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(answer.patience, self._too_late)
        self._transport.write(response.serialize() if head_only else response.serialize() + body)
        self._transport.close()
