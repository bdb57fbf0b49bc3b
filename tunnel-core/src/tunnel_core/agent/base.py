"""The base of both agents: what they wire, start and stop alike."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

from prometheus_client import CollectorRegistry

from ..errors import TunnelError, UsageError
from ..net import ports
from ..net.buffers import FRAME_SIZE
from ..net.dialer import Dialed
from ..net.liveness import LegMonitor
from ..net.route import RouteWatch, SocketAddress
from ..protocol.endpoints import Role, new_id
from ..protocol.frames import CloseCode
from ..protocol.replay import ReplayMemory
from ..protocol.stream import StreamContext
from ..protocol.tokens import TokenRole
from ..service import logs
from ..service.admin import AdminServer
from ..service.metrics import ProcessMetrics, TunnelLabels
from ..service.run import loop_name
from ..service.settings import show_duration
from . import reach
from .clock import StreamClock
from .context import AgentContext
from .credentials import RENEW, SOON, RelayClock
from .metrics import AgentMetrics
from .session import Session
from .settings import AgentSettings
from .times import AgentTimes

BUSY: Final = 5.0  # seconds: no network drops a connection in so short a standstill
LEG_PATIENCE: Final = 1.0  # seconds for the relay to finish the close handshake, when stopping
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
REPEAT_FAILURE: Final = 30.0  # seconds between log lines while the relay stays away for the same reason


S = TypeVar("S", bound=AgentSettings)


class Agent(Generic[S]):
    """A service (service.run.Service). Subclasses hold the streams and say when all is ready."""

    def __init__(
        self,
        settings: S,
        role: Role,
        tunnels: Sequence[str],
        times: AgentTimes = AgentTimes(),
        *,
        token_role: TokenRole | None = None,
    ) -> None:
        self.times = times
        self._role = role
        self.failed: asyncio.Future[TunnelError] = asyncio.get_running_loop().create_future()
        log = logs.get()
        self.registry = registry = CollectorRegistry()
        process = ProcessMetrics(registry, f"{role}-agent", loop_name())
        self._clock = StreamClock()
        memory = ReplayMemory(settings.replay_memory, FRAME_SIZE)
        self._relay_clock = RelayClock(self._clock_moved)
        credentials = reach.credentials(settings, token_role or role, self._relay_clock)
        credentials.check(tunnels)
        self.context = AgentContext(
            settings=settings,
            log=log,
            stream_log=logs.Throttle(log),
            streams=StreamContext(settings.window, memory, self._clock.add),
            monitor=LegMonitor(
                process.leg_round_trip.observe,
                process.loop_lag.observe,
                stood_still=self._stood_still,
                times=times.legs,
            ),
            credentials=credentials,
            dialer=reach.dialer(
                settings,
                role,
                credentials,
                timeout=times.dial,
                instance_key=new_id() if role == "host" else None,
                on_failure=self._relay_failed,
                on_success=self._relay_found,
            ),
            metrics=AgentMetrics(
                registry, TunnelLabels(), memory, lambda: ((it.tunnel, it.stream) for it in self.sessions())
            ),
            fail=self.fail,
        )
        self._route = RouteWatch(lambda: self._peer, self._network_changed, times.route)
        self._connected = False  # once
        self._peer: SocketAddress | None = None  # the remote address of the last accepted leg
        self._token_timer: asyncio.TimerHandle | None = None
        self._failure: tuple[str, float] | None = None  # the last logged reason for the relay's absence, and when
        self.admin: AdminServer | None = None
        if settings.admin_port is not None:
            listening = ports.listen(settings.admin_host, settings.admin_port)
            self.admin = AdminServer(listening, registry, self.readiness)
        if settings.sends_token_in_clear:
            self.context.log.warning("token in clear", relay=settings.relay, hint="use wss:// outside this machine")

    # For subclasses to override.

    def sessions(self) -> Iterable[Session[Any]]:
        """The current streams."""
        raise NotImplementedError

    def readiness(self) -> str:
        """Why the agent is not ready; empty if it is."""
        raise NotImplementedError

    def connected(self) -> None:
        """The relay has accepted this agent for the first time: log it."""
        self.context.log.info("connected", relay=self.context.settings.relay)

    # Service

    async def start(self) -> None:
        self.context.monitor.start()
        self._route.start()
        if self.admin is not None:
            await self.admin.start()
            self.context.log.info("admin port", host=self.context.settings.admin_host, port=self.admin.port)

    async def stop(self) -> None:
        """Stop what streams run on. The subclass has already ended them."""
        await self.context.monitor.close_all(CloseCode.GOING_AWAY, "the agent stops", LEG_PATIENCE)
        self._clock.stop()
        self._route.stop()
        if self._token_timer is not None:
            self._token_timer.cancel()
        self.context.monitor.stop()
        if self.admin is not None:
            await self.admin.stop()

    def fail(self, error: TunnelError) -> None:
        """End the service: it cannot go on."""
        if not self.failed.done():
            self.failed.set_result(error)

    # Events that legs may not survive. Dead legs must be known before a stream gets one.

    def _stood_still(self, seconds: float) -> None:
        self.context.log.info("stood still", seconds=round(seconds, 1))
        # A shorter one means a busy machine, which moving streams would only make busier.
        self.context.monitor.suspect(idle_only=seconds < BUSY)
        if seconds > self.times.dial:
            self.context.dialer.restart()

    def _network_changed(self) -> None:
        self.context.log.info("network changed")
        self.context.monitor.suspect(idle_only=False)
        self.context.dialer.restart()

    # Whether the relay is reachable.

    def absence(self) -> str | None:
        """Why the relay is away: empty if it is not, None before the first dial has a result."""
        if self.context.dialer.reachable:
            return ""
        return self._failure[0] if self._failure is not None else None

    def _relay_failed(self, reason: str) -> None:
        self.context.metrics.dial_failures.inc()
        now = time.monotonic()
        if (
            self._failure is None
            or (self._failure[0] != reason and now - self._failure[1] > 1)
            or now - self._failure[1] > REPEAT_FAILURE
        ):
            self._failure = reason, now
            self.context.log.warning("relay unreachable", reason=reason)

    def _relay_found(self, dialed: Dialed) -> None:
        self._peer = dialed.peer
        if not self._connected:
            self._connected = True
            self.connected()
            self._look_at_token()
        if self._failure is not None:
            self._failure = None
            self.context.log.info("relay reachable", relay=self.context.settings.relay)

    # The token's expiry.

    def _clock_moved(self) -> None:
        clock = self._relay_clock
        if clock.differs:
            self.context.log.warning("clock differs", clock=f"{clock}", hint="set this machine's clock (NTP)")
        else:
            self.context.log.info("clock agrees", relay=self.context.settings.relay)

    def _look_at_token(self) -> None:
        """Warn days before the given token expires, and check again tomorrow."""
        if not self.context.settings.token:
            return
        wait = DAY
        with contextlib.suppress(UsageError):  # an unreadable file is reported where it is needed
            left = self.context.credentials.grant().expires - self._relay_clock.now()
            if 0 < left < SOON:
                self.context.log.warning("token ends soon", left=show_duration(left), hint=RENEW)
            if left > HOUR:
                wait = min(DAY, left - HOUR)
        self._token_timer = asyncio.get_running_loop().call_later(max(MINUTE, wait), self._look_at_token)

    async def reset_all(self) -> None:
        """Reset all streams, and wait briefly until the other ends know."""
        for session in tuple(self.sessions()):
            session.stop(f"the {self._role}-agent stopped")
        deadline = time.monotonic() + self.context.settings.stop_timeout
        while any(True for _ in self.sessions()) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
