"""Tunnels in Minecraft's list of LAN worlds, in a network of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from client_agent.lan import announcement
from client_agent.settings import Announced, ClientSettings, Forward, announced
from support import lan_list
from support.apps import echo, exchange, serve, until
from support.namespace import in_own_network, ip
from support.system import System
from tunnel_core.errors import UsageError

STAND_IN = (sys.executable, "-m", "support.lan_list")
HERE, ELSEWHERE = "192.0.2.10", "192.0.2.11"
NAME = "Kim's server [new] ☃"
SHOWN = "Kim's server (new) ☃"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what comes every few seconds."""
    monkeypatch.setattr("client_agent.lan.LOOK", 0.05)
    monkeypatch.setattr("client_agent.lan.INTERVAL", 0.05)


def network(address: str = HERE, name: str = "lan0") -> None:
    """An interface that all goes out by."""
    ip("link", "add", name, "type", "veth", "peer", "name", "cable")
    ip("link", "set", "cable", "up")
    ip("link", "set", name, "up")
    ip("address", "add", f"{address}/24", "dev", name)
    ip("address", "add", f"{ELSEWHERE}/24", "dev", name)
    ip("route", "add", "default", "dev", name)


@contextlib.asynccontextmanager
async def listing(*command: str) -> AsyncIterator[Callable[[], Any]]:
    """The game's list: each call waits for the next announcement, and returns its address, name and port."""
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environ)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"listening\n"

    async def following() -> tuple[str, str, str]:
        assert process.stdout is not None
        address, _, said = (await process.stdout.readline()).decode().rstrip("\n").partition(" ")
        found = lan_list.parse(said)
        assert found is not None, said
        return address, *found

    try:
        yield following
    finally:
        process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


def test_a_tunnel_is_in_the_list(loop_factory: Any) -> None:
    """With its name, at an address and a port where this machine gets in, and nobody else does."""
    in_the_list(loop_factory, *STAND_IN)


def test_a_tunnel_is_in_the_list_as_java_has_it(tmp_path: Path) -> None:
    """The game is written in Java, whose sockets choose the interface in their own way."""
    if shutil.which("javac") is None:
        pytest.skip("no JDK")
    (tmp_path / "LanList.java").write_text(lan_list.JAVA)
    in_the_list(asyncio.new_event_loop, "java", str(tmp_path / "LanList.java"))


def in_the_list(loop_factory: Any, *command: str) -> None:
    async def main() -> None:
        network()
        async with listing(*command) as following, serve(echo) as target, System() as system:
            await system.host({"mc": target})
            client = await system.client("mc", announce=(Announced("mc", NAME),))
            (port,) = client.ports
            assert await following() == (HERE, SHOWN, str(port))
            assert await following() == (HERE, SHOWN, str(port)), "again and again"
            await exchange(port, 10_000, host=HERE)
            await exchange(port, 10_000)
            reader, writer = await asyncio.open_connection(HERE, port, local_addr=(ELSEWHERE, 0))
            with pytest.raises(ConnectionResetError):
                assert await reader.read(1), "no end of data either"
            writer.close()
            assert len(system.events("stream opening")) == 2
            assert "(it is also in the list of LAN worlds)" in system.events("connected")[-1]["hint"]

    in_own_network(main, loop_factory)


def test_the_list_follows_the_network(loop_factory: Any) -> None:
    """Away, which is one line in the log; and back, with another address."""

    async def main() -> None:
        async with serve(echo) as target, System() as system:
            await system.host({"mc": target})
            client = await system.client("mc", announce=(Announced("mc", NAME),))
            (port,) = client.ports
            told = "not announced to the LAN list"
            assert system.events("connected")[-1]["hint"] == f"add the server 127.0.0.1:{port} in Minecraft"
            await asyncio.sleep(0.2)
            assert [line["reason"] for line in system.events(told)] == ["this machine has no network with multicast"]
            network()
            async with listing(*STAND_IN) as following:
                await until(lambda: system.events("announced to the LAN list"))
                ip("link", "del", "lan0")
                await until(lambda: len(system.events(told)) == 2)
            network("192.0.2.77", "lan1")
            async with listing(*STAND_IN) as following:
                assert (await following())[0] == "192.0.2.77"
                await exchange(port, 1000, host="192.0.2.77")

    in_own_network(main, loop_factory)


def test_what_cannot_be_reached_is_not_in_the_list(loop_factory: Any) -> None:
    """While the relay is away, nobody is offered a world that nobody gets into."""

    async def main() -> None:
        network()
        async with listing(*STAND_IN) as following, serve(echo) as target, System() as system:
            await system.host({"mc": target})
            await system.client("mc", announce=(Announced("mc", "away"),), relay="ws://127.0.0.1:1", wait=False)
            await system.client("mc", announce=(Announced("mc", "here"),))
            assert {(await following())[1] for _ in range(8)} == {"here"}

    in_own_network(main, loop_factory)


def test_one_that_listens_everywhere_needs_no_second_listener(loop_factory: Any) -> None:
    """And whoever asks for all addresses means all that can reach them."""

    async def main() -> None:
        network()
        async with (
            listing(*STAND_IN) as following,
            serve(echo) as target,
            System() as system,
        ):
            await system.host({"mc": target})
            client = await system.client("mc", announce=(Announced("mc", NAME),), listen_address="::")
            assert await following() == (HERE, SHOWN, str(client.ports[0]))
            await exchange(client.ports[0], 1000, host=HERE)

    in_own_network(main, loop_factory)


def test_what_can_be_announced() -> None:
    """A name in one line, of a tunnel that is forwarded; whatever is in it, the game reads it as one."""
    assert announced("mc=Our server = yours") == Announced("mc", "Our server = yours")
    for wrong in ("mc", "mc=", "mc=a\nb", f"mc={'x' * 61}"):
        with pytest.raises(UsageError, match="write TUNNEL=NAME"):
            announced(wrong)
    settings = ClientSettings(relay="ws://x", forward=(Forward("", 1, "mc"),), announce=(Announced("db", "x"),))
    with pytest.raises(UsageError, match="nothing is forwarded to 'db'"):
        settings.check()
    for name in ("[MOTD]", "[/MOTD][AD]1[/AD]", "§aKim"):
        shown = name.replace("[", "(").replace("]", ")")
        assert lan_list.parse(announcement(name, 25565).decode()) == (shown, "25565")
