"""Dialing the relay: one leg at a time, or as many as are wanted when it comes back.

While the relay cannot be reached, one dial at a time tests it, at intervals that grow with
the outage; all others wait for its result. So a relay that restarts is found again within
an eighth of the time it was away, and is not met by every stream's own retries.
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

AT_ONCE: Final = 16  # handshakes under way: enough to fill a core of the relay, few enough to stay short
FIRST_RETRY: Final = 0.05  # seconds
LAST_RETRY: Final = 5.0
RETRY_SHARE: Final = 1 / 8  # of the outage so far, until the next try
USER_AGENT: Final = f"tcp-ws-tunnel/{__version__}"
LONGEST_WISH: Final = 60.0  # seconds that a relay may ask anybody to stay away

_L = TypeVar("_L", bound=Leg)


@dataclass(frozen=True, slots=True)
class Dialed:
    """What a dial that succeeded has learned: for the leg that is made of it."""

    leg: str  # the id that the relay gave the leg
    token: str | None  # that let it in
    date: str  # the relay's clock: its `Date` (RFC 9110 section 6.6.1), or nothing
    peer: SocketAddress | None = None  # the other end of the connection: the relay, or a proxy


class _Restarted(Exception):
    """The dial was given up, to begin anew."""


class Outage:
    """How long the relay has been away, and when to try it next. Pure, but for chance."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next = 0.0

    @property
    def active(self) -> bool:
        return self._since is not None

    def failed(self, now: float, retry_after: float | None = None) -> None:
        """A dial failed. The next may begin at once if it is the first, and after a jittered while if not."""
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
        """The next try may begin at once: there is reason to hope."""
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next try."""
        return max(0.0, self._next - now) if self.active else 0.0


class TokenSource(Protocol):
    """Where tokens come from."""

    def __call__(self, tunnel: str) -> str | None:
        """The token to dial `tunnel` with, if any is to be shown. Raises UsageError."""

    def learn(self, date: str) -> None:
        """The relay's clock, as an answer of its has told it: `Date` (RFC 9110 section 6.6.1), or nothing."""

    def explain(self, denied: AccessDenied, tunnel: str) -> AccessDenied:
        """The same refusal, with what to do about it."""


class Dialer:
    """Opens legs to one relay, in one role, with `tokens`.

    `host` stands in the `Host` header and the certificate, if that is not the URL's; `headers` gives
    those that something before the relay wants. `instance_key` proves whose legs a host-agent's are.
    A dial has `timeout` seconds for TCP, TLS, proxy and upgrade together.
    What makes the legs is given what the dial has learned.
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
        self._on_failure = on_failure  # an outage began or goes on: told why
        self._on_success = on_success
        self._uri = parse_uri(relay)
        self._host = host or self._uri.host
        # What is asked for: `websockets` makes the `Host` header of it.
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
        self._restarted = asyncio.Event()  # set for a moment: nobody is to wait any longer
        self._outage = Outage()
        self._welcome = False  # the last dial that had an answer was let in

    @property
    def reachable(self) -> bool:
        """Whether the last dial succeeded."""
        return self._welcome and not self._outage.active

    async def dial(self, tunnel: str, make_leg: Callable[[Dialed], _L]) -> _L:
        """Open one leg, however long that takes.

        Raises AccessDenied where the relay says that the token is no good for this tunnel,
        and UsageError where there is none to show.
        """
        async with self._slots:
            while True:
                if not self._outage.active:
                    leg = await self._try(tunnel, make_leg)
                    if leg is not None:
                        return leg
                async with self._dial_lock:
                    if self._outage.active:  # nobody found the relay back meanwhile
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
        """A dial came to nothing, or to a leg that was of no use."""
        self._outage.failed(time.monotonic(), retry_after)
        self._on_failure(reason)

    def restart(self) -> None:
        """Begin all dials anew, now: the network is another than when they began."""
        self._restarts += 1
        for deadline in self._underway:
            if not deadline.expired():
                deadline.reschedule(0)
        self._outage.hurry()
        self._restarted.set()
        self._restarted.clear()

    async def dial_once(self, tunnel: str, make_leg: Callable[[Dialed], _L], prefix: str = "") -> _L:
        """Open one leg, now; `prefix` stands before its path. Raises RelayUnavailable, AccessDenied or UsageError."""
        token = self._tokens(tunnel)
        try:
            channel, response = await self._attempt(tunnel, prefix, token)
        except AccessDenied as exc:
            renewed = self._tokens(tunnel)
            if renewed == token:
                raise self._tokens.explain(exc, tunnel) from exc
            # The refusal has told the relay's time, by which there is another token to show; or the file was renewed.
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
        """One handshake, whose failures are errors of ours. Raises RelayUnavailable or AccessDenied."""
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
        except UsageError as exc:  # the proxy's variable may be mended, as the proxy may
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
