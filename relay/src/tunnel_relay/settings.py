"""The relay's settings."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel_core.errors import UsageError
from tunnel_core.net.sockets import parse_host, parse_port
from tunnel_core.protocol.tokens import parse_secrets
from tunnel_core.service.logs import LogSettings
from tunnel_core.service.settings import Secret, choice, count, seconds, secret, setting, text


@dataclass(frozen=True, kw_only=True)
class RelaySettings(LogSettings):
    host: str = setting("::", "address to listen on; :: is all, IPv6 and IPv4", parse=parse_host, metavar="ADDRESS")
    port: int = setting(8080, "port for legs, and /healthz and /readyz", parse=parse_port, also=("PORT",))
    admin_host: str = setting("127.0.0.1", "address of the admin port", parse=parse_host, metavar="ADDRESS")
    admin_port: int = setting(9090, "port of /healthz, /readyz and /metrics", parse=parse_port)
    secret: Secret = setting(
        Secret(), "what signs tokens; several, separated by spaces, during a change: the first signs", parse=secret
    )
    auth: str = setting(
        "token", "token, or none: anybody may offer and use any tunnel", parse=choice("token", "none"), metavar="MODE"
    )
    revoked: str = setting("", "file of token ids that are not good any more, one a line", parse=text, metavar="FILE")
    wait: float = setting(
        10.0, "how long a client waits for its host", parse=seconds(0, 60), metavar="TIME", shown="10s"
    )
    drain: float = setting(
        25.0, "how long legs may take to move elsewhere on SIGTERM", parse=seconds(0, 3600), metavar="TIME", shown="25s"
    )
    max_waiting: int = setting(
        1000, "clients that may wait for hosts at once: 64 KiB each", parse=count(1, 1_000_000), metavar="N"
    )
    max_waiting_per_tunnel: int = setting(100, "of them, for one tunnel", parse=count(1, 1_000_000), metavar="N")

    def check(self) -> None:
        """Raise UsageError if it is not said who may come in."""
        if self.auth == "none":
            return
        if not self.secret:
            raise UsageError(
                "no secret: set RELAY_SECRET or write --secret-file FILE ('relay secret' makes one), "
                "or --auth none to let anybody in"
            )
        parse_secrets(self.secret.read())
