"""The admin port: /healthz, /readyz and /metrics, for operators and never for the internet."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from ..net.http import HttpServer, Request, Response, Upgrade

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
    """Serves the admin port on listening sockets."""

    def __init__(self, socks: Sequence[socket.socket], registry: CollectorRegistry, readiness: Readiness) -> None:
        self._server = HttpServer(socks, self._answer)
        self._registry = registry
        self._readiness = readiness

    @property
    def port(self) -> int:
        return self._server.port

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    def _answer(self, request: Request) -> Response | Upgrade:
        answer = health(request, self._readiness)
        if answer is None and request.path == "/metrics":
            text = generate_latest(self._registry).decode()
            answer = Response(HTTPStatus.OK, text, content_type=CONTENT_TYPE_PLAIN_0_0_4)
        return answer or Response(HTTPStatus.NOT_FOUND, "try /healthz, /readyz or /metrics\n")
