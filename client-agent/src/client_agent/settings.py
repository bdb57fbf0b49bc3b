"""The client-agent's settings."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import NamedTuple

from tunnel_core.agent.settings import AgentSettings, warm_legs
from tunnel_core.errors import UsageError
from tunnel_core.net.address import parse_host, parse_local_host, parse_port
from tunnel_core.protocol.endpoints import is_tunnel
from tunnel_core.protocol.invite import MAX_LABEL, is_label
from tunnel_core.protocol.routes import Route, parse_route
from tunnel_core.protocol.tokens import Network, parse_network
from tunnel_core.service.settings import Secret, count, seconds, secret, setting


class Forward(NamedTuple):
    """A local port and the tunnel it leads to. `address` is empty for the common one."""

    address: str
    port: int
    tunnel: str


def parse_forward(value: str) -> Forward:
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


def shared(value: str) -> Forward:
    """`[ADDRESS:]PORT`: a port that leads to no tunnel of its own."""
    if "=" in value:
        raise UsageError(f"'{value}' names a tunnel: write [ADDRESS:]PORT, such as 25565, and --route")
    address, colon, port = value.rpartition(":")
    return Forward(_address(address) if colon else "", parse_port(port), "")


class Allowed(NamedTuple):
    """A tunnel and a network from which it may be visited."""

    tunnel: str
    network: Network


def allowed(value: str) -> Allowed:
    """`TUNNEL=CIDR`."""
    tunnel, equals, network = value.partition("=")
    if not equals or not is_tunnel(tunnel):
        raise UsageError(f"'{value}' allows nothing: write TUNNEL=CIDR, such as mc=192.0.2.0/24")
    return Allowed(tunnel, network_of(network))


def network_of(value: str) -> Network:
    """A network in CIDR notation."""
    return ipaddress.ip_network(parse_network(value))


def _address(text: str) -> str:
    """Of a forward: `*` is all addresses, and IPv6 is in brackets, since a port follows."""
    return "::" if text == "*" else parse_host(text)


@dataclass(frozen=True, kw_only=True)
class ClientSettings(AgentSettings):
    forward: tuple[Forward, ...] = setting(
        (),
        "listen on PORT (0: any free one) of ADDRESS (*: all) and lead to TUNNEL; repeats",
        parse=parse_forward,
        repeat=True,
        metavar="[ADDRESS:]PORT=TUNNEL",
    )
    listen_address: str = setting(
        "127.0.0.1",
        "address to listen on if a forward names none; *: all",
        parse=parse_local_host,
        metavar="ADDRESS",
    )
    announce: tuple[Announced, ...] = setting(
        (),
        "show TUNNEL as NAME in Minecraft's list of LAN worlds on this machine; repeats; in the variable and the file, "
        "one per line",
        parse=announced,
        repeat=True,
        lines=True,
        metavar="TUNNEL=NAME",
    )
    public: tuple[Forward, ...] = setting(
        (),
        "open PORT of ADDRESS (all, unless given) to everybody, and lead to TUNNEL; repeats",
        parse=parse_forward,
        repeat=True,
        metavar="[ADDRESS:]PORT=TUNNEL",
    )
    shared: tuple[Forward, ...] = setting(
        (),
        "open PORT to everybody, and choose the tunnel with --route by the Minecraft, TLS or HTTP host name; repeats",
        parse=shared,
        repeat=True,
        metavar="[ADDRESS:]PORT",
    )
    route: tuple[Route, ...] = setting(
        (),
        "on shared ports, send visitors of NAME to TUNNEL; *.NAME: to the tunnel that the * stands for; repeats",
        parse=parse_route,
        repeat=True,
        metavar="NAME=TUNNEL",
    )
    allow: tuple[Allowed, ...] = setting(
        (),
        "accept visitors of TUNNEL only from this network; repeats",
        parse=allowed,
        repeat=True,
        metavar="TUNNEL=CIDR",
    )
    max_connections: int = setting(2000, "most visitors at once", parse=count(1, 1_000_000), metavar="N")
    max_per_tunnel: int = setting(500, "most visitors of one tunnel at once", parse=count(1, 1_000_000), metavar="N")
    max_per_address: int = setting(
        20, "most visitors at once from one address (IPv6: one /64)", parse=count(1, 1_000_000), metavar="N"
    )
    rate_per_address: int = setting(
        10, "new connections from one address in 10 seconds", parse=count(1, 1_000_000), metavar="N"
    )
    first_byte_timeout: float = setting(
        5.0,
        "how long a visitor of a shared port may take to name a server",
        parse=seconds(0.1, 60),
        metavar="TIME",
        shown="5s",
    )
    drain: float = setting(
        600.0,
        "on SIGTERM, how long visitors may stay while nobody new is accepted; a second signal exits at once",
        parse=seconds(0, 7 * 86400),
        metavar="TIME",
        shown="10m",
    )
    proxy_protocol_from: tuple[Network, ...] = setting(
        (),
        "require a PROXY header (v1 or v2) from this network, and trust its addresses; repeats",
        parse=network_of,
        repeat=True,
        metavar="CIDR",
    )
    e2e_key: Secret = setting(
        Secret(),
        "the token's keys for sealed tunnels, as printed by 'host-agent e2e-key'",
        parse=secret,
    )
    e2e_secret: Secret = setting(
        Secret(), "the secret of the sealed tunnels itself, on their owner's own machines", parse=secret
    )
    warm: int = warm_legs(2, "legs, and pairs free for the next stream, to keep ready for each tunnel")

    def check(self) -> None:
        super().check()
        if not self.forward and not self.is_gateway:
            raise UsageError("nothing is forwarded: write --forward 25565=mc")
        if bool(self.shared) != bool(self.route):
            raise UsageError("--shared and --route need each other: write --shared 25565 --route mc.example.com=mc")
        known = set(self.tunnels)
        for allowed in self.allow:
            if allowed.tunnel not in known and all(route.tunnel for route in self.route):
                raise UsageError(f"--allow: no public port leads to '{allowed.tunnel}'")
        for tunnel in {announced.tunnel for announced in self.announce} - {forward.tunnel for forward in self.forward}:
            raise UsageError(f"--announce: nothing is forwarded to '{tunnel}': write --forward 25565={tunnel}, too")

    @property
    def is_gateway(self) -> bool:
        """Whether it has ports for visitors."""
        return bool(self.public or self.shared)

    @property
    def tunnels(self) -> tuple[str, ...]:
        """The tunnels that are named, each once."""
        named = [place.tunnel for place in (*self.forward, *self.public)]
        return tuple(dict.fromkeys([*named, *(route.tunnel for route in self.route if route.tunnel)]))
