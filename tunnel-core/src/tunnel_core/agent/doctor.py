"""`host-agent doctor` and `client-agent doctor`: what works, what does not, and what to do about it.

The checks go the way a leg goes: the name, TCP, TLS, a proxy, the upgrade, the token, the
other side, the target. Each prints one line as it is done.
"""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from websockets.exceptions import InvalidProxy
from websockets.proxy import Proxy, get_proxy, parse_proxy
from websockets.uri import WebSocketURI, parse_uri

from ..errors import AccessDenied, ProtocolViolation, RelayUnavailable, UsageError
from ..net import sockets
from ..net.dialer import Dialed, Dialer
from ..net.leg import Leg
from ..net.liveness import LegMonitor
from ..net.sockets import Address
from ..protocol import tokens
from ..protocol.control import MAX_MESSAGE, PROBE_BYTES, Probed, to_doctor
from ..protocol.endpoints import PROBE, Role
from ..protocol.frames import CloseCode
from ..protocol.tokens import LEEWAY
from .credentials import Credentials
from .settings import AgentSettings

PINGS: Final = 5
PATIENCE: Final = 5.0  # seconds for the pings, and for the bytes
LEAVE: Final = 1.0  # seconds for the last legs to close
PIECE: Final = 64 * 1024
MOST_IN_FLIGHT: Final = 1024 * 1024  # bytes of the probe that may be on their way: as a stream's window

Say = Callable[[str], None]


def reason_of(exc: OSError) -> str:
    """An error in words, also where it brings none."""
    return exc.strerror or str(exc) or type(exc).__name__


class Failed(Exception):
    """A check failed: the first argument says what, the second what to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice


def _proxy(uri: WebSocketURI) -> Proxy | None:
    """The proxy to go through, by the environment. Raises UsageError."""
    url = get_proxy(uri)
    try:
        return parse_proxy(url) if url is not None else None
    except (InvalidProxy, ValueError) as exc:  # neither is shown: a password may be in it
        raise UsageError("the proxy in the environment is none: write http_proxy=http://HOST:PORT") from exc


class _ProbeLeg(Leg):
    """Measures the way to the relay and back."""

    pings = False

    def __init__(self, monitor: LegMonitor) -> None:
        super().__init__(monitor, client=True, text_limit=MAX_MESSAGE)
        self.told: asyncio.Future[Probed | None] = asyncio.get_running_loop().create_future()
        self.end = ""  # why it ended
        self.echoed = 0
        self.changed = asyncio.Event()

    def on_text(self, payload: bytes) -> None:
        try:
            told = to_doctor(payload)
        except ProtocolViolation as exc:
            self.violated(exc.code, exc.reason)
            return
        if isinstance(told, Probed) and not self.told.done():
            self.told.set_result(told)

    def on_data(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        self.echoed += size
        self.changed.set()

    def on_end(self, code: int, reason: str) -> None:
        self.changed.set()
        self.end = reason or f"close code {code}"
        if not self.told.done():
            self.told.set_result(None)


class Doctor:
    """Runs the checks. Subclasses add those of their side: `look_beyond`."""

    def __init__(self, settings: AgentSettings, role: Role, tunnels: Sequence[str], say: Say) -> None:
        self.settings = settings
        self.role: Role = role
        self.tunnels = tunnels
        self._say = say
        self._sick = 0
        self._uri = parse_uri(settings.relay)
        self._proxy = _proxy(self._uri)
        self._relay_date = ""  # the relay's clock, as its last answer told it
        self._trips: asyncio.Queue[float] = asyncio.Queue()
        self.monitor = LegMonitor(self._trips.put_nowait, lambda _: None)
        self._credentials = Credentials(role, settings.token, settings.secret)
        self.dialer = Dialer(
            settings.relay,
            role,
            instance_key=None,
            token=self._credentials,
            ca_file=settings.ca_file or None,
            on_failure=lambda _: None,
            on_success=lambda: None,
        )

    async def run(self) -> int:
        """Run all checks. Returns the exit code: 0 if all is well, else 1."""
        self._say(f"{self.role}-agent → {self.settings.relay}")
        first: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("name", self._name),
            ("tcp", self._tcp),
            ("tls", self._tls),
            ("proxy", self._through),
            ("token", self._token),
        ]
        for name, check in first:
            await self.check(name, check)
        if self._sick:
            self._say("the rest is not checked before that is mended")
        else:
            for tunnel in self.tunnels:
                await self._probe(tunnel)
            await self.check("clock", self._clock)
            await self.monitor.close_all(CloseCode.NORMAL, "", LEAVE)
        if self._sick:
            self._say(f"{self._sick} of these need looking after")
        return 1 if self._sick else 0

    async def look_beyond(self, tunnel: str) -> None:
        """The checks of one tunnel that only this side can make."""

    async def check(self, name: str, check: Callable[[], Awaitable[str]]) -> bool:
        """Run one check and print its line. Whether it went well."""
        try:
            self._say(f"  ok    {name:<12} {await check()}")
        except Failed as failed:
            self._sick += 1
            self._say(f"  FAIL  {name:<12} {failed.what}")
            self._say(f"        {'':<12} → {failed.advice}")
            return False
        return True

    # The way to the relay.

    @property
    def _door(self) -> Address:
        """Where TCP goes: the relay, or the proxy before it."""
        if self._proxy is not None:
            return Address(self._proxy.host, self._proxy.port)
        return Address(self._uri.host, self._uri.port)

    async def _name(self) -> str:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(*self._door)
        except OSError as exc:
            raise Failed(
                f"{self._door.host} is not found: {exc.strerror}",
                "check the spelling of --relay, and this machine's DNS",
            ) from exc
        addresses = dict.fromkeys(str(info[4][0]) for info in found)
        return f"{self._door.host} is {', '.join(addresses)}"

    async def _tcp(self) -> str:
        began = time.perf_counter()
        try:
            sock = await sockets.connect(self._door)
        except OSError as exc:
            raise Failed(
                f"{self._door} does not answer: {reason_of(exc)}",
                "is the relay running there, and does a firewall let you out to that port?",
            ) from exc
        sock.close()
        return f"{self._door} answers in {(time.perf_counter() - began) * 1000:.0f} ms"

    async def _tls(self) -> str:
        if not self._uri.secure:
            if self.settings.sends_token_in_clear:
                raise Failed("none: the token crosses the network for all to read", "use the wss:// URL of the relay")
            return "none (ws://)"
        if self._proxy is not None:
            return "checked with the upgrade, through the proxy"
        context = ssl.create_default_context(cafile=self.settings.ca_file or None)
        try:
            async with asyncio.timeout(sockets.CONNECT_TIMEOUT):
                _, writer = await asyncio.open_connection(*self._door, ssl=context)
        except ssl.SSLCertVerificationError as exc:
            raise Failed(
                f"the certificate is not trusted: {exc.verify_message}",
                "give its authority with --ca-file, or have the relay's certificate mended",
            ) from exc
        except OSError as exc:
            raise Failed(
                f"no TLS there: {reason_of(exc)}", "is this port meant for wss://? try ws://, or port 443"
            ) from exc
        certificate = writer.get_extra_info("peercert") or {}
        version = writer.get_extra_info("ssl_object").version()
        writer.close()
        return f"{version}, certificate good until {certificate.get('notAfter', '?')}"

    async def _through(self) -> str:
        if self._proxy is None:
            return "none"
        return f"{self._proxy.scheme}://{self._proxy.host}:{self._proxy.port}, from the environment"

    async def _token(self) -> str:
        if not self.settings.token:
            if self.settings.secret:
                try:
                    self._credentials.check([])
                except UsageError as exc:
                    raise Failed(str(exc), "give the relay's own secret, or a token of whoever runs it") from exc
            return "made from the secret" if self.settings.secret else "none"
        try:
            grant = tokens.read(self.settings.token.read())
        except (AccessDenied, UsageError) as exc:
            raise Failed(str(exc), "ask whoever runs the relay for a token: relay token …") from exc
        left = grant.expires - time.time()
        told = f"{grant.subject}: {grant.role} of {', '.join(grant.tunnels)}"
        if grant.role != self.role:
            raise Failed(told, f"this is a {self.role}-agent: ask for a token with --role {self.role}")
        for tunnel in self.tunnels:
            if tunnel not in grant.tunnels:
                raise Failed(told, f"ask for a token that has --tunnel {tunnel}")
        if left < 0:
            raise Failed(f"{told}, expired {-left / 3600:.1f} hours ago", "ask for a new one")
        return f"{told}, {left / 86400:.1f} days left"

    # A tunnel.

    async def _probe(self, tunnel: str) -> None:
        leg: _ProbeLeg | None = None

        def make_leg(dialed: Dialed) -> _ProbeLeg:
            self._relay_date = dialed.date
            return _ProbeLeg(self.monitor)

        async def upgrade() -> str:
            nonlocal leg
            try:
                leg = await self.dialer.dial_once(tunnel, make_leg, PROBE)
            except AccessDenied as exc:
                self._relay_date = exc.date
                raise Failed(str(exc), f"ask for a token made with --role {self.role} --tunnel {tunnel}") from exc
            except (RelayUnavailable, UsageError) as exc:
                if isinstance(exc, RelayUnavailable):
                    self._relay_date = exc.date
                raise Failed(
                    str(exc), "does a proxy on the way cut WebSockets? is the URL the relay's, with its path?"
                ) from exc
            return f"the relay lets this {self.role} in"

        async def presence() -> str:
            assert leg is not None, "only after the upgrade"
            try:
                async with asyncio.timeout(PATIENCE):
                    told = await leg.told
            except TimeoutError:
                told = None
            if told is None:
                raise Failed(
                    f"the relay does not tell who is there: {leg.end or 'no word from it'}",
                    "is it of the same version, and is nothing on the way that holds WebSocket frames back?",
                )
            if self.role == "host":
                return f"{told.hosts} legs of host-agents and {told.waiting} clients wait at the relay"
            if not told.hosts:
                raise Failed("no host-agent waits at the relay", "start the host-agent, and run its doctor")
            return f"{told.hosts} legs of host-agents wait at the relay"

        self._say(f"tunnel {tunnel}")
        if await self.check("upgrade", upgrade) and leg is not None:
            there = await self.check("presence", presence)
            await self.check("round trip", lambda: self._round_trip(leg))
            await self.check("throughput", lambda: self._throughput(leg))
            leg.abort()
            if there:
                await self.look_beyond(tunnel)

    async def _round_trip(self, leg: _ProbeLeg) -> str:
        trips = []
        try:
            async with asyncio.timeout(PATIENCE):
                for _ in range(PINGS):
                    leg.ping()
                    trips.append(await self._trips.get() * 1000)
        except TimeoutError as exc:
            raise Failed(
                f"{len(trips)} of {PINGS} pings were answered", "something on the way holds WebSocket frames back"
            ) from exc
        return f"{statistics.median(trips):.1f} ms to the relay (median of {PINGS}, worst {max(trips):.1f})"

    async def _throughput(self, leg: _ProbeLeg) -> str:
        began = time.perf_counter()
        piece = bytes(PIECE)
        sent = 0
        try:
            async with asyncio.timeout(PATIENCE):
                while leg.echoed < PROBE_BYTES and leg.open:
                    while sent < PROBE_BYTES and sent - leg.echoed < MOST_IN_FLIGHT:
                        leg.send_data(piece)
                        sent += PIECE
                    leg.changed.clear()
                    await leg.changed.wait()
        except TimeoutError:
            pass  # a slow line: what came back meanwhile tells how slow
        rate = leg.echoed / (time.perf_counter() - began) / 1e6
        if not leg.echoed:
            raise Failed("no bytes came back from the relay", "something on the way holds larger frames back")
        return f"{rate:.1f} MB/s to the relay and back, both at once"

    # And the time.

    async def _clock(self) -> str:
        if not self._relay_date:
            return "not compared: the relay told no time"
        skew = time.time() - email.utils.parsedate_to_datetime(self._relay_date).timestamp()
        told = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the relay's"
        if abs(skew) > LEEWAY:
            raise Failed(told, "set this machine's clock (NTP): tokens are good only within their time")
        return told if abs(skew) > 2 else "agrees with the relay's"
