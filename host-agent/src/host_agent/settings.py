"""The host-agent's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tunnel_core.agent.settings import AgentSettings, warm_legs
from tunnel_core.errors import UsageError
from tunnel_core.net.address import Address, parse_address
from tunnel_core.protocol.endpoints import is_tunnel
from tunnel_core.service.settings import Secret, seconds, secret, setting, text


class Offer(NamedTuple):
    """A tunnel and the target behind it."""

    tunnel: str
    target: Address


def tunnel_name(value: str) -> str:
    if not is_tunnel(value):
        raise UsageError(f"'{value}' is not a tunnel's name: write up to 63 of a-z, 0-9 and -")
    return value


def offer(value: str) -> Offer:
    """`NAME=HOST:PORT` or `NAME=unix:/PATH`."""
    tunnel, equals, target = value.partition("=")
    if not equals:
        raise UsageError(f"'{value}' is not a tunnel: write NAME=HOST:PORT, such as mc=127.0.0.1:25565")
    return Offer(tunnel_name(tunnel), parse_address(target))


@dataclass(frozen=True, kw_only=True)
class HostSettings(AgentSettings):
    tunnel: tuple[Offer, ...] = setting(
        (),
        "offer the target HOST:PORT or unix:/PATH under NAME; repeats",
        parse=offer,
        repeat=True,
        metavar="NAME=TARGET",
    )
    target_timeout: float = setting(
        10.0, "how long the target may take to connect", parse=seconds(0.1, 10), metavar="TIME", shown="10s"
    )
    proxy_protocol: tuple[str, ...] = setting(
        (),
        "tell the target of TUNNEL who connects, by PROXY protocol v2, which it must expect; repeats",
        parse=text,
        repeat=True,
        metavar="TUNNEL",
    )
    e2e_secret: Secret = setting(
        Secret(),
        "secret that seals the tunnels, so that the relay cannot read them ('relay secret' makes one); with several, "
        "the first makes keys and all are accepted",
        parse=secret,
    )
    sealed: tuple[str, ...] = setting(
        (), "seal only TUNNEL instead of all tunnels; repeats", parse=tunnel_name, repeat=True, metavar="TUNNEL"
    )
    revoked: str = setting(
        "", "file of token ids whose keys for sealed tunnels are rejected", parse=text, metavar="FILE"
    )
    warm: int = warm_legs(4, "legs to keep ready for each tunnel; more are dialed on demand")

    def check(self) -> None:
        super().check()
        if not self.tunnel:
            raise UsageError("no tunnel is offered: write --tunnel mc=127.0.0.1:25565")
        names = [offer.tunnel for offer in self.tunnel]
        if len(set(names)) < len(names):
            raise UsageError("a tunnel is offered twice: give each its own name")
        for tunnel in self.proxy_protocol:
            if tunnel not in names:
                raise UsageError(f"--proxy-protocol: '{tunnel}' is not offered: write --tunnel {tunnel}=HOST:PORT, too")
        for name in set(self.sealed) - set(names):
            raise UsageError(f"--sealed: '{name}' is not offered: write --tunnel {name}=HOST:PORT, too")
        for flag, value in (("--sealed", self.sealed), ("--revoked", self.revoked)):
            if value and not self.e2e_secret:
                raise UsageError(f"{flag} is for sealed tunnels: write --e2e-secret-file FILE, too")

    def seals(self, tunnel: str) -> bool:
        """Whether the streams of `tunnel` are to be sealed."""
        return bool(self.e2e_secret) and (not self.sealed or tunnel in self.sealed)
