"""The file of revoked tokens. A mistake in it revokes too much or changes nothing, but never lets a token back in."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
from typing import Final

from ..errors import AccessDenied, UsageError
from ..net.sockets import why
from ..protocol import tokens
from ..protocol.endpoints import is_id
from .logs import Logger

MAX_SIZE: Final = 2 << 20  # bytes: 60,000 ids, which take 0.1 s to read
MAX_ID: Final = 64  # characters of an id, as tokens.Grant has it
MAX_WARNINGS: Final = 5  # bad lines that get a warning each

# What surrounds an id that was copied from JSON, a shell or a header.
_WRAPPING: Final = " \t\"'`,;[]"
# The ids of `relay token`, and the UUIDs of other issuers.
_USUAL_ID: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def parse(content: bytes) -> tuple[frozenset[str], list[int]]:
    """The ids in `content`, and the numbers (from 1) of doubtful lines.

    A line has ids or whole tokens, separated by white space or commas; `#` starts a comment.
    Every word counts as an id, even on doubtful lines.
    Raises ValueError if `content` is neither UTF-8 nor UTF-16 with a byte order mark.
    """
    try:
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ValueError("it is not UTF-8 text") from exc
    if "\0" in text:
        raise ValueError("it is not UTF-8 text")
    ids: set[str] = set()
    doubtful = []
    for number, line in enumerate(text.splitlines(), 1):
        if is_id(line):  # nearly all lines; the slow path takes three times as long
            ids.add(line)
            continue
        usual = True
        for word in line.partition("#")[0].replace(",", " ").split():
            bare = word.strip(_WRAPPING)
            if bare.lower() in ("", "bearer"):
                continue
            token_id = _id_of(bare)
            usual = usual and _USUAL_ID.fullmatch(token_id) is not None
            ids.update((token_id, token_id.lower()))
        if not usual:
            doubtful.append(number)
    return frozenset(ids), doubtful


def _id_of(word: str) -> str:
    """The id of the token `word`, or `word` itself if it is not a token."""
    if word.count(".") == 2 and len(word) > MAX_ID:
        with contextlib.suppress(AccessDenied):
            return tokens.read(word).id
    return word


class Revoked:
    """The ids in the file at `path`; none if `path` is empty. Raises UsageError if it cannot be read."""

    def __init__(self, path: str, log: Logger) -> None:
        self._path = path
        self._log = log
        self._stamp: tuple[int, int, int] | None = None
        self._error = ""
        self._ids: frozenset[str] = frozenset()
        if path:
            try:
                self._read()
            except (OSError, ValueError) as exc:
                raise UsageError(f"--revoked: cannot read {path}: {why(exc)}") from exc

    def __contains__(self, token_id: str) -> bool:
        return token_id in self._ids

    def reread(self) -> bool:
        """Reread the file if it changed. Returns whether it did. On errors the old ids stay revoked."""
        if not self._path:
            return False
        try:
            changed = self._read()
        except (OSError, ValueError) as exc:
            self._stamp = None
            if why(exc) != self._error:
                self._error = why(exc)
                self._log.error("revoked ids unreadable", path=self._path, error=self._error, kept=len(self._ids))
            return False
        self._error = ""
        return changed

    def _read(self) -> bool:
        stat = os.stat(self._path)
        stamp = stat.st_mtime_ns, stat.st_size, stat.st_ino
        if stamp == self._stamp:
            return False
        with open(self._path, "rb") as file:
            content = file.read(MAX_SIZE + 1)
        if len(content) > MAX_SIZE:
            raise ValueError(f"it has more than {MAX_SIZE >> 20} MiB: take out the ids of tokens that have expired")
        self._ids, doubtful = parse(content)
        self._stamp = stamp
        for number in doubtful[:MAX_WARNINGS]:
            # Do not log the line: it may be part of a token.
            self._log.warning("neither a token's id nor a token", path=self._path, line=number)
        if len(doubtful) > MAX_WARNINGS:
            self._log.warning("neither ids nor tokens", path=self._path, more_lines=len(doubtful) - MAX_WARNINGS)
        self._log.info("revoked ids read", path=self._path, ids=len(self._ids))
        return True
