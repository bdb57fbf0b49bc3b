"""TCP addresses: parsing and telling them. Pure."""

from __future__ import annotations

import functools
import ipaddress
from typing import NamedTuple

from ..errors import UsageError


class Address(NamedTuple):
    """A TCP address, or with `port` 0 and a `host` that begins with `/` a Unix socket."""

    host: str
    port: int

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_port(text: str, *, lowest: int = 0) -> int:
    """A port number. Raises UsageError."""
    if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= 65535:
        raise UsageError(f"'{text}' is not a port: write a number from {lowest} to 65535")
    return int(text)


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`. Raises UsageError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise UsageError(f"'{text}' is not a Unix socket: write unix:/the/full/path")
        return Address(path, 0)
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise UsageError(f"'{text}' is not an address: write HOST:PORT, such as 127.0.0.1:25565")
    return Address(parse_host(host), parse_port(port, lowest=1))


def parse_host(text: str) -> str:
    """A host name or IP address; IPv6 in brackets. Raises UsageError."""
    host = text
    if text.startswith("[") and text.endswith("]"):
        host = text[1:-1]
        if is_ip(host, 6):
            return host
    elif ":" not in text and text and not any(c.isspace() or c in "/@[]" for c in text) and _is_name(text):
        return host
    hint = f"[{text}]" if is_ip(text, 6) else "a name, an IPv4 address, or an IPv6 address in brackets"
    raise UsageError(f"'{text}' is not a host: write {hint}")


def parse_local_host(text: str) -> str:
    """An address to listen on, where no port follows it: `*` is all addresses, and IPv6 needs no brackets.

    Raises UsageError.
    """
    if text == "*":
        return "::"
    return text if is_ip(text, 6) else parse_host(text)


def _is_name(host: str) -> bool:
    """Whether a resolver can be asked for `host`: no empty part of a name, and none over 63 characters."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


@functools.lru_cache(maxsize=256)
def is_ip(host: str, version: int = 0) -> bool:
    """Whether `host` is an IP address and no name; `version` 4 or 6 asks for one of these."""
    try:
        return version in (0, ipaddress.ip_address(host).version)
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's own loopback, by its name or number alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
