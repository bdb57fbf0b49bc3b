"""The owner's record of invites: who got which, and which were revoked.

An append-only file of JSON lines, readable only by its owner. It contains no link and no token.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import platformdirs
from msgspec import Struct
from tunnel_core.errors import UsageError
from tunnel_core.net.sockets import why

MAX_FILE: Final = 4 << 20  # bytes: 10,000 invites


class Given(Struct, frozen=True, tag="given"):
    """One invite. Times are seconds since the epoch."""

    id: str  # of its token
    subject: str
    tunnel: str
    relay: str
    at: float
    expires: float


class Revoked(Struct, frozen=True, tag="revoked"):
    id: str
    at: float


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Given | Revoked).decode


def default_path() -> Path:
    """The default path of the record."""
    return platformdirs.user_config_path("tcp-ws-tunnel", appauthor=False) / "given-invites.jsonl"


class Record:
    """The record in the file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, lines: Sequence[Given | Revoked]) -> None:
        """Append to the record. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        append(self.path, b"".join(_encode(line) + b"\n" for line in lines), mode=0o600)

    def read(self) -> tuple[list[Given], frozenset[str]]:
        """All invites, oldest first, and the ids of revoked ones. Raises UsageError."""
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return [], frozenset()
        except OSError as exc:
            raise UsageError(f"cannot read {self.path}: {why(exc)}") from exc
        if len(content) > MAX_FILE:
            raise UsageError(f"{self.path} has more than {MAX_FILE >> 20} MiB: move it away, and a new one is begun")
        given: list[Given] = []
        revoked: set[str] = set()
        for number, text in enumerate(content.splitlines(), 1):
            try:
                line = _decode(text)
            except ValueError as exc:  # msgspec's errors are ValueErrors
                raise UsageError(f"{self.path}: line {number} is none of this file's: take it out") from exc
            if isinstance(line, Given):
                given.append(line)
            else:
                revoked.add(line.id)
        return given, frozenset(revoked)


def append(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Append lines to a file in one write, starting on a new line. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), mode)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                content = b"\n" + content
        file.write(content)
