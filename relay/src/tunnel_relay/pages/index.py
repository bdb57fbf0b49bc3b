"""A package index with one package, the project's own wheel (PEP 503, and PEP 691 for JSON). Pure."""

from __future__ import annotations

import html
import json
from http import HTTPStatus
from typing import Final

from tunnel_core.net.http import Request, Response

from .wheel import PROJECT, Wheel

_JSON: Final = "application/vnd.pypi.simple.v1+json"
_HTML: Final = "application/vnd.pypi.simple.v1+html"
# Caches must revalidate: the next version of the relay serves another wheel.
_REVALIDATED: Final = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}


class PackageIndex:
    """Answers below a path that ends in a slash."""

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._digest = wheel.sha256

    def answer(self, request: Request, path: str) -> Response:
        """The response for `path`, relative to the index. 404 for anything but the project's page and wheel."""
        if path == "":
            return self._page(request, self._projects())
        if path == f"{PROJECT}/":
            return self._page(request, self._files())
        if path == f"{PROJECT}/{self._wheel.name}":
            return self._cached(request, f'"{self._digest}"', self._wheel.content, "application/octet-stream")
        if path == PROJECT:
            return Response(HTTPStatus.PERMANENT_REDIRECT, "", {"Location": f"{PROJECT}/"})
        return Response(HTTPStatus.NOT_FOUND, f"this index has {PROJECT} alone\n")

    def _page(self, request: Request, forms: tuple[dict[str, object], str]) -> Response:
        accept = request.headers.get("accept", "")
        if _JSON in accept or "application/vnd.pypi.simple.latest+json" in accept:
            kind, text = _JSON, json.dumps(forms[0])
        else:
            kind, text = (_HTML if _HTML in accept else "text/html; charset=utf-8"), forms[1]
        tag = f'"{self._digest[:32]}-{"json" if kind == _JSON else "html"}"'
        return self._cached(request, tag, text.encode(), kind, Vary="Accept")

    def _cached(self, request: Request, tag: str, body: bytes, kind: str, **headers: str) -> Response:
        headers |= _REVALIDATED | {"ETag": tag}
        known = {word.strip().removeprefix("W/") for word in request.headers.get("if-none-match", "").split(",")}
        if tag in known or "*" in known:
            return Response(HTTPStatus.NOT_MODIFIED, b"", headers, kind)
        return Response(HTTPStatus.OK, body, headers, kind)

    def _projects(self) -> tuple[dict[str, object], str]:
        return (
            {"meta": {"api-version": "1.0"}, "projects": [{"name": PROJECT}]},
            _document(f'<a href="{PROJECT}/">{PROJECT}</a>'),
        )

    def _files(self) -> tuple[dict[str, object], str]:
        wheel = self._wheel
        file = {
            "filename": wheel.name,
            "url": wheel.name,
            "hashes": {"sha256": self._digest},
            "requires-python": wheel.requires_python,
        }
        python = html.escape(wheel.requires_python)
        link = f'<a href="{wheel.name}#sha256={self._digest}" data-requires-python="{python}">{wheel.name}</a>'
        return {"meta": {"api-version": "1.0"}, "name": PROJECT, "files": [file]}, _document(link)


def _document(body: str) -> str:
    head = '<meta charset="utf-8"><meta name="pypi:repository-version" content="1.0">'
    return f"<!DOCTYPE html><html><head>{head}<title>{PROJECT}</title></head><body>{body}</body></html>\n"
