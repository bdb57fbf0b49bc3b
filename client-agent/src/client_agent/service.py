"""The client-agent as a service."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import Any, Final

from tunnel_core.agent.base import Agent
from tunnel_core.agent.session import Session
from tunnel_core.agent.times import AgentTimes
from tunnel_core.net.address import Address
from tunnel_core.protocol.tokens import TokenRole
from tunnel_core.service.run import raise_descriptor_limit

from .gateway import Gateway
from .lan import ALL_ADDRESSES, LanWorld
from .listener import Listener
from .seals import Seals
from .session import Load
from .settings import ClientSettings
from .tunnel import ClientTunnel

TICK: Final = 5.0  # seconds between checks of what is kept ready and not used


class ClientAgent(Agent[ClientSettings]):
    """Listens, and forwards connections to the tunnels."""

    def __init__(self, settings: ClientSettings, times: AgentTimes = AgentTimes()) -> None:
        token_role: TokenRole = "gateway" if settings.is_gateway else "client"
        super().__init__(settings, "client", settings.tunnels, times, token_role=token_role)
        self._load = Load(raise_descriptor_limit())
        self._seals = Seals(settings, self.context.credentials.grant().id if settings.token else None)
        self._tunnels = {name: self._tunnel(name) for name in settings.tunnels}
        self._listeners = [
            Listener(
                forward.address or settings.listen_address,
                forward.port,
                forward.tunnel,
                self._tunnels[forward.tunnel].new_connection,
            )
            for forward in settings.forward
        ]
        self._gateway = None
        if settings.is_gateway:
            on_demand = functools.partial(self._tunnel, on_demand=True)
            self._gateway = Gateway(self.context, self.registry, self._tunnels, on_demand)
        self._draining = False
        self._worlds = {name: self._world(name, shown) for name, shown in settings.announce}
        self._timer: asyncio.TimerHandle | None = None

    def _tunnel(self, name: str, *, on_demand: bool = False) -> ClientTunnel:
        return ClientTunnel(self.context, self._load, name, self._seals.of(name), on_demand=on_demand)

    @property
    def ports(self) -> list[int]:
        """The ports listened on, in the order of the forwards, public and shared ports."""
        listeners = [*self._listeners, *(self._gateway.listeners if self._gateway is not None else ())]
        return [listener.address.port for listener in listeners]

    def sessions(self) -> Iterable[Session[Any]]:
        return self._load.sessions

    def readiness(self) -> str:
        if self._draining:
            return "it stops: nobody is let in any more"
        reachable = self.context.dialer.reachable or not self._tunnels  # then nobody has asked for one yet
        return "" if reachable else "the relay cannot be reached, or does not let this agent in"

    def connected(self) -> None:
        for listener in self._listeners:
            hint = self.hint(listener)
            self.context.log.info("connected", relay=self.context.settings.relay, tunnel=listener.tunnel, hint=hint)

    def hint(self, listener: Listener) -> str:
        """How to use the tunnel that `listener` leads to."""
        here = self.here(listener)
        world = self._worlds.get(listener.tunnel)
        if world is None:
            return f"point your application at {here}"
        return f"add the server {here} in Minecraft" + (
            " (it is also in the list of LAN worlds)" if world.address else ""
        )

    @staticmethod
    def here(listener: Listener) -> Address:
        """Where an application on this machine finds it."""
        host, port = listener.address
        return Address("127.0.0.1" if host in ALL_ADDRESSES else host, port)

    def _world(self, tunnel: str, name: str) -> LanWorld:
        host, port = next(listener for listener in self._listeners if listener.tunnel == tunnel).address
        accept = self._tunnels[tunnel].new_connection
        log = self.context.log.bind(tunnel=tunnel)
        return LanWorld(name, host, port, accept, ready=lambda: self.context.dialer.reachable, log=log)

    async def start(self) -> None:
        await super().start()
        for world in self._worlds.values():
            world.start()
        for tunnel in self._tunnels.values():
            tunnel.pool.start()
        relay = self.context.settings.relay
        for listener in self._listeners:
            await listener.start()
            for address in listener.addresses:
                self.context.log.info("listening", address=str(address), tunnel=listener.tunnel, relay=relay)
        if self._gateway is not None:
            await self._gateway.start()
        self._tick()

    async def stop(self) -> None:
        # Let visitors leave by themselves first. Then accept no new streams, reset the current ones and inform
        # their hosts. What they run on stops last.
        self._draining = True
        if self._gateway is not None:
            await self._gateway.drain(self.failed)
        if self._timer is not None:
            self._timer.cancel()
        for world in self._worlds.values():
            await world.stop()
        for listener in self._listeners:
            listener.stop()
        await self.reset_all()
        if self._gateway is not None:
            await self._gateway.stop()
        for tunnel in self._tunnels.values():
            await tunnel.pool.stop()
        await super().stop()

    def _tick(self) -> None:
        for tunnel in self._tunnels.values():
            tunnel.tick()
        if self._gateway is not None:
            self._gateway.tick()
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
