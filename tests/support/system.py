"""Whole tunnels in one process, on free ports of loopback."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import io
import json
import time
from collections.abc import Mapping
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import websockets.server
from client_agent.service import ClientAgent
from client_agent.settings import ClientSettings, Forward
from host_agent.service import HostAgent
from host_agent.settings import HostSettings, Offer
from tunnel_core.agent.times import AgentTimes
from tunnel_core.net.address import Address
from tunnel_core.net.liveness import LegTimes
from tunnel_core.protocol import tokens
from tunnel_core.protocol.endpoints import Role
from tunnel_core.protocol.tokens import TokenRole
from tunnel_core.service import logs
from tunnel_core.service.settings import Secret
from tunnel_relay.service import Relay, RelayTimes
from tunnel_relay.settings import RelaySettings

from support.apps import until
from support.invariants import forgotten_streams, wrong_pairs
from support.peer import Peer

SECRET = "a-secret-for-tests-which-has-more-than-32-bytes"


def token(
    role: TokenRole,
    *tunnels: str,
    subject: str = "tester",
    lasts: float = 3600.0,
    secret: str = SECRET,
    streams: int | None = None,
) -> str:
    """A token as `relay token` makes it."""
    return tokens.issue(
        secret.encode(),
        role=role,
        tunnels=tunnels or ["mc"],
        subject=subject,
        expires=time.time() + lasts,
        streams=streams,
    )


def bearer(role: TokenRole, *tunnels: str, subject: str = "tester", lasts: float = 3600.0) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token(role, *tunnels, subject=subject, lasts=lasts)}"}


class System:
    """A relay, and agents as a test adds them. Leaving it stops all, the last first. `legs` counts for both."""

    def __init__(
        self,
        *,
        legs: LegTimes = LegTimes(),
        times: RelayTimes | None = None,
        agents: AgentTimes | None = None,
        **relay: Any,
    ) -> None:
        self._times = times or RelayTimes(legs=legs)
        self._agent_times = agents or AgentTimes(legs=legs)
        self._output = io.StringIO()
        logs.configure("test", level="debug", style="json", file=self._output)
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": 0,
            "admin_port": 0,
            "secret": Secret(SECRET),
            "drain": 1.0,
        }
        self._settings = RelaySettings(**(settings | relay))
        self.relay: Relay
        self.agents: list[HostAgent | ClientAgent] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.relay.port}"

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines that all services have logged so far."""
        return [json.loads(line) for line in self._output.getvalue().splitlines()]

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event."""
        return [line for line in self.log if line["event"] == event]

    @property
    def raw_log(self) -> str:
        return self._output.getvalue()

    async def __aenter__(self) -> Self:
        self.relay = Relay(self._settings, self._times)
        await self.relay.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.raw_log[-20000:])
        else:
            await self.check()
        await self.stop_agents()
        await self.relay.stop()
        websockets.server.email = email  # type: ignore[attr-defined]
        bugs = self.events("bug")
        assert not bugs, bugs

    async def check(self) -> None:
        """Nothing is lost track of: every stream is on a leg or has a deadline, and every pair is whole."""

        def faults() -> list[str]:
            streams = [fault for agent in self.agents for fault in forgotten_streams(agent)]
            return streams + list(wrong_pairs(self.relay.pairing))

        with contextlib.suppress(TimeoutError):
            await until(lambda: not faults(), 2.0)  # the loop may have handled the half of an event only
        assert not faults()

    async def host(self, targets: Mapping[str, int | Address], *, wait: bool = True, **settings: Any) -> HostAgent:
        """A host-agent that offers these tunnels; a number is a port of 127.0.0.1."""
        offers = tuple(
            Offer(name, Address("127.0.0.1", target) if isinstance(target, int) else target)
            for name, target in targets.items()
        )
        agent = HostAgent(HostSettings(tunnel=offers, **self._common(settings)), self._agent_times)
        self.agents.append(agent)
        await agent.start()
        if wait:
            await until(lambda: not agent.readiness())
        return agent

    async def client(self, *tunnels: str, wait: bool = True, **settings: Any) -> ClientAgent:
        """A client-agent that forwards a free port to each of these tunnels: `agent.ports`."""
        forwards = tuple(Forward("", 0, tunnel) for tunnel in tunnels)
        agent = ClientAgent(ClientSettings(forward=forwards, **self._common(settings)), self._agent_times)
        self.agents.append(agent)
        await agent.start()
        if wait:
            await until(lambda: not agent.readiness())
        return agent

    async def pair(self, target: int | Address, **settings: Any) -> int:
        """One tunnel to `target`, end to end. Returns the client's port."""
        await self.host({"mc": target}, **settings)
        client = await self.client("mc", **settings)
        return client.ports[0]

    def move_clock(self, seconds: float) -> None:
        """Have the relay judge by a time, and tell one, that is so far from the true one."""
        self.relay._access._clock = lambda: time.time() + seconds
        formatdate = functools.partial(email.utils.formatdate, usegmt=True)
        told = SimpleNamespace(formatdate=lambda **_: formatdate(time.time() + seconds))
        websockets.server.email = SimpleNamespace(utils=told)  # type: ignore[attr-defined, assignment]  # until the end

    async def dial(self, role: Role, tunnel: str = "mc", *, v1: bool = False, instance_key: str = "") -> Peer:
        """A leg by hand, raw unless it is to be v1."""
        path = f"/{role}/{tunnel}"
        return await Peer.dial(self.relay.port, path, bearer(role, tunnel), v1=v1, instance_key=instance_key)

    async def stop(self, agent: HostAgent | ClientAgent) -> None:
        """Stop one agent now."""
        self.agents.remove(agent)
        await agent.stop()

    async def stop_agents(self) -> None:
        """Stop all agents now, the last first."""
        while self.agents:
            await self.agents.pop().stop()

    def _common(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {"relay": self.url, "secret": Secret(SECRET), "stop_timeout": 1.0} | settings
