"""IP addresses, as both sides of the relay write and count them. Pure."""

from __future__ import annotations

import functools
import ipaddress
from typing import NamedTuple

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_ip(text: str) -> IpAddress | None:
    """The IP address in `text`, IPv4 also where it is mapped into IPv6; None if it is none."""
    try:
        return unmapped(ipaddress.ip_address(text))
    except ValueError:
        return None


def unmapped(ip: IpAddress) -> IpAddress:
    """IPv4 where it is mapped into IPv6: it is the same machine."""
    return (ip.ipv4_mapped or ip) if ip.version == 6 else ip


@functools.lru_cache(maxsize=1024)
def address_key(address: str) -> str:
    """What counts as one address: IPv4 whole, of IPv6 the /64 that one subscriber has."""
    parsed = parse_ip(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address if parsed is None else str(parsed)


class Endpoint(NamedTuple):
    """One end of a TCP connection. Port 0: it is not known."""

    ip: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


def parse_endpoint(text: str) -> Endpoint | None:
    """`ADDRESS:PORT`, with IPv6 in brackets, or an address alone; None for anything else."""
    bracketed = text.startswith("[")
    if not bracketed and text.count(":") != 1:
        ip = parse_ip(text)
        return None if ip is None else Endpoint(ip, 0)
    host, _, port = text[bracketed:].rpartition("]:" if bracketed else ":")
    ip = parse_ip(host) if bracketed == (":" in host) else None
    if ip is None or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    return Endpoint(ip, int(port))
