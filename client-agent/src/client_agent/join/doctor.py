"""The friend's doctor: checks an invite and the path to the server, with advice that a friend can follow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tunnel_core.agent.doctor import Failed, Say, Warned
from tunnel_core.errors import AccessDenied
from tunnel_core.protocol.invite import MINECRAFT, Invite

from ..doctor import ClientDoctor
from ..lan import default_address
from ..settings import ClientSettings
from .service import ASK, free_port

# Replaces advice for owners and operators, by check.
_ADVICE: Final = {
    "name": "is this computer online? If other sites open, ask your friend whether the relay has moved",
    "tcp": "is this computer online, and does its firewall let it out? If both, the relay is down: tell your friend",
    "presence": "the other side is not connected properly: tell your friend",
    "target": "the tunnel works, but the server behind it does not answer: tell your friend",
    "expiry": ASK,
}


class InviteDoctor(ClientDoctor):
    """Checks the invite and this machine first, then the path of a leg."""

    def __init__(self, settings: ClientSettings, invite: Invite, say: Say) -> None:
        super().__init__(settings, say)
        self._invite = invite
        self._listen_address = settings.listen_address

    async def run(self) -> int:
        await self.check("link", self._link)
        await self.check("port", self._port)
        if self._invite.app == MINECRAFT:
            await self.check("lan list", self._list)
        return await super().run()

    async def check(self, name: str, check: Callable[[], Awaitable[str]]) -> bool:
        async def for_a_friend() -> str:
            try:
                return await check()
            except Failed as found:
                advice = ASK if isinstance(found.__cause__, AccessDenied) else _ADVICE.get(name, found.advice)
                raise type(found)(found.what, advice) from found

        return await super().check(name, for_a_friend)

    async def _link(self) -> str:
        label = f" ({self._invite.label})" if self._invite.label else ""
        return f"complete: invites {self._invite.grant.subject} to {self._invite.tunnel}{label}"

    async def _port(self) -> str:
        wanted = self._invite.port
        port = free_port(self._listen_address, wanted)
        if port != wanted:
            raise Warned(
                f"{wanted} is in use on this computer",
                f"unless tcp-ws-tunnel join itself is running, it will use {port}: use the address that it prints",
            )
        return f"{port} is free on this computer"

    async def _list(self) -> str:
        address = default_address()
        if not address:
            raise Warned(
                "this computer has no network with multicast, so the game cannot list the server",
                "add the server in Minecraft with the address that tcp-ws-tunnel join prints",
            )
        return f"the game will find the server at {address}"
