"""Client addresses, as reported by trusted proxies. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tunnel_core.protocol.addresses import address_key, parse_ip

MAX_ELEMENT: Final = 500  # characters of one element of `Forwarded`: a real one has 100

# name="value" or name=value. An unquoted value should be a token, but some proxies do not quote
# addresses with a port.
_PAIR: Final = r'([!#$%&*+.^_`|~0-9A-Za-z-]+)=(?:([^\s",;\\]+)|"((?:[^"\\]|\\.)*)")'
_FIND_PAIRS: Final = re.compile(_PAIR)
_ELEMENT: Final = re.compile(rf"\s*(?:{_PAIR}\s*)?(?:;\s*(?:{_PAIR}\s*)?)*")


class ClientAddress:
    """Finds the client's address. `trusted` are the networks of trusted proxies, `header` is the one they set."""

    def __init__(self, trusted: Sequence[str], header: str) -> None:
        self._trusted = tuple(map(ipaddress.ip_network, trusted))
        self._header = header.lower()
        self._hops = _forwarded if self._header == "forwarded" else _listed

    def of(self, peer: str, headers: Mapping[str, str]) -> str:
        """The client address of a request: the peer's, or the one reported by a trusted proxy."""
        if not self.trusts(peer):
            return peer
        # Each proxy appends its peer: the last address that is not a trusted proxy is the client.
        for hop in self._hops(headers.get(self._header, "")):
            address = _without_port(hop)
            if address is None:
                return peer  # not an address
            if not self.trusts(address):
                return address
        return peer

    def trusts(self, address: str) -> bool:
        """Whether `address` belongs to a trusted proxy."""
        if not self._trusted:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def counted(self, peer: str) -> str | None:
        """The key for counting connections from `peer`; None for a trusted proxy, which serves many clients."""
        return None if self.trusts(peer) else address_key(peer)


def _listed(value: str) -> Iterator[str]:
    """The elements of a comma-separated list, last first."""
    return filter(None, (hop.strip() for hop in reversed(value.split(","))))


def _forwarded(value: str) -> Iterator[str]:
    """The `for` of each element of a `Forwarded` header (RFC 7239), last first; "" for an element without one.

    It is parsed from the end, so that an open quote from a client cannot hide what a proxy appended.
    """
    element = ""
    for part in reversed(value.split(",")):
        element = f"{part},{element}" if element else part
        if len(element) > MAX_ELEMENT:
            yield ""  # garbage: do not spend time on it
            return
        if not element.strip():
            element = ""
        elif _ELEMENT.fullmatch(element):
            values = [plain or quoted for name, plain, quoted in _FIND_PAIRS.findall(element) if name.lower() == "for"]
            yield re.sub(r"\\(.)", r"\1", values[0]) if len(values) == 1 else ""
            element = ""
    if element:
        yield ""


def _without_port(text: str) -> str | None:
    """The IP address in `text`, which may include a port; None if there is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    parsed = parse_ip(text)
    return None if parsed is None else str(parsed)
