"""The admin port: /healthz, /readyz and /metrics, for operators and never for the internet."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from ..net.http import HttpConnection, Request, Response, Upgrade

Readiness = Callable[[], str]
"""Why the service is not ready, in a few words; an empty text means it is."""


def health(request: Request, readiness: Readiness) -> Response | None:
    """Answer /healthz and /readyz; None for any other path."""
    if request.path == "/healthz":
        return Response(HTTPStatus.OK, "ok\n")
    if request.path == "/readyz":
        reason = readiness()
        if reason:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n", {"Retry-After": "1"})
        return Response(HTTPStatus.OK, "ready\n")
    return None


class AdminServer:
    """Serves the admin port on `sock`."""

    def __init__(self, sock: socket.socket, registry: CollectorRegistry, readiness: Readiness) -> None:
        self._sock = sock
        self._registry = registry
        self._readiness = readiness
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    async def start(self) -> None:
        make = functools.partial(HttpConnection, self._answer, self._connections)
        self._server = await asyncio.get_running_loop().create_server(make, sock=self._sock)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for connection in tuple(self._connections):
                connection.abort()
            await self._server.wait_closed()

    def _answer(self, request: Request) -> Response | Upgrade:
        answer = health(request, self._readiness)
        if answer is None and request.path == "/metrics":
            text = generate_latest(self._registry).decode()
            answer = Response(HTTPStatus.OK, text, content_type=CONTENT_TYPE_PLAIN_0_0_4)
        return answer or Response(HTTPStatus.NOT_FOUND, "try /healthz, /readyz or /metrics\n")
