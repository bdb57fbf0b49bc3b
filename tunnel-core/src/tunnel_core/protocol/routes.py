"""Maps names to tunnels, where several share one public port. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import UsageError
from .endpoints import is_tunnel
from .sniff.reader import normal


class Route(NamedTuple):
    """A name and its tunnel. With an empty `tunnel`, the label before `.name` is the tunnel."""

    name: str
    tunnel: str


def parse_route(text: str) -> Route:
    """Parse `NAME=TUNNEL`, or `*.NAME`, where `*` is the tunnel's name. Raises UsageError."""
    name, equals, tunnel = text.partition("=")
    wild = name.startswith("*.")
    known = normal(name.removeprefix("*."))
    if not known or wild == bool(equals):
        raise UsageError(
            f"'{text}' is not a route: write NAME=TUNNEL, such as mc.example.com=mc, or *.play.example.com"
        )
    if equals and not is_tunnel(tunnel):
        raise UsageError(f"'{tunnel}' is not a tunnel's name: write up to 63 of a-z, 0-9 and -")
    return Route(known, tunnel)


class Routes:
    """Finds the tunnel of a name. An exact name takes precedence over a suffix."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._names = {route.name: route.tunnel for route in routes if route.tunnel}
        self._suffixes = frozenset(route.name for route in routes if not route.tunnel)

    def tunnel(self, name: str) -> str:
        """The tunnel for `name`, as a Sniffer returns it; empty if there is none."""
        if name in self._names:
            return self._names[name]
        label, _, suffix = name.partition(".")
        return label if suffix in self._suffixes and is_tunnel(label) else ""
