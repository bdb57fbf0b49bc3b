"""Self-contained web pages of one file each."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from tunnel_core.net.http import Response

MAX_PAGE: Final = 20_000  # bytes: one round trip on most lines
_BLOCK: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_SLOT: Final = re.compile(r"\{\{(\w+)\}\}")


class Page:
    """A page of this package, with slots such as `{{version}}` in its text.

    The Content-Security-Policy allows its scripts and styles by hash, so they cannot have slots.
    """

    def __init__(self, name: str) -> None:
        self._text = importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        hashes: dict[str, list[str]] = {"script": [], "style": []}
        for kind, block in _BLOCK.findall(self._text):
            assert not _SLOT.search(block), "a hash holds for a text that stays the same"
            digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
            hashes[kind].append(f"'sha256-{digest}'")
        policy = {
            "default-src": "'none'",
            **{f"{kind}-src": " ".join(found) for kind, found in hashes.items() if found},
            "img-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        self._headers = {
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Robots-Tag": "noindex",
        }

    def fill(self, slots: Mapping[str, str]) -> Response:
        """The page with its slots filled and escaped. Never cached."""
        text = _SLOT.sub(lambda slot: html.escape(slots[slot[1]]), self._text)
        return Response(HTTPStatus.OK, text, self._headers, "text/html; charset=utf-8")
