"""The client-agent's doctor: besides the way to the relay it tries the target, through the tunnel."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from tunnel_core.agent import doctor
from tunnel_core.agent.doctor import Failed, Say
from tunnel_core.agent.leg import AgentLeg
from tunnel_core.errors import TunnelError
from tunnel_core.protocol.control import (
    MIN_WINDOW,
    Accepted,
    Open,
    Paired,
    Refused,
    Reset,
    ToClient,
    Unknown,
    to_client,
)
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.protocol.frames import CloseCode

from .settings import ClientSettings

PATIENCE: Final = 25.0  # seconds: the relay's wait for a host, and the host's for its target


class ClientDoctor(doctor.Doctor):
    """Opens a stream in each tunnel, and resets it."""

    def __init__(self, settings: ClientSettings, say: Say) -> None:
        super().__init__(settings, "client", settings.tunnels, say)
        self._answer: asyncio.Future[ToClient]

    async def look_beyond(self, tunnel: str) -> None:
        await self.check("target", lambda: self._target(tunnel))

    # What a leg asks of its owner.

    def on_message(self, leg: AgentLeg[ToClient], message: ToClient | Unknown) -> None:
        decisive = isinstance(message, Accepted | Refused) or (isinstance(message, Paired) and message.raw)
        if decisive and not isinstance(message, Unknown) and not self._answer.done():
            self._answer.set_result(message)

    def on_leg_end(self, leg: AgentLeg[ToClient], code: int, reason: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(TunnelError(reason or f"close code {code}"))

    async def _target(self, tunnel: str) -> str:
        self._answer = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        stream = new_id()
        try:
            leg = await self.dialer.dial_once(tunnel, lambda _: AgentLeg(self.monitor, to_client, self))
            leg.send_message(Open(stream, new_id(), MIN_WINDOW))
            async with asyncio.timeout(PATIENCE):
                answer = await self._answer
        except TimeoutError as exc:
            raise Failed(
                f"no answer through the tunnel within {PATIENCE:g} s", "run the host-agent's doctor: it sees the target"
            ) from exc
        except TunnelError as exc:
            raise Failed(f"no answer through the tunnel: {exc}", "run the host-agent's doctor") from exc
        if isinstance(answer, Accepted):
            leg.send_message(Reset(stream, "a doctor's visit"))
        leg.close(CloseCode.NORMAL)
        if isinstance(answer, Refused):
            raise Failed(f"through the tunnel: {answer.reason}", "run the host-agent's doctor: it sees the target")
        return f"answers through the tunnel in {(time.perf_counter() - began) * 1000:.0f} ms"
