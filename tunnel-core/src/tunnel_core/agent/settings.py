"""The settings that both agents have."""

from __future__ import annotations

from dataclasses import dataclass

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from ..errors import UsageError
from ..net.address import is_loopback, parse_host, parse_local_host, parse_port
from ..protocol.control import MAX_WINDOW, MIN_WINDOW
from ..service.logs import LogSettings
from ..service.settings import Secret, count, seconds, secret, setting, show_size, size, text
from . import headers


def relay_url(value: str) -> str:
    """The relay's URL; http and https are understood as ws and wss."""
    scheme, separator, rest = value.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    hint = "write wss://relay.example.com, or ws://127.0.0.1:8080 for one on this machine"
    if not separator or scheme not in ("ws", "wss"):
        raise UsageError(f"'{_shown(value)}' is not a relay's URL: {hint}")
    url = f"{scheme}://{rest}".rstrip("/")
    try:
        parsed = parse_uri(url)
        parse_host(f"[{parsed.host}]" if ":" in parsed.host else parsed.host)
    except (InvalidURI, ValueError, UsageError) as exc:
        raise UsageError(f"'{_shown(value)}' is not a relay's URL: {hint}") from exc
    if "?" in rest or parsed.username is not None:
        raise UsageError(f"'{_shown(value)}' carries a query or a password: give the token with --token-file")
    if "/eyJ" in rest:  # how a token begins
        raise UsageError("there is a token in the path of the URL: give it with --token-file")
    return url


def _shown(value: str) -> str:
    """What may be shown of something that was given as a URL: neither a query, a fragment nor a password."""
    start = min(value.find(mark) % (len(value) + 1) for mark in "?#")
    head, at, rest = value[:start].rpartition("@")
    scheme = head.partition("://")[0] + "://" if "://" in head else ""
    return (f"{scheme}…@{rest}" if at else rest) + (value[start] + "…" if start < len(value) else "")


@dataclass(frozen=True, kw_only=True)
class AgentSettings(LogSettings):
    """The settings of both agents."""

    relay: str = setting("", "URL of the relay, such as wss://relay.example.com", parse=relay_url, metavar="URL")
    header: Secret = setting(
        Secret(),
        "header to send with each dial, for a gateway in front of the relay; repeats; in the variable and the file, "
        "one per line",
        parse=secret,
        repeat=True,
        metavar="'NAME: VALUE'",
    )
    relay_host: str = setting(
        "",
        "name in the Host header and the certificate, if it differs from the URL's",
        parse=parse_host,
        metavar="NAME",
    )
    token: Secret = setting(Secret(), "token for the tunnels; prefer a file: flags show in ps", parse=secret)
    secret: Secret = setting(
        Secret(), "the relay's secret, for its owner: the agent makes short-lived tokens from it", parse=secret
    )
    ca_file: str = setting("", "CA certificate to trust for wss:// instead of the system's", parse=text, metavar="FILE")
    window: int = setting(
        1 << 20,
        "most bytes in flight in each direction of a stream",
        parse=size(MIN_WINDOW, MAX_WINDOW),
        metavar="SIZE",
        shown="1MiB",
    )
    replay_memory: int = setting(
        256 << 20,
        "memory for all streams together: bytes kept for a resume, and bytes queued for slow readers",
        parse=size(MIN_WINDOW, 1 << 40),
        metavar="SIZE",
        shown=show_size(256 << 20),
    )
    resume_window: float = setting(
        60.0, "how long a stream without a leg is kept", parse=seconds(1, 86400), metavar="TIME", shown="60s"
    )
    stop_timeout: float = setting(
        5.0, "on SIGTERM, how long to wait for the other ends", parse=seconds(0, 60), metavar="TIME", shown="5s"
    )
    admin_host: str = setting("127.0.0.1", "address of the admin port", parse=parse_local_host, metavar="ADDRESS")
    admin_port: int | None = setting(None, "port of /healthz, /readyz and /metrics; off unless given", parse=parse_port)

    def check(self) -> None:
        """Raise UsageError if there is no relay to go to."""
        if not self.relay:
            raise UsageError("no relay is given: write --relay wss://relay.example.com")
        self.headers()

    def headers(self) -> list[tuple[str, str]]:
        """(name, value) of each header to send, read anew. Raises UsageError, which shows no value."""
        return headers.parse(self.header.read(), has_token=bool(self.token or self.secret))

    @property
    def sends_token_in_clear(self) -> bool:
        """Whether a token would cross a network unencrypted."""
        uri = parse_uri(self.relay)
        return bool(self.token or self.secret) and not uri.secure and not is_loopback(uri.host)


def warm_legs(default: int, what: str) -> int:
    """The setting of how many legs an agent keeps ready: by one at least it knows that it can reach the relay."""
    return setting(default, what, parse=count(1, 1000), metavar="N")
