"""The admin port: /healthz, /readyz and /metrics. For operators, never for the internet."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from ..net.http import Handler, HttpServer, Request, Response, Upgrade

Readiness = Callable[[], str]
"""Returns why the service is not ready, in a few words, or an empty string if it is."""


def health(readiness: Readiness) -> dict[str, Handler]:
    """The handlers of /healthz and /readyz, by path."""

    def ready(_: Request) -> Response:
        reason = readiness()
        if reason:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n", {"Retry-After": "1"})
        return Response(HTTPStatus.OK, "ready\n")

    return {"/healthz": lambda _: Response(HTTPStatus.OK, "ok\n"), "/readyz": ready}


class AdminServer:
    """Serves the admin port on listening sockets."""

    def __init__(self, socks: Sequence[socket.socket], registry: CollectorRegistry, readiness: Readiness) -> None:
        self._server = HttpServer(socks, self._answer)
        self._registry = registry
        self._pages = {**health(readiness), "/metrics": self._metrics}

    @property
    def port(self) -> int:
        return self._server.port

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    def _answer(self, request: Request) -> Response | Upgrade:
        page = self._pages.get(request.path)
        return page(request) if page else Response(HTTPStatus.NOT_FOUND, "try /healthz, /readyz or /metrics\n")

    def _metrics(self, _: Request) -> Response:
        text = generate_latest(self._registry)
        return Response(HTTPStatus.OK, text, content_type=CONTENT_TYPE_PLAIN_0_0_4)
