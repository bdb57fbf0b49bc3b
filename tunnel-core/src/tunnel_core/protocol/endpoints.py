"""Names and addresses of the protocol (PROTOCOL.md, "Endpoints")."""

from __future__ import annotations

import re
import secrets
from typing import Final, Literal

Role = Literal["host", "client"]

PROBE: Final = "/probe"  # before a leg's path: a connection for a doctor

PROTOCOL_FAMILY: Final = "tcp-ws-tunnel."  # how the subprotocol of every version begins
SUBPROTOCOL: Final = f"{PROTOCOL_FAMILY}v1"
INSTANCE_KEY_HEADER: Final = "Tunnel-Instance-Key"  # of a host leg's upgrade; never logged
RELAY_HEADER: Final = "Tunnel-Relay"  # of every answer of a relay; what has none was not answered by one
LEG_HEADER: Final = "Tunnel-Leg"  # of the 101 response: the leg's id
DEFAULT_TUNNEL: Final = "default"

_TUNNEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(r"[0-9a-f]{32}")


def is_tunnel(name: str) -> bool:
    """Whether `name` can name a tunnel: the rule of a DNS label, in lower case."""
    return _TUNNEL.fullmatch(name) is not None


def is_id(text: str) -> bool:
    """Whether `text` can be an id or a key: 128 bits as 32 hex digits."""
    return _ID.fullmatch(text) is not None


def new_id() -> str:
    """128 random bits: the id of a stream or a leg, or a key."""
    return secrets.token_hex(16)


def leg_path(role: Role, tunnel: str) -> str:
    """The request path of a leg."""
    return f"/{role}/{tunnel}"


def parse_leg_path(path: str) -> tuple[Role, str] | None:
    """Role and tunnel of a request path without its query; None if no leg is served at exactly that path."""
    match path.split("/"):
        case ["", "host"]:
            return "host", DEFAULT_TUNNEL
        case ["", "client"]:
            return "client", DEFAULT_TUNNEL
        case ["", "host", tunnel] if is_tunnel(tunnel):
            return "host", tunnel
        case ["", "client", tunnel] if is_tunnel(tunnel):
            return "client", tunnel
    return None
