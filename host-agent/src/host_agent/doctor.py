"""The host-agent's doctor: besides the way to the relay it tries the target."""

from __future__ import annotations

import time

from tunnel_core.agent import doctor
from tunnel_core.agent.doctor import Failed, Say
from tunnel_core.net import connecting, sockets

from .settings import HostSettings


class HostDoctor(doctor.Doctor):
    """Looks at each offered tunnel."""

    def __init__(self, settings: HostSettings, say: Say) -> None:
        super().__init__(settings, "host", [offer.tunnel for offer in settings.tunnel], say)
        self._targets = {offer.tunnel: offer.target for offer in settings.tunnel}

    async def look_beyond(self, tunnel: str) -> None:
        await self.check("target", lambda: self._target(tunnel))

    async def _target(self, tunnel: str) -> str:
        target = self._targets[tunnel]
        began = time.perf_counter()
        try:
            sock = await connecting.connect(target)
        except OSError as exc:
            raise Failed(
                f"{target} does not answer: {sockets.why(exc)}",
                "is the server running, and does it listen on that address and port?",
            ) from exc
        sock.close()
        return f"{target} answers in {(time.perf_counter() - began) * 1000:.0f} ms"
