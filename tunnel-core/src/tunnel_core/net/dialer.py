"""Dialing the relay, with one shared retry schedule for all legs.

While the relay is unreachable, one dial at a time probes it, at intervals that grow with the
outage, and all others wait for the result. A relay that restarts is found within an eighth of
its downtime, and is not flooded by the retries of every stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from .. import __version__
from ..errors import AccessDenied, RelayUnavailable, UsageError
from ..protocol.endpoints import INSTANCE_KEY_HEADER, LEG_HEADER, RELAY_HEADER, SUBPROTOCOL, Role, is_id, leg_path
from . import connecting, proxies, refusals, sockets
from .address import Address
from .channel import Channel
from .leg import Leg
from .route import SocketAddress

AT_ONCE: Final = 16  # concurrent handshakes: enough to keep a core of the relay busy, few enough to stay short
FIRST_RETRY: Final = 0.05  # seconds
LAST_RETRY: Final = 5.0
RETRY_SHARE: Final = 1 / 8  # of the outage so far, until the next try
USER_AGENT: Final = f"tcp-ws-tunnel/{__version__}"
LONGEST_WISH: Final = 60.0  # seconds: the longest Retry-After that is honoured

_L = TypeVar("_L", bound=Leg)


@dataclass(frozen=True, slots=True)
class Dialed:
    """What a successful dial learned, for the leg made from it."""

    leg: str  # the id that the relay gave the leg
    token: str | None  # the one the relay accepted
    date: str  # the response's `Date` (RFC 9110 section 6.6.1), or empty
    peer: SocketAddress | None = None  # the other end of the connection: the relay, or a proxy


class _Restarted(Exception):
    """The dial was abandoned, to start again."""


class Outage:
    """How long the relay has been away, and when to try it next. Pure, except for random jitter."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next = 0.0

    @property
    def active(self) -> bool:
        return self._since is not None

    def failed(self, now: float, retry_after: float | None = None) -> None:
        """A dial failed. After the first failure the next may start at once, later ones after a jittered wait."""
        if self._since is None:
            self._since = now
            self._next = now + min(retry_after or 0, LONGEST_WISH)
            return
        share = min(LAST_RETRY, max(FIRST_RETRY, (now - self._since) * RETRY_SHARE))
        wait = max(share * random.uniform(0.5, 1.0), min(retry_after or 0, LONGEST_WISH))
        self._next = now + wait

    def ended(self) -> None:
        self._since = None

    def hurry(self) -> None:
        """Let the next try start at once."""
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next try."""
        return max(0.0, self._next - now) if self.active else 0.0


class TokenSource(Protocol):
    """Where tokens come from."""

    def __call__(self, tunnel: str) -> str | None:
        """The token to dial `tunnel` with, or None to send none. Raises UsageError."""

    def learn(self, date: str) -> None:
        """Note the relay's clock: the `Date` of its response (RFC 9110 section 6.6.1), or empty."""

    def explain(self, denied: AccessDenied, tunnel: str) -> AccessDenied:
        """The same refusal, with advice."""


class Dialer:
    """Opens legs to one relay, in one role, with `tokens`.

    `host` overrides the URL's host in the `Host` header and the certificate check; `headers` returns
    extra headers that a proxy in front of the relay requires. `instance_key` proves which host-agent
    the legs belong to. A dial has `timeout` seconds for TCP, TLS, proxy and upgrade together.
    """

    def __init__(
        self,
        relay: str,
        role: Role,
        *,
        timeout: float,
        instance_key: str | None,
        tokens: TokenSource,
        ca_file: str | None,
        host: str = "",
        headers: Callable[[], Sequence[tuple[str, str]]] = tuple,
        on_failure: Callable[[str], None],
        on_success: Callable[[Dialed], None],
    ) -> None:
        self._relay = relay
        self._role: Role = role
        self._timeout = timeout
        self._instance_key = instance_key
        self._tokens = tokens
        self._headers = headers
        self._on_failure = on_failure  # called with the reason when an outage starts or continues
        self._on_success = on_success
        self._uri = parse_uri(relay)
        self._host = host or self._uri.host
        # `websockets` derives the `Host` header from this URL.
        scheme = "wss" if self._uri.secure else "ws"
        self._address = f"{scheme}://{host}:{self._uri.port}{self._uri.path}" if host else relay
        self._ca_file = ca_file
        try:
            self._ssl = ssl.create_default_context(cafile=ca_file) if self._uri.secure else None
        except OSError as exc:  # ssl.SSLError is one
            raise UsageError(f"--ca-file: cannot use {ca_file}: {sockets.why(exc)}: give a file in PEM format") from exc
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._dial_lock = asyncio.Lock()  # in an outage: one dial at a time
        self._underway: set[asyncio.Timeout] = set()  # the deadlines of the dials under way
        self._restarts = 0
        self._restarted = asyncio.Event()  # set for a moment, to wake whoever waits
        self._outage = Outage()
        self._welcome = False  # the last dial that was answered was accepted

    @property
    def reachable(self) -> bool:
        """Whether the last dial succeeded."""
        return self._welcome and not self._outage.active

    async def dial(self, tunnel: str, make_leg: Callable[[Dialed], _L]) -> _L:
        """Open one leg, however long that takes.

        Raises AccessDenied if the relay refuses the token for this tunnel, and UsageError if no
        token can be read.
        """
        async with self._slots:
            while True:
                if not self._outage.active:
                    leg = await self._try(tunnel, make_leg)
                    if leg is not None:
                        return leg
                async with self._dial_lock:
                    if self._outage.active:  # no other dial has reached the relay meanwhile
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(self._outage.wait(time.monotonic())):
                                await self._restarted.wait()
                        leg = await self._try(tunnel, make_leg)
                        if leg is not None:
                            return leg

    async def _try(self, tunnel: str, make_leg: Callable[[Dialed], _L]) -> _L | None:
        try:
            leg = await self.dial_once(tunnel, make_leg)
        except RelayUnavailable as exc:
            self.failed(str(exc), exc.retry_after)
            return None
        except _Restarted:
            return None
        except (AccessDenied, UsageError):
            self._outage.ended()
            self._welcome = False
            raise
        self._outage.ended()
        self._welcome = True
        return leg

    def failed(self, reason: str, retry_after: float | None = None) -> None:
        """A dial failed, or the leg it opened was useless."""
        self._outage.failed(time.monotonic(), retry_after)
        self._on_failure(reason)

    def restart(self) -> None:
        """Restart all dials now: the network has changed since they started."""
        self._restarts += 1
        for deadline in self._underway:
            if not deadline.expired():
                deadline.reschedule(0)
        self._outage.hurry()
        self._restarted.set()
        self._restarted.clear()

    async def dial_once(self, tunnel: str, make_leg: Callable[[Dialed], _L], prefix: str = "") -> _L:
        """Open one leg, without retries. `prefix` precedes its path.

        Raises RelayUnavailable, AccessDenied or UsageError.
        """
        token = self._tokens(tunnel)
        try:
            channel, response = await self._attempt(tunnel, prefix, token)
        except AccessDenied as exc:
            renewed = self._tokens(tunnel)
            if renewed == token:
                raise self._tokens.explain(exc, tunnel) from exc
            # Either the refusal corrected our idea of the relay's clock, or the token file was renewed.
            token = renewed
            try:
                channel, response = await self._attempt(tunnel, prefix, token)
            except AccessDenied as again:
                raise self._tokens.explain(again, tunnel) from again
        transport = channel.transport
        dialed = Dialed(
            response.headers.get(LEG_HEADER, ""),
            token,
            response.headers.get("Date", ""),
            transport.get_extra_info("peername"),
        )
        subprotocol = response.headers.get("Sec-WebSocket-Protocol", "")
        if subprotocol != SUBPROTOCOL or not is_id(dialed.leg) or transport.is_closing():
            transport.abort()
            raise RelayUnavailable(f"{self._relay} is not a tcp-ws-tunnel relay, or went away at once")
        self._tokens.learn(dialed.date)
        leg = make_leg(dialed)
        channel.become(leg)
        self._on_success(dialed)
        return leg

    async def _attempt(self, tunnel: str, prefix: str, token: str | None) -> tuple[Channel, Response]:
        """One handshake, with failures converted. Raises RelayUnavailable or AccessDenied."""
        path = prefix + leg_path(self._role, tunnel)
        restarts = self._restarts
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                self._underway.add(deadline)
                try:
                    return await self._handshake(path, token)
                finally:
                    self._underway.discard(deadline)
        except InvalidStatus as exc:
            if RELAY_HEADER in exc.response.headers:
                self._tokens.learn(exc.response.headers.get("Date", ""))
            raise refusals.of_answer(exc.response, self._relay, path, self._role) from exc
        except TimeoutError as exc:
            if self._restarts != restarts:
                raise _Restarted from exc
            raise RelayUnavailable(f"no answer from {self._relay} within {self._timeout:g} s") from exc
        except UsageError as exc:  # the proxy variable may be fixed while we run, just as a proxy may
            raise RelayUnavailable(f"no way to {self._relay}: {exc}") from exc
        except (WebSocketException, OSError, EOFError, ValueError) as exc:  # ValueError: a proxy's URL, a header
            raise refusals.of_error(exc, self._relay, self._ca_file) from exc

    async def _handshake(self, path: str, token: str | None) -> tuple[Channel, Response]:
        protocol = ClientProtocol(parse_uri(self._address + path), subprotocols=[Subprotocol(SUBPROTOCOL)])
        request = protocol.connect()
        request.headers.update(self._headers())
        if "User-Agent" not in request.headers:
            request.headers["User-Agent"] = USER_AGENT
        if self._instance_key is not None:
            request.headers[INSTANCE_KEY_HEADER] = self._instance_key
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        proxy = proxies.of_environment(self._uri)
        if proxy is None:
            channel = await Channel.over(await connecting.connect(Address(self._uri.host, self._uri.port)))
        else:
            channel = await proxies.connect(proxy, self._uri)
        try:
            if self._ssl is not None:
                await channel.start_tls(self._ssl, self._host)
            protocol.send_request(request)
            return channel, await channel.upgrade(protocol)
        except BaseException:
            channel.transport.abort()
            raise
