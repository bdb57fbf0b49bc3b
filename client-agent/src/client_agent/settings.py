"""The client-agent's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tunnel_core.agent.settings import AgentSettings, warm_legs
from tunnel_core.errors import UsageError
from tunnel_core.net.address import parse_host, parse_local_host, parse_port
from tunnel_core.protocol.endpoints import is_tunnel
from tunnel_core.protocol.invite import MAX_LABEL, is_label
from tunnel_core.service.settings import setting


class Forward(NamedTuple):
    """A local port and the tunnel it leads to. `address` is empty for the common one."""

    address: str
    port: int
    tunnel: str


def forward(value: str) -> Forward:
    """`[ADDRESS:]PORT=TUNNEL`."""
    local, equals, tunnel = value.partition("=")
    if not equals:
        raise UsageError(f"'{value}' is not a forward: write [ADDRESS:]PORT=TUNNEL, such as 25565=mc")
    if not is_tunnel(tunnel):
        raise UsageError(f"'{tunnel}' is not a tunnel's name: write up to 63 of a-z, 0-9 and -")
    address, colon, port = local.rpartition(":")
    if colon and not address:
        raise UsageError(f"'{value}' names no address: write *{value} for all of this machine, or {local[1:]}={tunnel}")
    return Forward(_address(address) if colon else "", parse_port(port), tunnel)


class Announced(NamedTuple):
    """A tunnel, and its name in Minecraft's list of LAN worlds."""

    tunnel: str
    name: str


def announced(value: str) -> Announced:
    """`TUNNEL=NAME`."""
    tunnel, equals, name = value.partition("=")
    if not equals or not name or not is_label(name):
        raise UsageError(f"{value!r} announces nothing: write TUNNEL=NAME, the name with up to {MAX_LABEL} characters")
    return Announced(tunnel, name)


def _address(text: str) -> str:
    """Of a forward: `*` is all addresses, and IPv6 is in brackets, since a port follows."""
    return "::" if text == "*" else parse_host(text)


@dataclass(frozen=True, kw_only=True)
class ClientSettings(AgentSettings):
    forward: tuple[Forward, ...] = setting(
        (),
        "listen on PORT (0: any free one) of ADDRESS (*: all) and lead to TUNNEL; repeats",
        parse=forward,
        repeat=True,
        metavar="[ADDRESS:]PORT=TUNNEL",
    )
    listen_address: str = setting(
        "127.0.0.1",
        "address to listen on where a forward names none; *: all",
        parse=parse_local_host,
        metavar="ADDRESS",
    )
    announce: tuple[Announced, ...] = setting(
        (),
        "show TUNNEL as NAME in Minecraft's list of LAN worlds on this machine; repeats; in the variable and the file "
        "one a line",
        parse=announced,
        repeat=True,
        lines=True,
        metavar="TUNNEL=NAME",
    )
    warm: int = warm_legs(2, "legs, and pairs free for the next stream, kept ready for each tunnel")

    def check(self) -> None:
        super().check()
        if not self.forward:
            raise UsageError("nothing is forwarded: write --forward 25565=mc")
        for tunnel in {announced.tunnel for announced in self.announce} - {forward.tunnel for forward in self.forward}:
            raise UsageError(f"--announce: nothing is forwarded to '{tunnel}': write --forward 25565={tunnel}, too")
