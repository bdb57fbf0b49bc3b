"""The HTTP side of a port: small GETs are answered, upgrades become legs.

`websockets` reads the request and writes the response (its Sans-I/O server); this is the
socket around it. A connection is one request: it costs no task, and one timer.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from websockets.http11 import Request as WebSocketRequest
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from .leg import Leg

HANDSHAKE_TIMEOUT: Final = 10.0  # seconds from the connection to the end of the request
MAX_HEAD: Final = 16 * 1024  # bytes of request line and headers: a token is 300, a browser's cookies 4 KiB
SERVER: Final = "tcp-ws-tunnel"


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as far as anybody here wants to know it."""

    path: str  # without the query
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case; of several the last
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
    """The request becomes the leg that `make_leg` makes, speaking `subprotocol` (None for a raw one)."""

    make_leg: Callable[[], Leg]
    subprotocol: str | None


Handler = Callable[[Request], Response | Upgrade]


class HttpConnection(asyncio.Protocol):
    """One connection, until its request is answered or has become a leg."""

    def __init__(self, handler: Handler, connections: set[HttpConnection]) -> None:
        self._handler = handler
        self._connections = connections  # of the server: those that are in this stage
        self._head = bytearray()
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        # The time for the request; then, once more, for the peer to take the answer.
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connections.discard(self)

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end >= 0:
            head, rest = bytes(self._head[: end + 4]), bytes(self._head[end + 4 :])
            self._head.clear()
            self._request(head, rest)
        elif len(self._head) >= MAX_HEAD:
            self._answer(ServerProtocol(), Response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers too large\n"))

    def _request(self, head: bytes, rest: bytes) -> None:
        chosen: list[str] = []
        protocol = ServerProtocol(
            select_subprotocol=lambda _, offered: Subprotocol(chosen[0]) if chosen and chosen[0] in offered else None
        )
        protocol.receive_data(head)
        events = protocol.events_received()
        if not events:
            self._answer(protocol, Response(HTTPStatus.BAD_REQUEST, "this is not an HTTP request\n"))
            return
        request = cast("WebSocketRequest", events[0])
        answer = self._handler(self._read(request))
        if isinstance(answer, Response):
            self._answer(protocol, answer)
            return
        if answer.subprotocol is not None:
            chosen.append(answer.subprotocol)
        response = protocol.accept(request)
        response.headers["Server"] = SERVER
        protocol.send_response(response)
        self._transport.write(b"".join(protocol.data_to_send()))
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._transport.close()
            return
        self._timer.cancel()
        self._connections.discard(self)
        leg = answer.make_leg()
        self._transport.set_protocol(leg)
        leg.connection_made(self._transport)
        if rest:
            leg.feed(memoryview(rest))

    def _read(self, request: WebSocketRequest) -> Request:
        path, _, query = request.path.partition("?")
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        peer = self._transport.get_extra_info("peername")
        return Request(
            path,
            dict(urllib.parse.parse_qsl(query)),
            headers,
            tuple(name.strip() for name in offered.split(",") if name.strip()),
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
