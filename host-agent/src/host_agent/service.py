"""The host-agent as a service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from tunnel_core.agent.base import Agent
from tunnel_core.agent.session import Session
from tunnel_core.agent.times import AgentTimes

from .seals import Seals
from .settings import HostSettings
from .tunnel import HostTunnel

TICK: Final = 1.0  # seconds between adjustments of the number of warm legs to the demand


class HostAgent(Agent[HostSettings]):
    """Offers its tunnels at the relay, and connects their streams to the targets."""

    def __init__(self, settings: HostSettings, times: AgentTimes = AgentTimes()) -> None:
        super().__init__(settings, "host", [offer.tunnel for offer in settings.tunnel], times)
        self._seals = Seals(settings, self.context.log)
        self._tunnels = [HostTunnel(self.context, offer, self._seals.of(offer.tunnel)) for offer in settings.tunnel]
        self._timer: asyncio.TimerHandle | None = None

    def sessions(self) -> Iterable[Session[Any]]:
        for tunnel in self._tunnels:
            yield from tunnel.sessions()

    def readiness(self) -> str:
        missing = [
            tunnel.name
            for tunnel in self._tunnels
            if not tunnel.pool.ready and not any(session.stream.link is not None for session in tunnel.sessions())
        ]
        return f"no leg at the relay for: {', '.join(missing)}" if missing else ""

    async def start(self) -> None:
        await super().start()
        for tunnel in self._tunnels:
            target, relay = str(tunnel.target.address), self.context.settings.relay
            self.context.log.info("tunnel offered", tunnel=tunnel.name, target=target, relay=relay)
            tunnel.pool.start()
        self._tick()

    async def stop(self) -> None:
        # Accept no new streams, then reset the current ones and inform their clients.
        # What they run on stops last.
        if self._timer is not None:
            self._timer.cancel()
        for tunnel in self._tunnels:
            tunnel.stopping = True  # free pairs could still bring new streams
            await tunnel.pool.stop()
        await self.reset_all()
        await super().stop()

    def _tick(self) -> None:
        revoked = self._seals.reread()
        for tunnel in self._tunnels:
            tunnel.tick()
            if revoked:
                tunnel.end_revoked(self._seals.revoked)
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
