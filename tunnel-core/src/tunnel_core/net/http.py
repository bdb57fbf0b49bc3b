"""The HTTP side of a port: small GETs are answered, upgrades become legs.

`websockets` reads the request and writes the response (its Sans-I/O server); this is the
socket around it. A connection is one request: it costs no task, and one timer.
"""

from __future__ import annotations

import asyncio
import socket
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from websockets.http11 import Request as WebSocketRequest
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from .leg import Leg
from .sockets import accept

HANDSHAKE_TIMEOUT: Final = 10.0  # seconds from the connection to the end of the request
MAX_HEAD: Final = 16 * 1024  # bytes of request line and headers: a token is 300, a browser's cookies 4 KiB
AT_ONCE: Final = 512  # connections before their answer: a handshake takes a millisecond, a slow one seconds
SERVER: Final = "tcp-ws-tunnel"


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as far as anybody here wants to know it."""

    path: str  # without the query
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case; repeated ones joined by commas (RFC 9110 section 5.3)
    subprotocols: tuple[str, ...]
    peer: str  # the IP address it came from
    is_upgrade: bool


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that is not an upgrade."""

    status: HTTPStatus
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The request becomes the leg that `make_leg` makes, speaking `subprotocol` (None for a raw one).

    The 101 response carries `headers`.
    """

    make_leg: Callable[[], Leg]
    subprotocol: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Response | Upgrade]


class HttpServer:
    """Serves `handler` on a listening socket.

    At most `at_once` connections may be in the stage before their answer: above that the
    next ones wait in the kernel, so that neither descriptors nor memory run out.
    """

    def __init__(
        self,
        sock: socket.socket,
        handler: Handler,
        *,
        timeout: float = HANDSHAKE_TIMEOUT,
        max_head: int = MAX_HEAD,
        at_once: int = AT_ONCE,
        full: Callable[[], None] = lambda: None,
        dropped: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._sock = sock
        self.handler = handler
        self.timeout = timeout
        self.max_head = max_head
        self.dropped = dropped  # told of each connection that never made a proper request
        self._at_once = at_once
        self._full = full  # told when accepting pauses
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None
        self._resuming: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    @property
    def accepting(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        """Accept connections. The server gets a duplicate of the socket, so that it can be closed and made anew."""
        self._server = await accept(lambda: HttpConnection(self), self._sock.dup())

    async def stop(self) -> None:
        """Close the port, and what has not become a leg."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._pause()
        self._sock.close()
        for connection in tuple(self._connections):
            connection.abort()

    def _pause(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def opened(self, connection: HttpConnection) -> None:
        self._connections.add(connection)
        if self._sock.fileno() < 0:
            connection.abort()  # it was just being accepted when the port was closed
        if len(self._connections) >= self._at_once and self._server is not None:
            self._pause()
            self._full()

    def closed(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        if self._server is None and self._resuming is None and len(self._connections) < self._at_once * 0.9:
            self._resuming = asyncio.get_running_loop().create_task(self._resume())

    async def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            await self.start()
        self._resuming = None


class HttpConnection(asyncio.Protocol):
    """One connection, until its request is answered or has become a leg."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._head = bytearray()
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # The time for the request, and for the peer to take the answer.
        self._timer = asyncio.get_running_loop().call_later(self._server.timeout, self._too_late)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._server.closed(self)

    def abort(self) -> None:
        self._transport.abort()

    def _too_late(self) -> None:
        self._server.dropped("handshake-timeout")
        self._transport.abort()

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
            self._request(bytes(self._head), b"")  # TLS, mostly: told at once, its sender learns what is wrong
        elif len(self._head) >= self._server.max_head:
            self._server.dropped("header-size")
            self._answer(ServerProtocol(), Response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers too large\n"))

    def _request(self, head: bytes, rest: bytes) -> None:
        chosen: list[str] = []
        protocol = ServerProtocol(
            select_subprotocol=lambda _, offered: Subprotocol(chosen[0]) if chosen and chosen[0] in offered else None
        )
        protocol.receive_data(head)
        events = protocol.events_received()
        if not events:
            self._server.dropped("not-http")
            refusal = b"".join(protocol.data_to_send())  # `websockets` has a better one for some
            if refusal:
                self._transport.write(refusal)
                self._transport.close()
            else:
                self._answer(protocol, Response(HTTPStatus.BAD_REQUEST, "this is not an HTTP request\n"))
            return
        request = cast("WebSocketRequest", events[0])
        answer = self._server.handler(self._read(request))
        if isinstance(answer, Response):
            self._answer(protocol, answer)
            return
        if answer.subprotocol is not None:
            chosen.append(answer.subprotocol)
        response = protocol.accept(request)
        response.headers["Server"] = SERVER
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
        peer = self._transport.get_extra_info("peername")
        return Request(
            path,
            dict(urllib.parse.parse_qsl(query)),
            headers,
            tuple(name.strip() for name in headers.get("sec-websocket-protocol", "").split(",") if name.strip()),
            str(peer[0]).removeprefix("::ffff:") if isinstance(peer, tuple) else "unix",
            headers.get("upgrade", "").lower() == "websocket",
        )

    def _answer(self, protocol: ServerProtocol, answer: Response) -> None:
        response = protocol.reject(answer.status, answer.text)
        response.headers["Server"] = SERVER
        response.headers["Cache-Control"] = "no-store"
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = answer.content_type
        for name, value in answer.headers.items():
            response.headers[name] = value
        self._transport.write(response.serialize())
        self._transport.close()
