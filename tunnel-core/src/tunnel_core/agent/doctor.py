"""`host-agent doctor` and `client-agent doctor`: what works, what does not, and what to do about it.

The checks go the way a leg goes: the name, TCP, TLS, a proxy, the upgrade, the token, the
other side, the target. Each prints one line as it is done.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from websockets.uri import parse_uri

from ..errors import AccessDenied, ProtocolViolation, RelayUnavailable, UsageError
from ..net import connecting, names, proxies, refusals, sockets
from ..net.address import Address, is_ip
from ..net.leg import Leg
from ..net.liveness import LegMonitor
from ..protocol.control import MAX_MESSAGE, PROBE_BYTES, Probed, to_doctor
from ..protocol.endpoints import PROBE, Role
from ..protocol.frames import CloseCode
from ..service.settings import show_duration
from . import reach
from .credentials import RENEW, SOON, RelayClock
from .settings import AgentSettings
from .times import AgentTimes

PINGS: Final = 5
PATIENCE: Final = 5.0  # seconds for the pings, and for the bytes
SLIGHT: Final = 2.0  # seconds by which a clock may be off, as far as that can be seen
LEAVE: Final = 1.0  # seconds for the last legs to close
PIECE: Final = 64 * 1024
MOST_IN_FLIGHT: Final = 1024 * 1024  # bytes of the probe that may be on their way: as a stream's window

Say = Callable[[str], None]


class Failed(Exception):
    """A check failed: the first argument says what, the second what to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice


class Warned(Failed):
    """Something to know, that keeps nothing from working."""


class _ProbeLeg(Leg):
    """Measures the way to the relay and back."""

    pings = False

    def __init__(self, monitor: LegMonitor) -> None:
        super().__init__(monitor, client=True, text_limit=MAX_MESSAGE)
        self.answer: asyncio.Future[Probed | None] = asyncio.get_running_loop().create_future()
        self.end = ""  # why it ended
        self.echoed = 0
        self.changed = asyncio.Event()

    def on_text(self, payload: bytes) -> None:
        try:
            answer = to_doctor(payload)
        except ProtocolViolation as exc:
            self.violated(exc.code, exc.reason)
            return
        if isinstance(answer, Probed) and not self.answer.done():
            self.answer.set_result(answer)

    def on_data(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        self.echoed += size
        self.changed.set()

    def on_end(self, code: int, reason: str) -> None:
        self.changed.set()
        self.end = reason or f"close code {code}"
        if not self.answer.done():
            self.answer.set_result(None)


class Doctor:
    """Runs the checks. Subclasses add those of their side: `look_beyond`."""

    def __init__(self, settings: AgentSettings, role: Role, tunnels: Sequence[str], say: Say) -> None:
        self.settings = settings
        self.role: Role = role
        self.tunnels = tunnels
        self._say = say
        self._sick = 0
        self._uri = parse_uri(settings.relay)
        self._proxy = proxies.of_environment(self._uri)
        self._clock = RelayClock()
        self._trips: asyncio.Queue[float] = asyncio.Queue()
        self.monitor = LegMonitor(self._trips.put_nowait, lambda _: None)
        self._credentials = reach.credentials(settings, role, self._clock)
        self.dialer = reach.dialer(settings, role, self._credentials, timeout=AgentTimes().dial)

    async def run(self) -> int:
        """Run all checks. Returns the exit code: 0 if all is well, else 1."""
        self._say(f"{self.role}-agent → {self.settings.relay}")
        for name, check in (("name", self._name), ("tcp", self._tcp), ("tls", self._tls)):
            if not await self.check(name, check):
                break  # what stands on it would fail for the same reason, and be advised for another
        await self.check("proxy", self._through)
        await self.check("token", self._token)
        if self._sick:
            self._say("the rest is not checked before that is mended")
        else:
            for tunnel in self.tunnels:
                await self._probe(tunnel)
            await self.check("clock", self._clocks)
            if self.settings.token:
                await self.check("expiry", self._expiry)
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
        except Failed as found:
            well = isinstance(found, Warned)
            self._sick += not well
            self._say(f"  {'warn' if well else 'FAIL'}  {name:<12} {found.what}")
            self._say(f"        {'':<12} → {found.advice}")
            return well
        return True

    # The way to the relay.

    @property
    def _door(self) -> Address:
        """Where TCP goes: the relay, or the proxy before it."""
        return proxies.address_of(self._proxy) if self._proxy is not None else Address(self._uri.host, self._uri.port)

    @property
    def _the_door(self) -> str:
        return str(self._door) if self._proxy is None else f"the proxy {self._door}"

    async def _name(self) -> str:
        host, port = self._door
        if is_ip(host):
            return f"{host} is an address"
        try:
            async with asyncio.timeout(connecting.CONNECT_TIMEOUT):
                found = await names.resolve(host, port)
        except OSError as exc:
            if self._proxy is not None:
                raise Failed(f"the proxy {host} is not found: {sockets.why(exc)}", proxies.ADVICE) from exc
            raise Failed(
                f"{host} is not found: {sockets.why(exc)}", "check the spelling of --relay, and this machine's DNS"
            ) from exc
        addresses = dict.fromkeys(str(info[4][0]) for info in found)
        return f"{host} is {', '.join(addresses)}"

    async def _tcp(self) -> str:
        began = time.perf_counter()
        try:
            sock = await connecting.connect(self._door)
        except OSError as exc:
            advice = "is the relay running there, and does a firewall let you out to that port?"
            raise Failed(
                f"{self._the_door} does not answer: {sockets.why(exc)}", proxies.ADVICE if self._proxy else advice
            ) from exc
        sock.close()
        return f"{self._the_door} answers in {(time.perf_counter() - began) * 1000:.0f} ms"

    async def _tls(self) -> str:
        if not self._uri.secure:
            if self.settings.sends_token_in_clear:
                raise Warned("none: all on the way can read the token", "use the wss:// URL of the relay")
            return "none (ws://)"
        if self._proxy is not None:
            return "checked with the upgrade, through the proxy"
        name = self.settings.relay_host or self._uri.host
        ca_file = self.settings.ca_file or None
        context = ssl.create_default_context(cafile=ca_file)
        try:
            async with asyncio.timeout(connecting.CONNECT_TIMEOUT):
                sock = await connecting.connect(self._door)
                _, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
        except OSError as exc:
            error = refusals.of_error(exc, str(self._door), ca_file)
            raise Failed(error.reason, error.advice or "is this port meant for wss://? try port 443") from exc
        certificate = writer.get_extra_info("peercert") or {}
        version = writer.get_extra_info("ssl_object").version()
        writer.close()
        return f"{version}, certificate good until {certificate.get('notAfter', '?')}"

    async def _through(self) -> str:
        if self._proxy is None:
            return "none"
        return f"{self._proxy.scheme}://{self._door}, from the environment"

    async def _token(self) -> str:
        """What it says without asking: its end is a matter of the relay's clock."""
        if not self.settings.token:
            if self.settings.secret:
                try:
                    self._credentials.check([])
                except UsageError as exc:
                    raise Failed(str(exc), "give the relay's own secret, or a token of whoever runs it") from exc
            return "made from the secret" if self.settings.secret else "none"
        try:
            grant = self._credentials.grant()
        except UsageError as exc:
            raise Failed(str(exc), "ask whoever runs the relay for a token: relay token …") from exc
        summary = f"{grant.subject}: {grant.role} of {', '.join(grant.tunnels)}"
        if grant.leg_role != self.role:
            raise Failed(summary, f"this is a {self.role}-agent: ask for a token with --role {self.role}")
        for tunnel in self.tunnels:
            if not grant.is_for(tunnel):
                raise Failed(summary, f"ask for a token that has --tunnel {tunnel}")
        return summary

    # A tunnel.

    async def _probe(self, tunnel: str) -> None:
        leg: _ProbeLeg | None = None

        async def upgrade() -> str:
            nonlocal leg
            try:
                leg = await self.dialer.dial_once(tunnel, lambda _: _ProbeLeg(self.monitor), PROBE)
            except AccessDenied as exc:
                advice = exc.advice or f"ask for a token made with --role {self.role} --tunnel {tunnel}"
                raise Failed(exc.reason, advice) from exc
            except (RelayUnavailable, UsageError) as exc:
                raise Failed(exc.reason, exc.advice or "is the URL the relay's, with its path?") from exc
            return f"the relay lets this {self.role} in"

        async def presence() -> str:
            assert leg is not None, "only after the upgrade"
            try:
                async with asyncio.timeout(PATIENCE):
                    answer = await leg.answer
            except TimeoutError:
                answer = None
            if answer is None:
                raise Failed(
                    f"the relay does not tell who is there: {leg.end or 'no word from it'}",
                    "is it of the same version, and is nothing on the way that holds WebSocket frames back?",
                )
            if self.role == "client" and not answer.hosts:
                raise Failed("no host-agent waits at the relay", "start the host-agent, and run its doctor")
            if answer.instances > 1:
                raise Warned(
                    f"{answer.instances} host-agents offer this tunnel, and each gets a share of its streams",
                    "stop one of them, unless both lead to the same server",
                )
            if self.role == "host":
                return f"{answer.hosts} legs of host-agents and {answer.waiting} clients wait at the relay"
            return f"{answer.hosts} legs of host-agents wait at the relay"

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
                        leg.send((piece,), PIECE)
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

    async def _clocks(self) -> str:
        if not self._clock.known:
            return "not compared: the relay sent no time"
        if self._clock.differs:
            raise Failed(f"{self._clock}", "set this machine's clock (NTP): tokens are good only within their time")
        return f"{self._clock}" if abs(self._clock.ahead) > SLIGHT else "agrees with the relay's"

    async def _expiry(self) -> str:
        left = self._credentials.grant().expires - self._clock.now()
        by = "by the relay's clock" if self._clock.known else "by this machine's clock"
        if left < 0:
            raise Failed(f"the token has been over for {show_duration(-left)}, {by}", "ask for a new one")
        summary = f"the token is good for {show_duration(left)}, {by}"
        if left < SOON:
            raise Warned(summary, RENEW)
        return summary
