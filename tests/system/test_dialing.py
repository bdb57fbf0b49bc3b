"""How agents find the relay: TLS, proxies, names, and relays that are away or are none."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import re
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.apps import Handler, close, connect, echo, exchange, serve, until
from support.proxies import Proxy, proxy
from support.system import System
from support.tls import Authority, join, pipe, terminating
from support.wire import Wire
from tunnel_core.agent.times import AgentTimes
from tunnel_core.net import dialer, names, ports
from tunnel_core.net.address import Address
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.service.settings import Secret
from websockets.frames import Frame, Opcode

MIB = 1 << 20


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority."""
    return Authority(tmp_path)


def reasons(system: System) -> list[str]:
    """Why the relay was unreachable, each reason once."""
    return list(dict.fromkeys(line["reason"] for line in system.events("relay unreachable")))


def failures(system: System) -> int:
    """How many dials have failed."""
    (agent,) = system.agents
    return int(agent.context.metrics.dial_failures._value.get())


# TLS.


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_tls_with_a_given_authority(loop_factory: Any, authority: Authority, name: str) -> None:
    """--ca-file: both agents come over wss://, and bytes are as they were."""
    async with (
        serve(echo) as target,
        System() as system,
        terminating(system.relay.port, authority.context(name)) as port,
    ):
        url = f"wss://{name}:{port}"
        await system.host({"mc": target}, relay=url, ca_file=str(authority.file))
        client = await system.client("mc", relay=url, ca_file=str(authority.file))
        async with asyncio.TaskGroup() as group:
            for seed in range(4):
                group.create_task(exchange(client.ports[0], 2 * MIB, seed))
        await system.stop_agents()


async def test_a_certificate_that_is_not_trusted(loop_factory: Any, authority: Authority, tmp_path: Path) -> None:
    """One clear line with what to do, and another try: certificates are renewed."""
    other = Authority(tmp_path, "other")
    async with System() as system:
        async with terminating(system.relay.port, other.context("127.0.0.1")) as port:
            url = f"wss://127.0.0.1:{port}"
            client = await system.client("mc", relay=url, ca_file=str(authority.file), wait=False)
            await until(lambda: failures(system) >= 3)
            (reason,) = reasons(system)
            assert reason.startswith(f"the certificate of {url} is not trusted (")
            assert reason.endswith("): its CA is not the one of --ca-file")
        async with terminating(system.relay.port, authority.context("127.0.0.1"), listen=port):
            await until(lambda: not client.readiness())
            assert len(system.events("relay reachable")) == 1
            await system.stop(client)


async def test_a_certificate_of_another_name(loop_factory: Any, authority: Authority) -> None:
    """Trusted, but somebody else's."""
    async with System() as system, terminating(system.relay.port, authority.context("relay.test")) as port:
        url = f"wss://127.0.0.1:{port}"
        client = await system.client("mc", relay=url, ca_file=str(authority.file), wait=False)
        await until(lambda: reasons(system))
        assert "not valid for '127.0.0.1'" in reasons(system)[0]
        await system.stop(client)


async def test_tls_to_a_port_without(loop_factory: Any, authority: Authority) -> None:
    """wss:// where ws:// was meant: a clear line at once, and another try."""
    async with System() as system:
        url = f"wss://127.0.0.1:{system.relay.port}"
        await system.client("mc", relay=url, ca_file=str(authority.file), wait=False)
        await until(lambda: failures(system) >= 2)
        assert re.fullmatch(rf"no TLS with {url} \(\w+\): is it ws:// there, or another port\?", reasons(system)[0])


# Proxies.


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets variables that tell of proxies, and no others."""

    def set_variables(**variables: str) -> None:
        for name in ("http", "https", "ws", "wss", "socks", "all", "no"):
            for variable in (f"{name}_proxy", f"{name}_PROXY".upper()):
                monkeypatch.delenv(variable, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


def all_tuned(system: System) -> int:
    """Check the sockets of all legs and streams; returns how many there are."""
    transports = [leg._transport for leg in system.relay.pairing.legs]
    for agent in system.agents:
        transports += [leg._transport for leg in agent.context.monitor._legs]
        transports += [session.stream.local._transport for session in agent.sessions()]
    for transport in transports:
        assert transport is not None
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
            assert sock.getsockopt(socket.IPPROTO_TCP, option) == value
    return len(transports)


@pytest.mark.parametrize("kind", ["http", "socks"])
@pytest.mark.parametrize("login", ["", "alex:pass"])
async def test_through_a_proxy(loop_factory: Any, through: Callable[..., None], kind: str, login: str) -> None:
    """From the environment, with and without a login."""
    async with serve(echo) as target, System() as system, proxy(kind, login=login) as by:
        through(**variables(kind, by, login))
        await system.host({"mc": target})
        client = await system.client("mc")
        await exchange(client.ports[0], MIB)
        assert by.asked
        assert set(by.asked) == {f"127.0.0.1:{system.relay.port}"}
        assert all_tuned(system)
        await system.stop_agents()
        assert "pass" not in system.raw_log.replace("password", "")


def variables(kind: str, by: Proxy, login: str = "") -> dict[str, str]:
    """What points to a proxy."""
    scheme = "http" if kind == "http" else "socks5h"
    return {f"{kind}_proxy": f"{scheme}://{login}{'@' if login else ''}127.0.0.1:{by.port}"}


@pytest.mark.parametrize("kind", ["http", "socks"])
async def test_tls_through_a_proxy_that_resolves_names(
    loop_factory: Any, through: Callable[..., None], authority: Authority, kind: str
) -> None:
    """A name that only the proxy knows; TLS goes through it to the relay."""
    async with (
        serve(echo) as target,
        System() as system,
        terminating(system.relay.port, authority.context("relay.test")) as port,
        proxy(kind, leads_to=port) as by,
    ):
        through(**{"https_proxy" if kind == "http" else "socks_proxy": next(iter(variables(kind, by).values()))})
        await system.host({"mc": target}, relay="wss://relay.test", ca_file=str(authority.file))
        client = await system.client("mc", relay="wss://relay.test", ca_file=str(authority.file))
        await exchange(client.ports[0], MIB)
        assert set(by.asked) == {"relay.test:443"}
        await system.stop_agents()


@pytest.mark.parametrize("secure", [False, True])
async def test_through_a_proxy_behind_tls(
    loop_factory: Any, through: Callable[..., None], authority: Authority, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    """TLS to the proxy, with or without TLS to the relay in it. An untrusted proxy is named as such."""
    async with (
        serve(echo) as target,
        System() as system,
        terminating(system.relay.port, authority.context("127.0.0.1")) as port,
        proxy("http") as by,
        terminating(by.port, authority.context("127.0.0.1")) as door,
    ):
        relay = f"wss://127.0.0.1:{port}" if secure else f"ws://127.0.0.1:{system.relay.port}"
        settings: dict[str, Any] = {"relay": relay, "ca_file": str(authority.file)}
        through(all_proxy=f"https://127.0.0.1:{door}")
        host = await system.host({"mc": target}, wait=False, **settings)
        await until(lambda: reasons(system))
        assert reasons(system)[0].startswith(f"no TLS with the proxy 127.0.0.1:{door}: ")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        await until(lambda: not host.readiness())
        client = await system.client("mc", **settings)
        await exchange(client.ports[0], MIB)
        assert set(by.asked) == {relay.rpartition("/")[2]}
        await system.stop_agents()


async def test_a_proxy_that_answers_in_pieces(loop_factory: Any, through: Callable[..., None]) -> None:
    """Nothing of its answer is taken for the relay's."""

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in (b"HTTP/1.1 200 OK\r\n", b"Via: x\r", b"\n\r", b"\n"):
            writer.write(piece)
            await asyncio.sleep(0.01)
        await join(reader, writer, system.relay.port)

    async with System() as system, serve(answers) as port:
        through(http_proxy=f"http://127.0.0.1:{port}")
        await system.client("mc")
        await system.stop_agents()
        assert not reasons(system)


async def test_no_proxy(loop_factory: Any, through: Callable[..., None]) -> None:
    """Names that go without."""
    async with System() as system, proxy("http") as by:
        through(http_proxy=f"http://127.0.0.1:{by.port}", no_proxy="example.com,127.0.0.1")
        await system.client("mc")
        assert not by.asked


@pytest.mark.parametrize("kind", ["http", "socks"])
async def test_a_proxy_that_refuses(loop_factory: Any, through: Callable[..., None], kind: str) -> None:
    """A clear line without the password, and another try."""
    async with System() as system, proxy(kind, login="alex:right") as by:
        through(**variables(kind, by, "alex:wrong-password"))
        await system.client("mc", wait=False)
        await until(lambda: by.refused >= 2 and reasons(system))
        assert reasons(system)[0].startswith(f"the proxy 127.0.0.1:{by.port} refuses the user name or the password: ")
        assert "wrong-password" not in system.raw_log
        assert not by.asked


async def test_a_proxy_that_leaves(loop_factory: Any, through: Callable[..., None]) -> None:
    """Without a word, or in the middle of one: a clear line, and another try."""
    for says in (b"", b"HTTP/1.1 407 Proxy Auth"):

        async def leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(says)  # one at a time

        async with serve(leaves) as port, System() as system:
            through(http_proxy=f"http://127.0.0.1:{port}")
            await system.client("mc", wait=False)
            await until(lambda: failures(system) >= 3)
            assert reasons(system)[0] == f"the proxy 127.0.0.1:{port} hung up: no whole answer: is it a proxy?"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "asks for a user name and a password: write both in"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\nno", "does not connect to RELAY: HTTP 403 Forbidden: have it let you out"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "does not connect to RELAY: HTTP 502 Bad Gateway: it does not reach"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "is no HTTP proxy"),
    ],
)
async def test_what_a_proxy_answers(
    loop_factory: Any, through: Callable[..., None], answer: bytes, expected: str
) -> None:
    """Each refusal is told as the proxy's, with its own advice."""

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with serve(refuses) as port, System() as system:
        through(http_proxy=f"http://127.0.0.1:{port}")
        await system.client("mc", wait=False)
        await until(lambda: reasons(system))
        expected = expected.replace("RELAY", f"127.0.0.1:{system.relay.port}")
        assert f"127.0.0.1:{port} {expected}" in reasons(system)[0]


async def test_a_proxy_that_is_not_there(loop_factory: Any, through: Callable[..., None]) -> None:
    """It is the proxy that is named, by its name too; and a variable that names none at all is told of."""
    for url, expected in (
        ("http://127.0.0.1:1", "the proxy 127.0.0.1:1 cannot be reached: Connection refused: mend the variable"),
        ("socks5://127.0.0.1:1", "the proxy 127.0.0.1:1 cannot be reached: Connection refused: mend the variable"),
        ("https://127.0.0.1:1", "the proxy 127.0.0.1:1 cannot be reached: Connection refused: mend the variable"),
        ("nonsense", "no way to"),
        ("gopher://alex:hunter2@127.0.0.1:1", "no way to"),
        ("http://127.0.0.1:x", "no way to"),
    ):
        through(http_proxy=url)
        async with System() as system:
            await system.client("mc", wait=False)
            await until(lambda: failures(system) >= 2)
            assert reasons(system)[0].startswith(expected), url
            assert "hunter2" not in system.raw_log


async def test_one_proxy_for_everything(loop_factory: Any, through: Callable[..., None]) -> None:
    """all_proxy counts where no other variable does; no_proxy beats it."""
    async with System() as system, proxy("socks") as by:
        through(all_proxy=f"socks://127.0.0.1:{by.port}")
        await system.client("mc")
        assert by.asked
        by.asked.clear()
        through(all_proxy=f"socks://127.0.0.1:{by.port}", no_proxy="127.0.0.1")
        await system.client("mc")
        assert not by.asked


# Relays that are none, or not now.


async def test_a_relay_that_never_answers(loop_factory: Any) -> None:
    """It takes the connection and is silent: each dial has an end, and the last one succeeds."""
    async with System(agents=AgentTimes(dial=0.3)) as system, Wire(system.relay.port) as wire:
        wire.freeze()
        url = f"ws://127.0.0.1:{wire.port}"
        client = await system.client("mc", relay=url, wait=False)
        await until(lambda: failures(system) >= 2)
        assert reasons(system)[0] == f"no answer from {url} within 0.3 s"
        wire.thaw()
        await until(lambda: not client.readiness())


def http(status: str, body: str = "", *headers: str) -> bytes:
    """A whole HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


ANSWERS = {
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "cannot reach URL: what answers there speaks no HTTP"),
    "nothing": (b"", "cannot reach URL: "),
    "a page": (
        http("403 Forbidden", "<html>\nhello"),
        "URL answered HTTP 403: Forbidden: not the relay, but something",
    ),
    "full": (http("503 Service Unavailable", "full\x1b[2J", "Retry-After: 0"), "URL answered HTTP 503: full[2J"),
    "a login": (
        http("302 Found", "", "Location: /login?token=hunter2"),
        "URL answered HTTP 302: it sends to HTTP/login: something before the relay asks for a login",
    ),
    "endless": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "cannot reach URL: "),
}  # the others: unit/net/test_refusals.py


@pytest.mark.parametrize("answer", ANSWERS)
async def test_another_server_than_a_relay(loop_factory: Any, answer: str) -> None:
    """A clear line, and another try: it may be the platform's own page while the relay starts."""
    response, expected = ANSWERS[answer]

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()

    async with serve(serves) as port, System() as system:
        url = f"ws://127.0.0.1:{port}"
        client = await system.client("mc", relay=url, wait=False)
        await until(lambda: failures(system) >= 3)
        expected = expected.replace("URL", url).replace("HTTP/", f"http://127.0.0.1:{port}/")
        assert reasons(system)[0].startswith(expected)
        assert "hunter2" not in system.raw_log
        assert len(reasons(system)) == 1
        assert not client.failed.done()


async def test_retry_after_is_respected(loop_factory: Any) -> None:
    """A relay that drains says when to come again."""

    async def drains(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http("503 Service Unavailable", "the relay is about to stop", "Retry-After: 30"))

    async with serve(drains) as port, System() as system:
        client = await system.client("mc", relay=f"ws://127.0.0.1:{port}", wait=False)
        await until(lambda: failures(system) >= 1)
        assert 20 < client.context.dialer._outage.wait(time.monotonic()) <= 30


async def test_one_dial_at_a_time_looks_for_a_relay_that_is_away(loop_factory: Any) -> None:
    """However many legs are wanted; before that, only so many at once."""
    now = most = begun = 0
    probes: list[int] = []  # how many were under way when each began, once all of the first had failed
    released = asyncio.Event()

    async def turns_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most, begun
        now, begun = now + 1, begun + 1
        most = max(most, now)
        if released.is_set():
            probes.append(now)
            await asyncio.sleep(0.02)
        else:
            await released.wait()
        now -= 1

    async with serve(turns_away) as port, System() as system:
        await system.host({"mc": 1, "db": 1}, relay=f"ws://127.0.0.1:{port}", wait=False, warm=20)
        await until(lambda: begun == dialer.AT_ONCE)
        await asyncio.sleep(0.1)
        assert begun == most == dialer.AT_ONCE, "no more at once"
        released.set()
        await until(lambda: now == 0)
        probes.clear()
        await until(lambda: len(probes) >= 5)
        assert set(probes) == {1}


async def test_an_unforeseen_error_is_no_busy_loop(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is told, and the next dial waits as after any other failure."""
    told: list[dict[str, Any]] = []
    calls = 0
    handshake = dialer.Dialer._handshake

    async def breaks(self: dialer.Dialer, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= 8:
            raise RuntimeError("boom")
        return await handshake(self, *arguments)

    monkeypatch.setattr(dialer.Dialer, "_handshake", breaks)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with System() as system:
        client = await system.client("mc", wait=False, warm=1)
        await until(lambda: calls >= 3)
        assert client.context.dialer._outage.active
        await until(lambda: not client.readiness())
        assert [str(context["exception"]) for context in told] == ["boom"] * 8


# What something before the relay asks for.


def gate(heads: list[str], port: int) -> Handler:
    """Lets through to a port who brings the header, and keeps what was brought."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head.decode())
        if b"\r\nCF-Access-Client-Secret: hunter2\r\n" not in head:
            writer.write(http("302 Found", "", "Location: /login"))
            return
        there, back = await connect(port)
        back.write(head)
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    return handle


async def test_headers_for_what_stands_before_the_relay(loop_factory: Any, tmp_path: Path) -> None:
    """From flags and a file, which is read anew at each dial; the log has no value of them."""
    heads: list[str] = []
    file = tmp_path / "headers"
    file.write_text("CF-Access-Client-Secret: wrong\n")
    async with serve(echo) as target, System() as system, serve(gate(heads, system.relay.port)) as port:
        settings: dict[str, Any] = {"relay": f"ws://127.0.0.1:{port}", "header": Secret("User-Agent: tea/1.0", file)}
        host = await system.host({"mc": target}, wait=False, **settings)
        await until(lambda: reasons(system))
        assert "login" in reasons(system)[0]
        assert not host.failed.done()
        file.write_text("# of the operator\nCF-Access-Client-Id: alex\nCF-Access-Client-Secret: hunter2\n")
        await until(lambda: not host.readiness())
        client = await system.client("mc", **settings)
        await exchange(client.ports[0], 1000)
        assert "\r\nUser-Agent: tea/1.0\r\n" in heads[-1]
        assert "\r\nCF-Access-Client-Id: alex\r\n" in heads[-1]
        assert heads[-1].count("User-Agent") == 1
        await system.stop_agents()
        assert "hunter2" not in system.raw_log


async def test_a_relay_by_another_name(loop_factory: Any, authority: Authority) -> None:
    """--relay-host: the name in the certificate and the Host header; the way there is the URL's."""
    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(http("503 Service Unavailable"))

    async with serve(handle, context=authority.context("relay.test")) as port, System() as system:
        settings: dict[str, Any] = {"relay": f"wss://127.0.0.1:{port}/sub", "ca_file": str(authority.file)}
        await system.client("mc", relay_host="relay.test", wait=False, **settings)
        await until(lambda: heads)
        assert heads[0].startswith("GET /sub/client/mc HTTP/1.1\r\n")
        assert f"\r\nHost: relay.test:{port}\r\n" in heads[0]


# Names.


async def test_names_are_resolved_anew_at_each_dial(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that moved is found at its new address, and a target as well."""
    asked: list[str] = []
    places: dict[str, int] = {}
    resolve = names.resolve

    async def resolves(host: str, port: int) -> Any:
        if not host.endswith(".test"):
            return await resolve(host, port)
        asked.append(host)
        if host not in places:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", places[host]))]

    async def another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"another")

    async with serve(echo) as old, serve(another) as new, System() as system, contextlib.AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(Wire(system.relay.port)) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(names, "resolve", resolves)
            places.update({"server.test": old})
            url = "ws://relay.test:1"
            host = await system.host({"mc": Address("server.test", 1)}, relay=url, wait=False)
            await until(lambda: failures(system) >= 1)
            assert reasons(system) == [f"cannot reach {url}: Name or service not known"]
            places["relay.test"] = first.port
            await until(lambda: not host.readiness())
            places["relay.test"] = second.port
            first.shut()
            first.cut()
            await until(lambda: second.carried and not host.readiness())
            client = await system.client("mc")
            await exchange(client.ports[0], 1000)
            places["server.test"] = new
            reader, writer = await connect(client.ports[0])
            assert await reader.read() == b"another"
            await close(writer)
            del places["server.test"]
            reader, writer = await connect(client.ports[0])
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await close(writer)
            # The stream before it may end after it.
            assert "the target's name was not found" in [line["reason"] for line in system.events("stream closed")]
            assert asked.count("server.test") == 3


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_every_socket_is_tuned(loop_factory: Any, name: str) -> None:
    """No Nagle, and keepalive: legs at both ends, the local connection and the target's."""
    async with serve(echo) as target, System() as system:
        port = await system.pair(Address(name, target), relay=f"ws://{name}:{system.relay.port}")
        reader, writer = await connect(port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert all_tuned(system) >= 6
        await close(writer)


SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text()) if sys.platform == "linux" else 0


def backlog(sock: socket.socket) -> int:
    """How many connections may wait to be accepted: of a socket that listens, TCP_INFO tells it (tcpi_sacked)."""
    return int(struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64), 28)[0])


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells")
async def test_a_rush_of_connections_waits_to_be_accepted(loop_factory: Any) -> None:
    """1,024 of them, or what the system allows: at the relay's ports and at the client-agent's."""
    async with System() as system:
        client = await system.client("mc")
        listening = [
            *system.relay._server._socks,
            *system.relay._admin._server._socks,
            *client._listeners[0]._sockets,
        ]
        assert [backlog(sock) for sock in listening] == [min(ports.BACKLOG, SOMAXCONN)] * 3


@contextlib.asynccontextmanager
async def full() -> AsyncIterator[int]:
    """A port that answers nobody: as many wait there as it lets wait, and nobody accepts them."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


async def test_a_target_that_does_not_answer(loop_factory: Any) -> None:
    """Its client is refused in time, with the reason in the log."""
    async with full() as target, System() as system:
        await system.host({"mc": target}, target_timeout=0.2)
        port = (await system.client("mc")).ports[0]
        reader, writer = await connect(port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)
        assert system.events("stream closed")[-1]["reason"] == "the target did not answer in time"
        assert system.events("target refused")[-1]["error"] == "no answer in time"


# The first frames.


@contextlib.asynccontextmanager
async def fake_relay(split: Callable[[int], int]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A relay that sends its 101 and the first frames as one, cut where `split` says, a leg after the other.

    Gives its port, and what each leg brought.
    """
    brought: list[bytes] = []
    numbers = itertools.count()

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        (key,) = (line.partition(": ")[2] for line in head if line.lower().startswith("sec-websocket-key"))
        accept = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        response = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {base64.b64encode(accept).decode()}\r\n"
            f"Sec-WebSocket-Protocol: tcp-ws-tunnel.v1\r\nTunnel-Leg: {new_id()}\r\n\r\n"
        ).encode()
        frames = [
            Frame(Opcode.TEXT, b'{"type":"paired","peer":"192.0.2.1","raw":true}'),
            Frame(Opcode.BINARY, b"first words"),
            Frame(Opcode.PING, b"?"),
            Frame(Opcode.BINARY, b", and more"),
        ]
        wire = response + b"".join(frame.serialize(mask=False) for frame in frames)
        cut = split(next(numbers)) % len(wire)
        writer.write(wire[:cut])
        await writer.drain()
        await asyncio.sleep(0.001)  # so that the two parts arrive as two
        writer.write(wire[cut:])
        got = b""
        while not (got.count(b"first words, and more")):
            first, second = await reader.readexactly(2)
            mask = await reader.readexactly(4)
            data = await reader.readexactly(second & 0x7F)
            if first & 0x0F == Opcode.BINARY:
                got += bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
        brought.append(got)

    async with serve(serves) as port:
        yield port, brought


async def test_frames_that_come_with_the_upgrade_are_not_lost(loop_factory: Any) -> None:
    """In one segment with the response, and in two, cut at every byte."""
    length = 306  # of both together, at the least
    async with serve(echo) as target, fake_relay(lambda number: number) as (port, brought), System() as system:
        await system.host({"mc": target}, relay=f"ws://127.0.0.1:{port}", wait=False, warm=4)
        await until(lambda: len(brought) > length, patience=50)
        assert set(brought) == {b"first words, and more"}
