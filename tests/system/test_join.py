"""`tcp-ws-tunnel join`, `leave` and `doctor`, as a friend has them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from client_agent.join.cli import _settings
from client_agent.join.doctor import InviteDoctor
from client_agent.join.service import ASK
from client_agent.settings import ClientSettings
from support.apps import echo, exchange, serve, until
from support.commands import BIN, environment, run
from support.system import System, token
from support.terminal import Terminal
from tunnel_core.protocol.endpoints import Role
from tunnel_core.protocol.invite import MINECRAFT, Invite
from tunnel_core.service import settings

from demo.processes import free_port


def made(system: System, port: int, role: Role = "client", **fields: Any) -> Invite:
    """An invite to that system."""
    given = {"token": token(role, lasts=fields.pop("lasts", 3600.0)), "tunnel": "mc", "app": MINECRAFT}
    return Invite(relay=system.url, port=port, **(given | fields))


@contextlib.asynccontextmanager
async def server(**relay: Any) -> AsyncIterator[System]:
    """A friend's server, and a relay."""
    async with serve(echo) as target, System(**relay) as system:
        await system.host({"mc": target})
        yield system


async def ended(process: subprocess.Popen[bytes] | Terminal) -> int:
    return await asyncio.to_thread(process.wait if isinstance(process, subprocess.Popen) else process.ended)


async def test_an_evening_on_a_friends_server(tmp_path: Path) -> None:
    """The link is pasted; a pause is survived, and told; Ctrl-C ends in peace; the next time nothing is asked."""
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    port = free_port()
    async with server() as system:
        invite = made(system, port)
        with Terminal("tcp-ws-tunnel", "join", **home) as terminal:
            await until(lambda: terminal.shows("Paste your link"))
            terminal.types(f"{invite.link()[:90]}\n{invite.link()[90:]}\n")
            await until(lambda: terminal.shows("connected: "))
            first = next(line for line in terminal.lines if line.startswith("connected: "))
            assert first.removesuffix(" (it is also in the list of LAN worlds)") == (
                f"connected: add the server 127.0.0.1:{port} in Minecraft"
            )
            await until(lambda: terminal.shows("your link is stored: next time, tcp-ws-tunnel join mc "))
            await until(lambda: terminal.shows("connected | "))
            await exchange(port, 100_000)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"1")
            assert await reader.read(1) == b"1"
            for leg in tuple(system.relay._monitor._legs):
                leg.abort()
            writer.write(b"2")
            assert await reader.read(1) == b"2"
            await until(lambda: terminal.shows(r"connected \|.* 1 connection \| 1 pause survived"))
            await system.relay.stop()
            await until(lambda: terminal.shows(r"connecting again \| 1 connection held \| 1 pause survived \| ."))
            terminal.interrupts()
            assert await ended(terminal) == 0
            await until(lambda: terminal.shows("disconnected after .* received, .* sent, 1 pause survived"))
            writer.close()
    async with server() as system:
        (kept,) = (tmp_path / "tcp-ws-tunnel/invites").iterdir()
        kept.write_text(made(system, port).link())
        with Terminal("tcp-ws-tunnel", "join", **home) as terminal:
            await until(lambda: terminal.shows("connected: "))
            assert not terminal.shows("Paste")
            terminal.interrupts()
            assert await ended(terminal) == 0
    left = run("tcp-ws-tunnel", "leave", "mc", **home)
    assert (left.returncode, left.stdout) == (0, "forgotten: mc\n")
    assert not kept.exists()


@pytest.mark.parametrize("way", ["standard input", "the variable"])
async def test_without_a_terminal_there_is_the_usual_log(tmp_path: Path, way: str) -> None:
    """And in no command line, log or metric anything of the link; if its port is in use, the next is taken."""
    variables = {"XDG_CONFIG_HOME": str(tmp_path)}
    async with server() as system:
        with socket.create_server(("127.0.0.1", free_port())) as taken:
            if way == "the variable":  # as in a container, where no game listens for announcements
                invite, expected = (
                    made(system, taken.getsockname()[1]),
                    r'add the server 127\.0\.0\.1:(\d+) in Minecraft"',
                )
                variables |= {"TUNNEL_INVITE": invite.link(), "CLIENT_AGENT_LISTEN_ADDRESS": "[::]"}
            else:
                invite = made(system, taken.getsockname()[1], app="")
                expected = r'point your application at 127\.0\.0\.1:(\d+)"'
            admin = free_port()
            log = tmp_path / "log"
            with log.open("wb") as output:
                process = subprocess.Popen(  # noqa: ASYNC220
                    [BIN / "tcp-ws-tunnel", "join", "--log-level", "debug", "--admin-port", str(admin)],
                    stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment(**variables),
                )  # fmt: skip
            try:
                assert process.stdin is not None
                process.stdin.write(invite.link().encode() if way == "standard input" else b"")
                process.stdin.close()
                await until(lambda: '"connected"' in log.read_text())
                (port,) = map(int, re.findall(expected, log.read_text()))
                assert port > invite.port
                await exchange(port, 10_000)
                metrics = await asyncio.to_thread(_get, admin, "/metrics")
                assert "tunnel_agent_streams" in metrics
                command = await asyncio.to_thread(Path(f"/proc/{process.pid}/cmdline").read_text)
                shown = log.read_text() + metrics + command
                for secret in (invite.token, *invite.token.split(".")[1:], invite.link().partition("#")[2]):
                    assert secret not in shown
                process.terminate()
                assert await ended(process) == 0
            finally:
                process.kill()
                process.wait()


def _get(port: int, path: str) -> str:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


async def test_a_link_that_is_over(tmp_path: Path) -> None:
    """Expired or revoked: one line, what to do, and exit code 2; on a terminal, too."""
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    async with server() as system:
        over = made(system, free_port(), lasts=-3600)
        with Terminal("tcp-ws-tunnel", "join", TUNNEL_INVITE=over.link(), **home) as terminal:
            assert await ended(terminal) == 2
            expected = f"join: the relay refuses this client: the token has expired: {ASK}"
            await until(lambda: expected in " ".join(terminal.lines))
        done = await asyncio.to_thread(run, "client-agent", "join", TUNNEL_INVITE=over.link(), **home)
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if '"error"' in line]
        assert ASK in line
        assert over.token not in done.stderr + done.stdout


def test_a_link_as_an_argument_is_refused(tmp_path: Path) -> None:
    """In one line; what it gave away is not said once more."""
    done = run("tcp-ws-tunnel", "join", "https://relay.example.com/join#1.AAAA", XDG_CONFIG_HOME=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("join: do not pass the link as an argument")
    assert "AAAA" not in done.stderr


# The doctor.


async def visit(invite: Invite) -> tuple[int, list[str]]:
    """The doctor's exit code and lines."""
    lines: list[str] = []
    flags = settings.parser("doctor", "").parse_args([])
    made = _settings(invite, flags, {})
    assert isinstance(made, ClientSettings)
    return await InviteDoctor(made, invite, lines.append).run(), lines


async def test_a_doctor_for_friends(tmp_path: Path) -> None:
    """The command: all is well, in the order that a person would look."""
    async with server() as system:
        invite = made(system, free_port(), label="Kim's server")
        variables = {"XDG_CONFIG_HOME": str(tmp_path), "TUNNEL_INVITE": invite.link()}
        done = await asyncio.to_thread(run, "tcp-ws-tunnel", "doctor", **variables)
        assert done.returncode == 0, done
        checks = [line[8:20].strip() for line in done.stdout.splitlines() if line.startswith(("  ok", "  warn"))]
        assert checks[:5] == ["link", "port", "lan list", "name", "tcp"]
        assert checks[-3:] == ["target", "clock", "expiry"]
        assert "complete: invites tester to mc (Kim's server)" in done.stdout
        assert not (tmp_path / "tcp-ws-tunnel").exists(), "it keeps nothing"


async def test_what_the_doctor_advises_a_friend() -> None:
    """What they can do, and not what an owner or an operator could."""
    async with System() as system:
        with socket.create_server(("127.0.0.1", free_port())) as taken:
            busy = made(system, taken.getsockname()[1])
            code, lines = await visit(busy)
            told = "\n".join(lines)
            assert code == 1
            assert f"  warn  port         {busy.port} is in use on this computer" in told
            assert "no host-agent waits at the relay\n" in told
            assert "the other side is not connected properly: tell your friend" in told
        code, lines = await visit(made(system, free_port(), lasts=-3600))
        assert code == 1
        assert "  FAIL  upgrade" in "\n".join(lines)
        assert any(line.endswith(f"→ {ASK}") for line in lines)
        await system.host({"mc": 1})
        code, lines = await visit(made(system, free_port()))
        assert code == 1
        assert any("the server behind it does not answer: tell your friend" in line for line in lines)
    code, lines = await visit(Invite(relay="ws://127.0.0.1:1", token=token("client"), tunnel="mc", port=free_port()))
    assert code == 1
    assert lines[-2] == "the rest is not checked before that is mended"
    assert any("is this computer online, and does its firewall let it out?" in line for line in lines)
