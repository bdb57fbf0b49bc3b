"""The pages of the public port, and their limits."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from tunnel_core import __version__
from tunnel_core.net.address import is_loopback
from tunnel_core.net.http import Handler, Request, Response
from tunnel_core.protocol.addresses import address_key
from tunnel_core.protocol.tries import Tries

from ..access import Denied
from ..addresses import ClientAddress
from ..limits import RETRY_AFTER
from ..metrics import RelayMetrics
from .index import PackageIndex
from .page import Page
from .wheel import FILE_NAME, Wheel

PATIENCE: Final = 60.0  # seconds for a peer to read a page: the wheel at 3 KB/s
INDEX: Final = "/join/simple/"
_HOST: Final = re.compile(r"([a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?", re.IGNORECASE)


class Site:
    """Serves the pages: at most `at_once` at a time, and within `tries` for each address."""

    def __init__(
        self,
        addresses: ClientAddress,
        metrics: RelayMetrics,
        *,
        wheel: Wheel | None,
        at_once: int,
        tries: Tries,
        warn: Callable[..., None],
    ) -> None:
        self._addresses = addresses
        self._metrics = metrics
        self._at_once = at_once
        self._tries = tries
        self._warn = warn
        self._under_way = 0
        self._root = Page("root.html")
        self._join = Page("join.html")
        self._index = PackageIndex(wheel) if wheel is not None else None

    def routes(self, *, join: bool) -> dict[str, Handler]:
        """The routing table; without the join pages if not `join`."""
        table = {"/": self._limited("root", lambda _: self._root.fill({}))}
        if join:
            table["/join"] = table["/join/"] = self._limited("join", self._join_page)
            if self._index is not None:
                table[f"{INDEX}*"] = self._limited("index", self._package)
        return table

    def _join_page(self, request: Request) -> Response:
        kind = "ready" if self._index is not None else "bare"
        return self._join.fill({"base": _base(request), "version": __version__, "wheel": FILE_NAME, "kind": kind})

    def _package(self, request: Request) -> Response:
        assert self._index is not None, "there is no route to it otherwise"
        return self._index.answer(request, request.path.removeprefix(INDEX))

    def _limited(self, name: str, make: Callable[[Request], Response]) -> Handler:
        def answer(request: Request) -> Response:
            address = self._addresses.of(request.peer, request.headers)
            try:
                self._check(address)
            except Denied as denied:
                self._metrics.refused(denied.label)
                self._warn("page refused", page=name, address=address, reason=denied.reason)
                return denied.response
            made = make(request)
            self._metrics.page(name, made.status)
            self._under_way += 1
            return dataclasses.replace(made, patience=PATIENCE, done=self._taken)

        return answer

    def _check(self, address: str) -> None:
        """Raise Denied if another page would exceed a limit."""
        if self._under_way >= self._at_once:
            raise Denied(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages at once", "pages", RETRY_AFTER)
        wait = self._tries.take(address_key(address), time.monotonic())
        if wait:
            raise Denied(HTTPStatus.TOO_MANY_REQUESTS, "too many pages for this address", "pages-per-address", wait)

    def _taken(self) -> None:
        self._under_way -= 1


def _base(request: Request) -> str:
    """The relay's address from the request, for display. The page's script uses the browser's own address instead."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        return "https://relay.example.com"
    scheme = request.headers.get("x-forwarded-proto", "")
    clear = scheme == "http" or (scheme != "https" and is_loopback(host.rpartition(":")[0] or host))
    return f"{'http' if clear else 'https'}://{host}"
