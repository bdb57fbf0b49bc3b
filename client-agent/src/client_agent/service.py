"""The client-agent as a service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Final

from tunnel_core.agent.base import Agent
from tunnel_core.agent.metrics import Carried
from tunnel_core.agent.pace import Pace
from tunnel_core.agent.times import AgentTimes
from tunnel_core.net import sockets
from tunnel_core.net.sockets import Address
from tunnel_core.service.run import raise_descriptor_limit

from .lan import ALL_ADDRESSES, LanWorld
from .settings import ClientSettings
from .tunnel import ClientTunnel

# Of the streams whose legs all end at once (session.FEW): how many may ask for another together, and the
# seconds until one more may. So they cost next to nothing, however many they are.
HASTY_AT_ONCE: Final = 20
NEXT_HASTY: Final = 0.05
TICK: Final = 5.0  # seconds between looks at what is kept ready and not used
SPARE_DESCRIPTORS: Final = 32  # for logs, the ports, legs kept ready, dials
DESCRIPTORS_A_STREAM: Final = 3  # the local socket, its leg, and the next one while it moves


class ClientAgent(Agent):
    """Listens, and carries what connects to the tunnels."""

    def __init__(self, settings: ClientSettings, times: AgentTimes = AgentTimes()) -> None:
        super().__init__(settings, "client", [forward.tunnel for forward in settings.forward], times)
        self.settings: ClientSettings = settings
        self.pace = Pace(HASTY_AT_ONCE, NEXT_HASTY)
        # More connections would leave the streams of now no descriptor for a resume.
        self.max_streams = max(1, (raise_descriptor_limit() - SPARE_DESCRIPTORS) // DESCRIPTORS_A_STREAM)
        self._tunnels = {forward.tunnel: ClientTunnel(self, forward.tunnel) for forward in settings.forward}
        self._listening = [
            (forward.tunnel, sockets.listen(forward.address or settings.listen_address, forward.port))
            for forward in settings.forward
        ]
        self._worlds = {name: self._world(name, shown) for name, shown in settings.announce}
        self._servers: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ports(self) -> list[int]:
        """The ports listened on, in the order of the forwards."""
        return [int(socks[0].getsockname()[1]) for _, socks in self._listening]

    def carried(self) -> Iterable[Carried]:
        for tunnel in self._tunnels.values():
            yield from tunnel.sessions

    @property
    def is_full(self) -> bool:
        """Whether there are more streams than descriptors for them."""
        return sum(len(tunnel.sessions) for tunnel in self._tunnels.values()) > self.max_streams

    def readiness(self) -> str:
        return "" if self.dialer.reachable else "the relay cannot be reached, or does not let this agent in"

    def connected(self) -> None:
        for name, socks in self._listening:
            self.log.info("connected", relay=self.settings.relay, tunnel=name, hint=self.hint(name, socks[0]))

    def hint(self, tunnel: str, sock: socket.socket) -> str:
        """How to use `tunnel`, which `sock` listens for."""
        host, port = sock.getsockname()[:2]
        here = Address("127.0.0.1" if host in ALL_ADDRESSES else host, port)
        world = self._worlds.get(tunnel)
        if world is None:
            return f"point your application at {here}"
        listed = " (it is also in the list of LAN worlds)" if world.address else ""
        return f"add the server {here} in Minecraft{listed}"

    def _world(self, tunnel: str, name: str) -> LanWorld:
        host, port = next(socks for leads_to, socks in self._listening if leads_to == tunnel)[0].getsockname()[:2]
        accept = self._tunnels[tunnel].new_connection
        return LanWorld(name, host, port, accept, ready=lambda: self.dialer.reachable, log=self.log.bind(tunnel=tunnel))

    async def start(self) -> None:
        await super().start()
        for world in self._worlds.values():
            world.start()
        for tunnel in self._tunnels.values():
            tunnel.pool.start()
        for name, socks in self._listening:
            for sock in socks:
                self._servers.append(await sockets.accept(self._tunnels[name].new_connection, sock))
                address = Address(*sock.getsockname()[:2])
                self.log.info("listening", address=str(address), tunnel=name, relay=self.settings.relay)
        self._tick()

    async def stop(self) -> None:
        # First no new streams; then the streams of now are reset and their hosts told;
        # last what they ran on.
        if self._timer is not None:
            self._timer.cancel()
        for world in self._worlds.values():
            await world.stop()
        for server in self._servers:
            server.close()
        await self.reset_all([session for tunnel in self._tunnels.values() for session in tunnel.sessions])
        for tunnel in self._tunnels.values():
            await tunnel.pool.stop()
        await super().stop()

    def _tick(self) -> None:
        for tunnel in self._tunnels.values():
            tunnel.tick()
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
