"""How first bytes are read as they come, and the form of the names that are found."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final, TypeVar

T = TypeVar("T")
# Reads a buffer that grows. Where that has too little it yields how many bytes there must be,
# and goes on in its place once they are there; it returns what it found.
Reader = Generator[int, None, T]

# The most bytes that are looked at. A ClientHello of Chromium, in random order and with a
# post-quantum key share of 1216 bytes, may have the name behind its first 2 KiB
# (docs/decisions/005-first-bytes.md).
LIMIT: Final = 4096

MAX_NAME: Final = 253  # characters of a DNS name
_NAME: Final = re.compile(r"[a-z0-9._:-]+")  # a DNS name, or an IP address


def read_at_once(reader: Reader[T]) -> T | None:
    """What `reader` finds in what there is; None also if it needs more."""
    try:
        next(reader)
    except StopIteration as found:
        value: T = found.value
        return value
    return None


def normal(name: str) -> str:
    """A server's name in lower case and without trailing dot; empty if it can be nobody's.

    Mods and proxies append to the name in a Minecraft handshake: a zero and `FML2`, or `///` and addresses.
    """
    name = name.partition("\0")[0].partition("///")[0].removesuffix(".").lower()
    return name if len(name) <= MAX_NAME and _NAME.fullmatch(name) else ""
