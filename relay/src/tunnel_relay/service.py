"""The relay as a service."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from dataclasses import dataclass, replace
from typing import Final

from prometheus_client import CollectorRegistry
from tunnel_core.errors import TunnelError
from tunnel_core.net import ports
from tunnel_core.net.address import Address
from tunnel_core.net.http import HttpServer
from tunnel_core.net.liveness import LegMonitor, LegTimes
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.tries import Tries
from tunnel_core.service import logs
from tunnel_core.service.admin import AdminServer, health
from tunnel_core.service.metrics import ProcessMetrics
from tunnel_core.service.run import loop_name, raise_descriptor_limit

from .access import Access
from .addresses import ClientAddress
from .admission import Admission
from .leg import RelayLeg
from .limits import RETRY_AFTER, Limits
from .metrics import RelayMetrics
from .pages.routes import Routes
from .pages.site import Site
from .pages.wheel import find as find_wheel
from .pairing import Pairing
from .probe import ProbeLeg
from .settings import RelaySettings

MOST_LEGS: Final = 20_000  # 250 MB: beyond that, one relay is no longer cheap to run
FEW_LEGS: Final = 500  # fewer are worth a warning
SPARE_DESCRIPTORS: Final = 64 + ports.OVERSHOOT  # for logs, the admin port, files
CLOSE_PATIENCE: Final = 1.0  # seconds for peers to finish the close handshake when stopping
DRAIN_TICK: Final = 0.05  # seconds between checks whether all legs are gone
SPREAD: Final = 0.25  # share of the drain for closing legs that did not move; half of it is slack


@dataclass(frozen=True, kw_only=True)
class RelayTimes:
    """How long the relay waits, in seconds, where no setting says so. Tests wait for less."""

    legs: LegTimes = LegTimes()
    reread: float = 2.0  # between checks of the file of revoked ids
    retry_after: int = RETRY_AFTER


class Relay:
    """A service (service.run.Service)."""

    def __init__(self, settings: RelaySettings, times: RelayTimes = RelayTimes()) -> None:
        self._log = logs.get()
        settings = self._with_room(settings)
        self._settings = settings
        self._times = times
        self.failed: asyncio.Future[TunnelError] = asyncio.get_running_loop().create_future()
        registry = CollectorRegistry()
        process = ProcessMetrics(registry, "relay", loop_name())
        self._metrics = RelayMetrics(registry)
        self._monitor = LegMonitor(
            process.leg_round_trip.observe,
            process.loop_lag.observe,
            functools.partial(self._metrics.refused, "message-rate"),
            times=times.legs,
        )
        self._access = Access(settings, self._log)
        self._limits = Limits(settings, times.retry_after)
        self._quiet = logs.Throttle(self._log)
        self.pairing = Pairing(settings, self._access, self._limits, self._monitor, self._metrics, self._quiet)
        self._metrics.watch(self.pairing)
        addresses = ClientAddress(settings.trusted_proxy, settings.client_address_header)
        self._admission = Admission(self._access, addresses, self._limits, self.pairing, self._metrics, self._quiet)
        wheel = find_wheel(settings.join_wheel) if settings.join_page else None
        self._has_wheel = wheel is not None
        site = Site(
            addresses,
            self._metrics,
            wheel=wheel,
            at_once=settings.max_pages,
            tries=Tries(settings.max_pages_per_address, settings.page_refill),
            warn=self._quiet.warning,
        )
        routes = Routes(health(self.readiness) | site.routes(join=settings.join_page), self._admission.answer)
        self._server = HttpServer(
            ports.listen(settings.host, settings.port),
            routes.answer,
            timeout=settings.handshake_timeout,
            max_head=settings.max_header,
            at_once=settings.max_handshakes,
            per_client=settings.max_handshakes_per_address,
            client_of=addresses.counted,
            dropped=self._dropped,
        )
        self._admin = AdminServer(ports.listen(settings.admin_host, settings.admin_port), registry, self.readiness)
        self._timer: asyncio.TimerHandle | None = None
        self._started = False

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def admin_port(self) -> int:
        return self._admin.port

    def readiness(self) -> str:
        if not self._started:
            return "not listening"
        return "draining" if self._admission.closed else ""

    def _with_room(self, settings: RelaySettings) -> RelaySettings:
        """The settings, with legs and handshakes limited to the available descriptors."""
        descriptors = raise_descriptor_limit()
        handshakes = min(settings.max_handshakes, descriptors // 4)
        room = max(1, descriptors - handshakes - SPARE_DESCRIPTORS)
        if room < (settings.max_legs or FEW_LEGS):
            self._log.warning("few descriptors", max_legs=room, hint="raise the limit of open files (ulimit -n)")
        return replace(settings, max_handshakes=handshakes, max_legs=min(settings.max_legs or MOST_LEGS, room))

    def _dropped(self, reason: str, peer: str) -> None:
        self._metrics.refused(reason)
        if reason.startswith("handshakes"):  # a limit was reached: log by whom
            self._quiet.warning("connection dropped", address=peer, reason=reason)

    # Service

    async def start(self) -> None:
        self._monitor.start()
        await self._admin.start()
        await self._server.start()
        self._started = True
        self._reread()
        self._log.info(
            "listening",
            address=str(Address(self._settings.host, self.port)),
            admin=str(Address(self._settings.admin_host, self.admin_port)),
            auth=self._settings.auth,
        )
        if self._settings.join_page and not self._has_wheel:
            self._log.info("no wheel to give", hint="make wheel, or name one with --join-wheel; the join page says so")

    async def stop(self) -> None:
        # Close the port first: a balancer that is refused tries the next relay at once. Then the legs
        # move or are closed. The admin port goes last.
        self._admission.closed = True
        await self._server.close_port()
        if self._started:
            await self._drain()
        if self._timer is not None:
            self._timer.cancel()
        await self._server.stop()
        await self._monitor.close_all(CloseCode.SERVICE_RESTART, "the relay stops", CLOSE_PATIENCE)
        self._monitor.stop()
        await self._admin.stop()

    async def _drain(self) -> None:
        """Ask agents to move, wait for them, and close the remaining legs a few at a time.

        Streams that find another relay move within a few round trips. If none has moved by then, there is no
        other relay, and waiting longer would only keep newcomers away.
        """
        legs = self.pairing.legs
        began = time.monotonic()
        left_at = began + self._settings.drain * (1 - SPREAD)
        alone_at = min(left_at, began + self._settings.drain_alone)
        self._log.info("draining", legs=len(legs), seconds=self._settings.drain)
        self.pairing.go_away(self._settings.drain)
        while legs and time.monotonic() < (left_at if self.pairing.moved else alone_at):
            await asyncio.sleep(DRAIN_TICK)
        if legs and self.pairing.moved:
            # Closed all at once, all agents would reconnect at once.
            rest = random.sample(tuple(legs), len(legs))
            ticks = max(1, int(self._settings.drain * SPREAD / 2 / DRAIN_TICK))
            for tick in range(ticks):
                for leg in rest[tick::ticks]:
                    leg.close(CloseCode.SERVICE_RESTART, "the relay stops")
                await asyncio.sleep(DRAIN_TICK)
        self._log.info("drained", left=len(legs), seconds=round(time.monotonic() - began, 3))

    def _reread(self) -> None:
        if self._access.reread():
            legs: list[RelayLeg | ProbeLeg] = [*self.pairing.legs, *self._admission.probes]
            for leg in legs:
                if self._access.revoked(leg.grant):
                    leg.close(CloseCode.POLICY_VIOLATION, "the token was revoked")
        self._timer = asyncio.get_running_loop().call_later(self._times.reread, self._reread)
