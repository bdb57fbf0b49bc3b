"""What docs/deploy.md has people put before a relay, as printed but for ports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.apps import close, connect, echo, exchange, serve, until
from support.deploy import printed, tool
from support.peer import handshake
from support.system import System, bearer

from demo.processes import free_port

PAGE = "docs/deploy.md"


def nginx(folder: Path, port: int, *relays: int, location: tuple[str, str] = (PAGE, "nginx")) -> list[str]:
    (relay,) = relays
    lines = printed(*location, "nginx")
    assert "127.0.0.1:8080" in lines
    lines = lines.replace("127.0.0.1:8080", f"127.0.0.1:{relay}")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (folder / "nginx.conf").write_text(f"""
pid {folder}/pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    {"".join(f"{kind}_temp_path {folder}/{kind}; " for kind in kinds)}
    server {{
        listen 127.0.0.1:{port};
        {lines}
    }}
}}
""")
    flags = ["-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    return [tool("nginx"), *flags, "-g", "daemon off; master_process off;"]


def nginx_under_a_path(folder: Path, port: int, *relays: int) -> list[str]:
    return nginx(folder, port, *relays, location=("docs/troubleshooting.md", "nginx under a path"))


def haproxy(folder: Path, port: int, *relays: int) -> list[str]:
    text = printed(PAGE, "haproxy", "haproxy")
    text = text.replace("bind :443 ssl crt /etc/haproxy/relay.example.com.pem", f"bind 127.0.0.1:{port}")
    text = text.replace("inter 1s", "inter 100ms")  # no test has a second to spare
    line = "    server relay 127.0.0.1:8080\n"
    assert line in text
    text = text.replace(line, "".join(line.replace("8080", str(r)).replace("relay", f"relay-{r}") for r in relays))
    (folder / "haproxy.cfg").write_text(text)
    return [tool("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


Proxy = Callable[..., list[str]]
PATHS = {nginx_under_a_path: "/tunnel"}  # of the relay, where it is not all of the server


@contextlib.asynccontextmanager
async def running(proxy: Proxy, folder: Path, *relays: int) -> AsyncIterator[int]:
    """The port of the proxy, once it answers."""
    port = free_port()
    with (folder / "output").open("wb") as output:
        child = await asyncio.create_subprocess_exec(*proxy(folder, port, *relays), stdout=output, stderr=output)

    async def answers() -> bool:
        with contextlib.suppress(OSError):
            reader, writer = await connect(port)
            path = f"{PATHS.get(proxy, '')}/readyz"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            await close(writer)
            return answer.startswith(b"HTTP/1.1 200 ")
        return False

    try:
        async with asyncio.timeout(20):
            while not await answers():
                assert child.returncode is None, (folder / "output").read_text()
                await asyncio.sleep(0.05)
        yield port
    finally:
        child.terminate()
        await child.wait()


@pytest.mark.parametrize("proxy", [nginx, nginx_under_a_path, haproxy])
async def test_a_tunnel_through_it(proxy: Proxy, tmp_path: Path) -> None:
    """Bytes go through, and the relay knows the client's address, whatever the client says itself."""
    path = PATHS.get(proxy, "")
    async with (
        serve(echo) as target,
        System(trusted_proxy=("127.0.0.1/32",)) as system,
        running(proxy, tmp_path, system.relay.port) as port,
    ):
        local = await system.pair(target, relay=f"ws://127.0.0.1:{port}{path}")
        await exchange(local, 300_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        headers = handshake() | bearer("host", "other") | {"Host": "x", "X-Forwarded-For": "192.0.2.7"}
        lines = [f"GET {path}/host/other HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        assert b" 101 " in await reader.readline()
        await until(lambda: [x for x in system.events("leg opened") if x["tunnel"] == "other"])
        (leg,) = [line for line in system.events("leg opened") if line["tunnel"] == "other"]
        assert leg["address"] == "127.0.0.2"
        await close(writer)


async def test_a_second_relay_takes_over_without_a_pause(tmp_path: Path) -> None:
    """As the page says: the second one is there, then the first is stopped, and waits until a stream has found it."""
    settings: Any = {"drain": 25.0, "drain_alone": 10.0, "trusted_proxy": ("127.0.0.1/32",)}
    async with serve(echo) as target, System(**settings) as old:
        second = free_port()
        async with running(haproxy, tmp_path, old.relay.port, second) as port:
            local = await old.pair(target, relay=f"ws://127.0.0.1:{port}")
            streams = [await connect(local) for _ in range(5)]
            await until(lambda: len(old.events("stream opened")) == 10)
            async with System(**settings, port=second) as new:
                await old.relay.stop()
                for reader, writer in streams:
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"
                    await close(writer)
                # Logs of both systems go where the newest configured them.
                assert [line["left"] for line in new.events("drained")] == [0]
                assert not new.events("leg lost")
                await old.stop_agents()
