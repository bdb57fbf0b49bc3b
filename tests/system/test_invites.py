"""Invites from the owner's command to the relay that judges them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.apps import echo, exchange, serve, until
from support.commands import run
from support.system import SECRET, System
from tunnel_core.protocol import invite
from tunnel_core.service.settings import Secret


async def test_an_invite_lets_in_until_it_is_revoked(loop_factory: Any, tmp_path: Path) -> None:
    """Both by the owner's command; those inside are closed, and told that they need a new link."""
    revoked = tmp_path / "revoked"
    revoked.touch()
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    async with serve(echo) as target, System(revoked=str(revoked)) as system:
        await system.host({"mc": target})
        owner = {"HOST_AGENT_RELAY": system.url, "HOST_AGENT_SECRET": SECRET} | home
        made = run("tcp-ws-tunnel", "invite", "--tunnel", "mc", "--subject", "alex", **owner)
        assert made.returncode == 0, made.stderr
        friend = invite.parse(made.stdout)
        assert friend.relay == system.url
        client = await system.client(friend.tunnel, secret=Secret(), token=Secret(friend.token))
        await exchange(client.ports[0], 10_000)
        done = run("host-agent", "invite", "--revoke", "alex", "--revoked", str(revoked), **home)
        assert done.returncode == 0, done.stderr

        await until(lambda: system.events("leg denied"))
        assert "the token was revoked: ask for a new one" in system.events("leg denied")[0]["reason"]
        assert friend.token not in system.raw_log
