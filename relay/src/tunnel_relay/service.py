"""The relay as a service."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry
from tunnel_core.errors import TunnelError
from tunnel_core.net import sockets
from tunnel_core.net.http import HttpConnection, Request, Response, Upgrade
from tunnel_core.net.liveness import LegMonitor
from tunnel_core.net.sockets import Address
from tunnel_core.protocol.endpoints import INSTANCE_HEADER, SUBPROTOCOL, is_id, parse_leg_path
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.service import logs
from tunnel_core.service.admin import AdminServer, health
from tunnel_core.service.metrics import ProcessMetrics
from tunnel_core.service.run import loop_name

from .access import ANYBODY, Access, Denied
from .leg import RelayLeg
from .metrics import RelayMetrics
from .pairing import Pairing
from .settings import RelaySettings

REREAD: Final = 2.0  # seconds between looks at the file of revoked ids
CLOSE_PATIENCE: Final = 1.0  # seconds for the peers' half of the close handshake, at the end
DRAIN_TICK: Final = 0.05  # seconds between looks at whether all legs have gone
SPREAD: Final = 0.25  # share of the drain that is for closing what did not move: half of it is slack


class Relay:
    """A service (service.run.Service)."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._log = logs.get()
        self.failed: asyncio.Future[TunnelError] = asyncio.get_running_loop().create_future()
        registry = CollectorRegistry()
        process = ProcessMetrics(registry, "relay", loop_name())
        self._monitor = LegMonitor(process.leg_round_trip.observe, process.loop_lag.observe)
        self._access = Access(settings, self._log)
        self._metrics = RelayMetrics(registry, lambda: self._pairing.legs, lambda: self._pairing.waiting)
        self._pairing = Pairing(settings, self._access, self._monitor, self._metrics, self._log)
        self._sock = sockets.listen(settings.host, settings.port)
        self._admin = AdminServer(sockets.listen(settings.admin_host, settings.admin_port), registry, self.readiness)
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    @property
    def admin_port(self) -> int:
        return self._admin.port

    def readiness(self) -> str:
        if self._server is None:
            return "not listening"
        return "draining" if self._draining else ""

    # Service

    async def start(self) -> None:
        self._monitor.start()
        await self._admin.start()
        make = functools.partial(HttpConnection, self._answer, self._connections)
        self._server = await asyncio.get_running_loop().create_server(make, sock=self._sock)
        self._reread()
        self._log.info(
            "listening",
            address=str(Address(self._settings.host, self.port)),
            admin=str(Address(self._settings.admin_host, self.admin_port)),
            auth=self._settings.auth,
        )

    async def stop(self) -> None:
        # First no new legs, and the balancer is told to send them elsewhere; then the legs
        # of now move, or are closed; last the eyes of the operator.
        self._draining = True
        if self._server is not None:
            await self._drain()
            self._server.close()
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        await self._monitor.close_all(CloseCode.SERVICE_RESTART, "the relay stops", CLOSE_PATIENCE)
        self._monitor.stop()
        await self._admin.stop()

    async def _drain(self) -> None:
        """Ask agents to move, wait while they do, and close what is left a few at a time."""
        legs = self._pairing.legs
        began = time.monotonic()
        left_at = began + self._settings.drain * (1 - SPREAD)
        self._log.info("draining", legs=len(legs), seconds=self._settings.drain)
        self._pairing.go_away(self._settings.drain)
        while legs and time.monotonic() < left_at:
            await asyncio.sleep(DRAIN_TICK)
        if legs:
            # Closed together, all agents would come back together.
            rest = random.sample(tuple(legs), len(legs))
            ticks = max(1, int(self._settings.drain * SPREAD / 2 / DRAIN_TICK))
            for tick in range(ticks):
                for leg in rest[tick::ticks]:
                    leg.close(CloseCode.SERVICE_RESTART, "the relay stops")
                await asyncio.sleep(DRAIN_TICK)
        self._log.info("drained", left=len(legs), seconds=round(time.monotonic() - began, 3))

    def _reread(self) -> None:
        if self._access.reread():
            for leg in tuple(self._pairing.legs):
                if self._access.revoked(leg.grant):
                    leg.close(CloseCode.POLICY_VIOLATION, "the token was revoked")
        self._timer = asyncio.get_running_loop().call_later(REREAD, self._reread)

    # Requests on the public port.

    def _answer(self, request: Request) -> Response | Upgrade:
        answer = health(request, self.readiness)
        if answer is not None:
            return answer
        try:
            return self._upgrade(request)
        except Denied as denied:
            self._metrics.refused(denied.label)
            self._log.warning("leg refused", path=request.path, address=request.peer, reason=denied.reason)
            return denied.response

    def _upgrade(self, request: Request) -> Upgrade:
        if self._draining:
            raise Denied(
                HTTPStatus.SERVICE_UNAVAILABLE, "the relay is about to stop: try again", "draining", retry_after=1
            )
        wanted = parse_leg_path(request.path)
        if wanted is None:
            raise Denied(HTTPStatus.NOT_FOUND, "legs are at /host/TUNNEL and /client/TUNNEL", "path")
        role, tunnel = wanted
        grant = self._access.judge(request, role, tunnel)
        subject = grant.subject if grant is not None else ANYBODY
        v1 = SUBPROTOCOL in request.subprotocols
        instance = request.headers.get(INSTANCE_HEADER.lower(), "")
        if v1 and not is_id(instance):
            raise Denied(HTTPStatus.BAD_REQUEST, f"{INSTANCE_HEADER}: 32 hexadecimal digits are needed", "instance")
        if v1:
            self._access.check_owner(instance, subject)

        def make_leg() -> RelayLeg:
            return RelayLeg(
                self._pairing,
                role=role,
                tunnel=tunnel,
                v1=v1,
                instance=instance if v1 else "",
                address=request.peer,
                grant=grant,
                subject=subject,
            )

        return Upgrade(make_leg, SUBPROTOCOL if v1 else None)
