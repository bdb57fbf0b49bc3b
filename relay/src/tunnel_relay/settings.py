"""The relay's settings."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel_core.errors import UsageError
from tunnel_core.net.address import parse_local_host, parse_port
from tunnel_core.protocol.control import MAX_MESSAGE
from tunnel_core.protocol.tokens import parse_network
from tunnel_core.service.logs import LogSettings
from tunnel_core.service.settings import Secret, choice, count, flag, seconds, secret, setting, size, text
from tunnel_core.service.signing import signing_secrets


@dataclass(frozen=True, kw_only=True)
class RelaySettings(LogSettings):
    host: str = setting("::", "address to listen on; :: or *: all", parse=parse_local_host, metavar="ADDRESS")
    port: int = setting(8080, "port for legs, and /healthz and /readyz", parse=parse_port, also=("PORT",))
    admin_host: str = setting("127.0.0.1", "address of the admin port", parse=parse_local_host, metavar="ADDRESS")
    admin_port: int = setting(9090, "port of /healthz, /readyz and /metrics", parse=parse_port)
    secret: Secret = setting(
        Secret(), "signs tokens; to rotate, give several separated by spaces: the first one signs", parse=secret
    )
    auth: str = setting(
        "token", "token, or none: anybody may offer and use any tunnel", parse=choice("token", "none"), metavar="MODE"
    )
    revoked: str = setting(
        "", "file of revoked tokens or ids, one per line; reread when it changes", parse=text, metavar="FILE"
    )
    wait: float = setting(
        10.0, "how long a client waits for its host", parse=seconds(0, 60), metavar="TIME", shown="10s"
    )
    drain: float = setting(
        25.0,
        "on SIGTERM, how long legs may take to move to another relay",
        parse=seconds(0, 3600),
        metavar="TIME",
        shown="25s",
    )
    drain_alone: float = setting(
        1.5,
        "how long a drain waits for the first stream to move; if none does, there is no other relay",
        parse=seconds(0, 3600),
        metavar="TIME",
        shown="1.5s",
    )
    max_legs: int = setting(
        0,
        "most legs in total; 0: as many as descriptors allow, at most 20000",
        parse=count(0, 1_000_000),
        metavar="N",
    )
    max_legs_per_token: int = setting(500, "most legs with one token", parse=count(1, 1_000_000), metavar="N")
    max_streams_per_token: int = setting(
        250,
        "most streams at once with one token, unless the token sets its own limit",
        parse=count(1, 1_000_000),
        metavar="N",
    )
    max_legs_per_address: int = setting(
        1000, "most legs from one address (IPv6: one /64)", parse=count(1, 1_000_000), metavar="N"
    )
    max_handshakes: int = setting(
        512,
        "most open connections without a request; one more closes the oldest",
        parse=count(1, 100_000),
        metavar="N",
    )
    max_handshakes_per_address: int = setting(
        128,
        "the same from one address (IPv6: one /64); trusted proxies are exempt",
        parse=count(1, 100_000),
        metavar="N",
    )
    handshake_timeout: float = setting(
        10.0, "how long a handshake may take", parse=seconds(0.1, 60), metavar="TIME", shown="10s"
    )
    max_header: int = setting(
        16384, "largest request line and headers", parse=size(1024, 1 << 20), metavar="SIZE", shown="16KiB"
    )
    max_message: int = setting(
        MAX_MESSAGE, "largest control message", parse=size(512, MAX_MESSAGE), metavar="SIZE", shown="4KiB"
    )
    max_message_rate: int = setting(
        1000,
        "most control messages and pings a second on one leg, plus one for each 16 KiB that it carries",
        parse=count(10, 1_000_000),
        metavar="N",
    )
    max_failed_logins: int = setting(
        20,
        "bad tokens that an address may present before it must wait; valid ones are always accepted",
        parse=count(1, 1_000_000),
        metavar="N",
    )
    failed_login_refill: float = setting(
        6.0, "time until it may present another", parse=seconds(0.01, 3600), metavar="TIME", shown="6s"
    )
    trusted_proxy: tuple[str, ...] = setting(
        (),
        "network of proxies that are trusted to report the client's address; repeats",
        parse=parse_network,
        repeat=True,
        metavar="CIDR",
    )
    client_address_header: str = setting(
        "X-Forwarded-For",
        "header that they set; Forwarded is parsed by RFC 7239",
        parse=text,
        metavar="NAME",
    )
    max_waiting_memory: int = setting(
        64 << 20,
        "most bytes held for clients that wait for a host; one token may use a quarter",
        parse=size(256 * 1024, 1 << 40),
        metavar="SIZE",
        shown="64MiB",
    )

    join_page: bool = setting(
        True,
        "serve the page for friends with an invite, and the program's package, at /join",
        parse=flag,
        metavar="on|off",
        shown="on",
    )
    join_wheel: str = setting(
        "",
        "wheel of this version to serve (default: the image's, or the one from 'make wheel')",
        parse=text,
        metavar="FILE",
    )
    max_pages: int = setting(64, "most pages being sent at once", parse=count(1, 100_000), metavar="N")
    max_pages_per_address: int = setting(
        200,
        "pages that an address may request at once; installing takes 20",
        parse=count(1, 1_000_000),
        metavar="N",
    )
    page_refill: float = setting(
        0.5, "time until it may request another", parse=seconds(0.001, 3600), metavar="TIME", shown="0.5s"
    )

    def check(self) -> None:
        """Raise UsageError if access control is not configured."""
        if self.auth == "none":
            return
        if not self.secret:
            raise UsageError(
                "no secret: set RELAY_SECRET or write --secret-file FILE ('relay secret' makes one), "
                "or --auth none to let anybody in"
            )
        signing_secrets(self.secret)
