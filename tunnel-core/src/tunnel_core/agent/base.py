"""The frame of both agents: what is wired, started and stopped alike."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Final, Protocol

from prometheus_client import CollectorRegistry

from ..errors import TunnelError, UsageError
from ..net import sockets
from ..net.buffers import FRAME_SIZE
from ..net.liveness import LegMonitor
from ..net.route import RouteWatch
from ..protocol.endpoints import Role, new_id
from ..protocol.frames import CloseCode
from ..protocol.replay import ReplayMemory
from ..service import logs
from ..service.admin import AdminServer
from ..service.metrics import ProcessMetrics, TunnelLabels
from ..service.run import loop_name
from ..service.settings import show_duration
from . import reach
from .clock import StreamClock
from .credentials import RENEW, SOON, RelayClock
from .metrics import AgentMetrics, Carried
from .settings import AgentSettings
from .times import AgentTimes

BUSY: Final = 5.0  # seconds: no network forgets a connection in so short a standstill
LEG_PATIENCE: Final = 1.0  # seconds for the relay's half of the close handshake, when stopping
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
REPEAT_FAILURE: Final = 30.0  # seconds between log lines while the relay stays away for the same reason


class Stoppable(Protocol):
    """A session of either agent."""

    def stop(self) -> None: ...


class Agent:
    """A service (service.run.Service). Subclasses hold the streams and say when all is ready."""

    def __init__(
        self, settings: AgentSettings, role: Role, tunnels: list[str], times: AgentTimes = AgentTimes()
    ) -> None:
        self.settings = settings
        self.times = times
        self.log = logs.get()
        self.stream_log = logs.Throttle(
            self.log
        )  # for what streams write: peers and applications decide how many there are
        self.failed: asyncio.Future[TunnelError] = asyncio.get_running_loop().create_future()
        self.memory = ReplayMemory(settings.replay_memory, FRAME_SIZE)
        self.clock = StreamClock()
        self.registry = registry = CollectorRegistry()
        process = ProcessMetrics(registry, f"{role}-agent", loop_name())
        self.metrics = AgentMetrics(registry, TunnelLabels(), self.memory, self.carried)
        self.monitor = LegMonitor(
            process.leg_round_trip.observe, process.loop_lag.observe, stood_still=self._stood_still, times=times.legs
        )
        self._relay_clock = RelayClock(self._clock_moved)
        self._credentials = reach.credentials(settings, role, self._relay_clock)
        self._credentials.check(tunnels)
        self.dialer = reach.dialer(
            settings,
            role,
            self._credentials,
            timeout=times.dial,
            instance_key=new_id() if role == "host" else None,
            on_failure=self._relay_failed,
            on_success=self._relay_found,
        )
        self._route = RouteWatch(lambda: self.dialer.peer, self._network_changed, times.route)
        self._connected = False  # once
        self._token_timer: asyncio.TimerHandle | None = None
        self._told: tuple[str, float] | None = None  # what was last logged of the relay's absence, when
        self.admin: AdminServer | None = None
        if settings.admin_port is not None:
            listening = sockets.listen(settings.admin_host, settings.admin_port)
            self.admin = AdminServer(listening, registry, self.readiness)
        if settings.sends_token_in_clear:
            self.log.warning("token in clear", relay=settings.relay, hint="use wss:// outside this machine")

    # What subclasses fill in.

    def carried(self) -> Iterable[Carried]:
        """The streams of now."""
        raise NotImplementedError

    def readiness(self) -> str:
        """Why the agent is not ready; empty if it is."""
        raise NotImplementedError

    def connected(self) -> None:
        """The relay has let this agent in for the first time: say so."""
        self.log.info("connected", relay=self.settings.relay)

    # Service

    async def start(self) -> None:
        self.monitor.start()
        self._route.start()
        if self.admin is not None:
            await self.admin.start()
            self.log.info("admin port", host=self.settings.admin_host, port=self.admin.port)

    async def stop(self) -> None:
        """The subclass has let its streams go; now what they ran on."""
        await self.monitor.close_all(CloseCode.GOING_AWAY, "the agent stops", LEG_PATIENCE)
        self.clock.stop()
        self._route.stop()
        if self._token_timer is not None:
            self._token_timer.cancel()
        self.monitor.stop()
        if self.admin is not None:
            await self.admin.stop()

    def fail(self, error: TunnelError) -> None:
        """End the service: it cannot go on."""
        if not self.failed.done():
            self.failed.set_result(error)

    # What legs may not survive: those that have not are to be known before a stream is given one.

    def _stood_still(self, seconds: float) -> None:
        self.log.info("stood still", seconds=round(seconds, 1))
        # What is shorter is a busy machine's: that would only get busier by moving its streams.
        self.monitor.suspect(idle_only=seconds < BUSY)
        if seconds > self.times.dial:
            self.dialer.restart()

    def _network_changed(self) -> None:
        self.log.info("network changed")
        self.monitor.suspect(idle_only=False)
        self.dialer.restart()

    # The relay's comings and goings.

    def absence(self) -> str | None:
        """Why the relay is away: empty if it is not, None before the first dial has come to anything."""
        if self.dialer.reachable:
            return ""
        return self._told[0] if self._told is not None else None

    def _relay_failed(self, reason: str) -> None:
        self.metrics.dial_failures.inc()
        now = time.monotonic()
        if (
            self._told is None
            or (self._told[0] != reason and now - self._told[1] > 1)
            or now - self._told[1] > REPEAT_FAILURE
        ):
            self._told = reason, now
            self.log.warning("relay unreachable", reason=reason)

    def _relay_found(self) -> None:
        if not self._connected:
            self._connected = True
            self.connected()
            self._look_at_token()
        if self._told is not None:
            self._told = None
            self.log.info("relay reachable", relay=self.settings.relay)

    # The token's end.

    def _clock_moved(self) -> None:
        clock = self._relay_clock
        if clock.differs:
            self.log.warning("clock differs", clock=f"{clock}", hint="set this machine's clock (NTP)")
        else:
            self.log.info("clock agrees", relay=self.settings.relay)

    def may_show_another(self, token: str | None) -> bool:
        """Whether a dial may be let in where one with `token` is not."""
        return self._credentials.may_differ(token)

    def _look_at_token(self) -> None:
        """Warn of the end of the token that this agent was given, days before; and look again tomorrow."""
        if not self.settings.token:
            return
        wait = DAY
        with contextlib.suppress(UsageError):  # a file that is unreadable now is told of where it is needed
            left = self._credentials.grant().expires - self._relay_clock.now()
            if 0 < left < SOON:
                self.log.warning("token ends soon", left=show_duration(left), hint=RENEW)
            if left > HOUR:
                wait = min(DAY, left - HOUR)
        self._token_timer = asyncio.get_running_loop().call_later(max(MINUTE, wait), self._look_at_token)

    async def reset_all(self, sessions: Iterable[Stoppable]) -> None:
        """Reset all streams, and wait a little until the other ends know."""
        for session in sessions:
            session.stop()
        deadline = time.monotonic() + self.settings.stop_timeout
        while any(True for _ in self.carried()) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
