"""The host-agent's doctor: besides the way to the relay it tries the target."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Final

from tunnel_core.agent import doctor
from tunnel_core.agent.doctor import Failed, Say, Warned
from tunnel_core.net import connecting, sockets
from tunnel_core.protocol import proxy_header

from .settings import HostSettings

LISTEN: Final = 0.5  # seconds: a server that will not have a connection ends it at once


class HostDoctor(doctor.Doctor):
    """Looks at each offered tunnel."""

    def __init__(self, settings: HostSettings, say: Say) -> None:
        super().__init__(settings, "host", [offer.tunnel for offer in settings.tunnel], say)
        self._tells = settings.proxy_protocol
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
        summary = f"{target} answers in {(time.perf_counter() - began) * 1000:.0f} ms"
        with sock:
            if tunnel in self._tells:
                sock.send(proxy_header.LOCAL)
            if await _ends(sock):
                expects = "does it not expect the PROXY protocol? Then leave --proxy-protocol out"
                if tunnel not in self._tells:
                    expects = f"does it expect the PROXY protocol? Then write --proxy-protocol {tunnel}"
                raise Warned(f"{summary}, and closes at once", expects)
        return summary


async def _ends(sock: socket.socket) -> bool:
    """Whether the other side ends the connection before it has heard anything of the application's."""
    try:
        async with asyncio.timeout(LISTEN):
            return not await asyncio.get_running_loop().sock_recv(sock, 1)
    except TimeoutError:
        return False
    except OSError:
        return True
