"""A client-agent for one invite."""

from __future__ import annotations

from typing import Final

from tunnel_core.errors import AccessDenied, TunnelError
from tunnel_core.net import ports
from tunnel_core.net.ports import ListenFailed
from tunnel_core.protocol.invite import MINECRAFT

from ..listener import Listener
from ..service import ClientAgent
from ..settings import ClientSettings
from .status import StatusLine

NEXT_PORTS: Final = 10  # to try before taking any free one
ASK: Final = "ask your friend for a new link, and paste it into: tcp-ws-tunnel join --new"


def free_port(address: str, wanted: int) -> int:
    """`wanted`, or the next port that is free on `address`."""
    for port in (*range(wanted, min(wanted + NEXT_PORTS, 65536)), 0):
        try:
            listening = ports.listen(address, port)
        except ListenFailed:
            continue
        found = int(listening[0].getsockname()[1])
        for sock in listening:
            sock.close()
        return found
    return wanted  # none is free: listening on it will raise


class Joined(ClientAgent):
    """Prints above `status` instead of logging, if there is one: `connected`, then the `remarks`."""

    def __init__(self, settings: ClientSettings, app: str, remarks: list[str], status: StatusLine | None) -> None:
        super().__init__(settings)
        self._app = app
        self._remarks = remarks
        self._status = status

    def connected(self) -> None:
        if self._status is None:
            super().connected()
            return
        (listener,) = self._listeners
        for line in (f"connected: {self.hint(listener)}", *self._remarks):
            self._status.say(line)

    def hint(self, listener: Listener) -> str:
        if self._app == MINECRAFT and not self.context.settings.announce:  # in a container
            return f"add the server {self.here(listener)} in Minecraft"
        return super().hint(listener)

    def fail(self, error: TunnelError) -> None:
        super().fail(AccessDenied(error.reason, ASK) if isinstance(error, AccessDenied) else error)

    async def start(self) -> None:
        await super().start()
        if self._status is not None:
            self._status.start(self.registry, self.absence)

    async def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
        await super().stop()
