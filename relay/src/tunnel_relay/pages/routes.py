"""Dispatches requests: pages by path, legs for everything else."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from tunnel_core.net.http import Handler, Request, Response, Upgrade


class Routes:
    """A table from path to handler. A path that ends in `*` matches by prefix; the longest match wins.

    Upgrades, and paths that are not in the table, go to `legs`.
    """

    def __init__(self, table: Mapping[str, Handler], legs: Handler) -> None:
        self._exact = {path: handler for path, handler in table.items() if not path.endswith("*")}
        below = {path[:-1]: handler for path, handler in table.items() if path.endswith("*")}
        self._below = dict(sorted(below.items(), key=lambda item: -len(item[0])))
        self._legs = legs

    def answer(self, request: Request) -> Response | Upgrade:
        """The answer to one request."""
        handler = None if request.is_upgrade else self._find(request.path)
        if handler is None:
            return self._legs(request)
        if request.method not in ("GET", "HEAD"):
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n", {"Allow": "GET, HEAD"})
        return handler(request)

    def _find(self, path: str) -> Handler | None:
        if path in self._exact:
            return self._exact[path]
        return next((handler for start, handler in self._below.items() if path.startswith(start)), None)
