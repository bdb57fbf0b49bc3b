"""Pages on the relay's public port, beside its legs."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.apps import echo, exchange, serve, until
from support.system import System
from support.web import ask
from tunnel_core import __version__
from tunnel_relay.pages.wheel import FILE_NAME


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """What a relay takes for its wheel; of a size that no socket's buffer holds."""
    path = tmp_path / FILE_NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"tcp_ws_tunnel-{__version__}.dist-info/METADATA", "Requires-Python: >=3.11\n")
        archive.writestr("big", bytes(3 << 20))
    return path


@pytest.fixture
def content(wheel: Path) -> bytes:
    return wheel.read_bytes()


async def test_pages_and_legs_share_a_port(loop_factory: Any, wheel: Path, content: bytes) -> None:
    """Each path has its answer and its rule for caches, and a stream passes beside."""
    async with serve(echo) as target, System(join_wheel=str(wheel)) as system:
        port = await system.pair(target)
        relay = system.relay.port
        expected = {
            "/": ("This is a relay", "no-store"),
            "/join": ("You are invited", "no-store"),
            "/join/simple/": ("tcp-ws-tunnel", "no-cache"),
            "/join/simple/tcp-ws-tunnel/": (hashlib.sha256(content).hexdigest(), "no-cache"),
            "/healthz": ("ok\n", "no-store"),
            "/readyz": ("ready\n", "no-store"),
        }
        for path, (part, caching) in expected.items():
            page = await ask(relay, path)
            assert (page.status, page.headers["cache-control"]) == (200, caching), path
            assert part in page.text
            head = await ask(relay, path, "HEAD")
            assert head.body == b""
            dated = ("date",)
            assert {k: v for k, v in head.headers.items() if k not in dated} == {
                k: v for k, v in page.headers.items() if k not in dated
            }
            assert int(page.headers["content-length"]) == len(page.body)
            assert page.headers["connection"] == "close"
            assert (await ask(relay, path, "POST")).status == 405
        assert (await ask(relay, f"/join/simple/tcp-ws-tunnel/{FILE_NAME}")).body == content
        for path in ("/join/simple/uvloop/", "/client/mc", "/favicon.ico", "/join/simple", "/joint"):
            assert (await ask(relay, path)).status in (401, 404)
        await exchange(port, 10_000)


async def test_the_page_tells_where_it_was_found(loop_factory: Any, wheel: Path) -> None:
    """For texts without script: the address that the browser asked, if that is one."""
    async with System(join_wheel=str(wheel)) as system:

        async def base(**headers: str) -> str:
            text = (await ask(system.relay.port, "/join", **headers)).text
            return text.partition("--index ")[2].partition("/join/simple")[0].partition(">")[2].partition("<")[0]

        assert await base() == f"http://127.0.0.1:{system.relay.port}"
        assert await base(Host="play.example.com") == "https://play.example.com"
        assert await base(Host="192.0.2.1:8080", X_Forwarded_Proto="http") == "http://192.0.2.1:8080"
        assert await base(Host="127.0.0.1", X_Forwarded_Proto="https") == "https://127.0.0.1"
        assert await base(Host='"><script>') == "https://relay.example.com"


async def test_without_pages(loop_factory: Any, wheel: Path) -> None:
    """Turned off, there is none; without a wheel the page says so, and offers no command."""
    async with System(join_page=False, join_wheel=str(wheel)) as system:
        for path in ("/join", "/join/simple/", f"/join/simple/tcp-ws-tunnel/{FILE_NAME}"):
            assert (await ask(system.relay.port, path)).status == 404
        assert "This is a relay" in (await ask(system.relay.port, "/")).text


async def test_a_relay_without_a_wheel_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To the friend and to the operator."""
    monkeypatch.setattr("tunnel_relay.pages.wheel.FOLDER", tmp_path)
    async with System() as system:
        assert '<body class="bare">' in (await ask(system.relay.port, "/join")).text
        assert (await ask(system.relay.port, "/join/simple/")).status == 404
        assert system.events("no wheel to give")


async def test_an_address_asks_for_so_many_pages(loop_factory: Any) -> None:
    """Then it waits a while; legs and health checks go on, and tell nothing of it."""
    async with serve(echo) as target, System(max_pages_per_address=3, page_refill=3600.0) as system:
        statuses = [(await ask(system.relay.port, "/")).status for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        refused = await ask(system.relay.port, "/join")
        assert int(refused.headers["retry-after"]) > 3000
        assert (await ask(system.relay.port, "/readyz")).status == 200
        await exchange(await system.pair(target), 1000)
        assert system.events("page refused")[0]["reason"] == "too many pages for this address"


async def test_so_many_pages_are_on_their_way(loop_factory: Any, wheel: Path) -> None:
    """Who takes none of what they asked for keeps others from pages for a while, and nobody from a leg."""
    async with serve(echo) as target, System(join_wheel=str(wheel), max_pages=2) as system:
        slow = [socket.socket() for _ in range(2)]
        for sock in slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", system.relay.port))
            sock.sendall(f"GET /join/simple/tcp-ws-tunnel/{FILE_NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while (await ask(system.relay.port, "/")).status != 503:
            await asyncio.sleep(0.01)
        await exchange(await system.pair(target), 1000)
        for sock in slow:
            sock.close()
        while (await ask(system.relay.port, "/")).status != 200:
            await asyncio.sleep(0.01)
        await until(lambda: system.events("page refused"))


async def test_nothing_of_a_tunnel_is_on_a_page(loop_factory: Any) -> None:
    """Neither its name nor who is there, for whoever asks."""
    async with serve(echo) as target, System() as system:
        await system.host({"a-secret-garden": target})
        for path in ("/", "/join", "/join/simple/", "/robots.txt", "/healthz"):
            page = await ask(system.relay.port, path)
            assert "garden" not in page.text + str(page.headers)
