"""The public ports of a client-agent, for visitors without an agent of their own."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from tunnel_core.agent.context import AgentContext
from tunnel_core.errors import TunnelError
from tunnel_core.protocol.addresses import parse_ip
from tunnel_core.protocol.routes import Routes
from tunnel_core.protocol.tokens import Network
from tunnel_core.protocol.visitor_limits import Turned, VisitorLimits

from .listener import Listener
from .settings import ClientSettings
from .tunnel import ClientTunnel
from .visitor import Reason, Visitor

MOST_TUNNELS: Final = 100  # tunnels open at once through name patterns: strangers choose the names
LOOK: Final = 0.1  # seconds between checks whether all visitors have left


class Gateway:
    """Listens, lets visitors in within the limits, and finds the tunnel of each.

    `tunnels` are those that the settings name; a `--route` with `*` makes more by `make_tunnel`, and lets
    go of those that nobody is in.
    """

    def __init__(
        self,
        context: AgentContext[ClientSettings],
        registry: CollectorRegistry,
        tunnels: dict[str, ClientTunnel],
        make_tunnel: Callable[[str], ClientTunnel],
    ) -> None:
        settings = context.settings
        self.memory = context.streams.memory
        self.first_byte_timeout = settings.first_byte_timeout
        self.log = context.stream_log.by("visitors")
        self._context = context
        self._tunnels = tunnels
        self._make_tunnel = make_tunnel
        self._made: dict[str, ClientTunnel] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self.routes = Routes(settings.route)
        allowed: dict[str, list[Network]] = defaultdict(list)
        for tunnel, network in settings.allow:
            allowed[tunnel].append(network)
        self.limits = VisitorLimits(
            connections=settings.max_connections,
            per_tunnel=settings.max_per_tunnel,
            per_address=settings.max_per_address,
            rate_per_address=settings.rate_per_address,
            allowed=allowed,
        )
        self._proxies = settings.proxy_protocol_from
        self._most = settings.max_connections
        self._visitors: set[Visitor] = set()
        turned_away = Counter(
            "tunnel_gateway_turned_away", "Visitors who were not let in, by reason.", ("reason",), registry=registry
        )
        self._turned_away = {reason: turned_away.labels(reason.value) for reason in (*Turned, *Reason)}
        Gauge("tunnel_gateway_visitors", "Connections to public ports now.", registry=registry).set_function(
            lambda: len(self._visitors)
        )
        self.listeners = [
            Listener(port.address or "::", port.port, port.tunnel, functools.partial(self._visitor, port.tunnel))
            for port in (*settings.public, *settings.shared)
        ]

    async def start(self) -> None:
        if not self._context.credentials.may_name_visitors:
            hint = "ask for a token made with --role gateway"
            self._context.log.warning("visitors are not named", reason="servers hear this machine's address", hint=hint)
        for listener in self.listeners:
            await listener.start()
            for address in listener.addresses:
                self._context.log.info("public port", address=str(address), tunnel=listener.tunnel or "by name")

    async def drain(self, failed: asyncio.Future[TunnelError]) -> None:
        """Admit nobody, and wait until those inside have left, unless the agent `failed`."""
        for listener in self.listeners:
            listener.stop()
        deadline = time.monotonic() + self._context.settings.drain
        if self._visitors:
            self._context.log.info("draining", visitors=len(self._visitors))
        while self._visitors and time.monotonic() < deadline and not failed.done():
            await asyncio.sleep(LOOK)

    async def stop(self) -> None:
        """After the streams: what is left of visitors who are in no tunnel, and of the tunnels that were made."""
        for visitor in tuple(self._visitors):
            visitor.tcp.abort()
        await asyncio.gather(*self._leaving)
        for tunnel in self._made.values():
            await tunnel.pool.stop()

    def tick(self) -> None:
        """Let go of the tunnels that nobody is in."""
        for name, tunnel in tuple(self._made.items()):
            tunnel.tick()
            if tunnel.idle:
                del self._made[name]
                task = asyncio.get_running_loop().create_task(tunnel.pool.stop())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    def _visitor(self, tunnel: str) -> asyncio.BaseProtocol:
        visitor = Visitor(self, tunnel)
        self._visitors.add(visitor)
        return visitor.tcp

    # Called by visitors.

    @property
    def is_full(self) -> bool:
        """Whether there are more connections than may be, those included of which not even the address is known."""
        return len(self._visitors) > self._most

    def is_proxy(self, address: str) -> bool:
        """Whether connections from this IP address begin with a PROXY header."""
        ip = parse_ip(address) if self._proxies else None
        return ip is not None and any(ip in network for network in self._proxies)

    def tunnel(self, name: str) -> ClientTunnel | None:
        """The tunnel of this name; None if it is not this gateway's, or there are too many."""
        found = self._tunnels.get(name) or self._made.get(name)
        if found is None and len(self._made) < MOST_TUNNELS and self._context.credentials.may_use(name):
            found = self._made[name] = self._make_tunnel(name)
        return found

    def turned_away(self, visitor: Visitor, reason: Turned | Reason) -> None:
        """Count and log it."""
        self._turned_away[reason].inc()
        self.log.info("visitor turned away", client=visitor.source, reason=reason.value, asked=visitor.asked)

    def gone(self, visitor: Visitor) -> None:
        self._visitors.discard(visitor)
