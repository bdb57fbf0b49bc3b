"""Public ports: who is let in, where he is led, and what he hears while nobody is there."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
from typing import Any

import pytest
from client_agent import visitor
from client_agent.gateway import Gateway
from client_agent.service import ClientAgent
from client_agent.settings import Allowed, ClientSettings, Forward
from proxyprotocol.result import ProxyResultIPv4
from proxyprotocol.v2 import ProxyProtocolV2
from support.apps import Streams, close, connect, echo, exchange, reset, serve, until
from support.metrics import Metrics
from support.system import System, token
from support.visitors import STATUS_REQUEST, client_hello, handshake, legacy_ping
from tunnel_core.errors import UsageError
from tunnel_core.protocol.routes import parse_route
from tunnel_core.protocol.sniff.reader import LIMIT
from tunnel_core.service.settings import Secret

PING = b"\x09\x01" + b"12345678"


def gateway_of(agent: ClientAgent) -> Gateway:
    """The gateway of an agent that has one."""
    assert agent._gateway is not None
    return agent._gateway


async def public(system: System, *, tunnel: str = "mc", **settings: Any) -> ClientAgent:
    """A gateway with one public port."""
    return await system.client(public=(Forward("127.0.0.1", 0, tunnel),), **settings)


async def shared(system: System, *routes: str, **settings: Any) -> ClientAgent:
    """A gateway with one port for the tunnels of these routes."""
    listens = (Forward("127.0.0.1", 0, ""),)
    return await system.client(shared=listens, route=tuple(map(parse_route, routes)), **settings)


async def ends(streams: Streams) -> str:
    """How the other side ends a connection."""
    reader, writer = streams
    try:
        return "closed" if await reader.read() == b"" else "answered"
    except ConnectionResetError:
        return "reset"
    finally:
        await close(writer)


async def says(port: int, data: bytes, size: int = -1) -> bytes:
    """What comes back for `data`: so many bytes, or all."""
    reader, writer = await connect(port)
    writer.write(data)
    got = await (reader.read() if size < 0 else reader.readexactly(size))
    await close(writer)
    return got


async def turned_away(system: System, reason: str) -> None:
    """Somebody was, for this reason, and the log tells it."""
    await until(lambda: any(line["reason"] == reason for line in system.events("visitor turned away")))


async def test_a_public_port_is_an_honest_byte_pipe(loop_factory: Any) -> None:
    """Of any protocol, also of one whose server speaks first; visitors' addresses are in the logs of all three."""

    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await echo(reader, writer)

    async with serve(greets) as target, System() as system:
        await system.host({"mc": target})
        agent = await public(system)
        reader, writer = await connect(agent.ports[0])
        assert await reader.readline() == b"220 ready\r\n"
        source = "{}:{}".format(*writer.get_extra_info("sockname")[:2])
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        await close(writer)
        await until(lambda: not gateway_of(agent)._visitors)
        for event, times in (("stream opening", 1), ("paired", 1), ("stream opened", 2), ("stream closed", 2)):
            await until(lambda: len(system.events(event)) == times)
            assert {line["client"] for line in system.events(event)} == {source}, event
    with pytest.raises(ConnectionRefusedError):
        await connect(agent.ports[0])


async def test_names_lead_to_tunnels(loop_factory: Any) -> None:
    """By Minecraft, TLS or HTTP, in one piece or byte by byte; what was looked at arrives unchanged."""
    seen: dict[str, list[bytes]] = {"mc": [], "web": [], "lobby": []}

    def sees(name: str) -> Any:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen[name].append(await reader.read())
            writer.write(name.encode())

        return handler

    said = {
        "mc": [handshake("MC.example.com.\0FML2\0"), legacy_ping("mc.example.com")],
        "web": [client_hello("web.example.com"), b"GET / HTTP/1.1\r\nHost: web.example.com\r\n\r\n" + bytes(100_000)],
        "lobby": [handshake("lobby.play.example.com") + bytes(10_000)],
    }
    async with contextlib.AsyncExitStack() as stack:
        targets = {name: await stack.enter_async_context(serve(sees(name))) for name in seen}
        system = await stack.enter_async_context(System())
        await system.host(targets)
        agent = await shared(system, "mc.example.com=mc", "web.example.com=web", "*.play.example.com")
        for name, wires in said.items():
            for wire in wires:
                for step in (len(wire), 1):
                    reader, writer = await connect(agent.ports[0])
                    for at in range(0, min(len(wire), 50 * step), step):
                        writer.write(wire[at : at + step])
                        await writer.drain()
                    writer.write(wire[50 * step :])
                    writer.write_eof()
                    assert await reader.read() == name.encode()
                    await close(writer)
                    assert seen[name].pop() == wire
        assert list(gateway_of(agent)._made) == ["lobby"]


@pytest.mark.parametrize(
    "wire",
    [
        handshake("other.example.com"),
        client_hello(None),
        b"GET / HTTP/1.1\r\nHost: other\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\xfe\x01",
        b"G" * (LIMIT + 1),
    ],
)
async def test_a_name_that_leads_nowhere_ends_there(loop_factory: Any, wire: bytes) -> None:
    """No tunnel is touched."""
    async with System() as system:
        agent = await shared(system, "mc.example.com=mc", admin_port=0)
        reader, writer = await connect(agent.ports[0])
        writer.write(wire)
        assert await ends((reader, writer)) == "reset"
        await turned_away(system, "no-route")
        assert not system.events("stream opening")
        assert agent.admin is not None
        metrics = await Metrics.scrape(agent.admin.port)
        assert metrics.value("tunnel_gateway_turned_away_total", reason="no-route") == 1
        assert metrics.value("tunnel_gateway_visitors") == 0


async def test_who_says_nothing_is_not_waited_for(loop_factory: Any) -> None:
    """Nor who begins and stops; who leaves before is no trouble."""
    async with System() as system:
        agent = await shared(system, "mc.example.com=mc", first_byte_timeout=0.2)
        for begun in (b"", handshake("mc.example.com")[:-1]):
            reader, writer = await connect(agent.ports[0])
            writer.write(begun)
            assert await ends((reader, writer)) == "reset"
        await turned_away(system, "first-byte-timeout")
        for leave in (reset, lambda writer: writer.write_eof()):
            reader, writer = await connect(agent.ports[0])
            leave(writer)
            await close(writer)
        await turned_away(system, "left")
        await until(lambda: not gateway_of(agent)._visitors)
        assert not len(gateway_of(agent).limits)


# Limits.


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_connections": 2}, "connections"),
        ({"max_per_tunnel": 2}, "per-tunnel"),
        ({"max_per_address": 2}, "per-address"),
        ({"rate_per_address": 2}, "rate"),
    ],
)
async def test_one_too_many_is_reset(loop_factory: Any, settings: dict[str, Any], reason: str) -> None:
    """Those inside are none the worse; once one has left there is room, but for who comes too often."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        agent = await public(system, **settings)
        inside = [await connect(agent.ports[0]) for _ in range(2)]
        for reader, writer in inside:
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
        assert await ends(await connect(agent.ports[0])) == "reset"
        await turned_away(system, reason)
        for reader, writer in inside:
            writer.write(b"again")
            assert await reader.readexactly(5) == b"again"
        await close(inside[0][1])
        await until(lambda: len(gateway_of(agent)._visitors) == 1)
        if reason != "rate":
            await exchange(agent.ports[0], 1000)
        await close(inside[1][1])


async def test_only_from_where_it_is_allowed(loop_factory: Any) -> None:
    """A tunnel of which nothing is said is for everybody."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target, "db": target})
        agent = await system.client(
            public=(Forward("127.0.0.1", 0, "mc"), Forward("127.0.0.1", 0, "db")),
            allow=(Allowed("db", ipaddress.ip_network("192.0.2.0/24")),),
        )
        await exchange(agent.ports[0], 1000)
        assert await ends(await connect(agent.ports[1])) == "reset"
        await turned_away(system, "not-allowed")


# Proxies.


async def told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says who connects, by the header that comes before all else; then it echoes."""
    head = await reader.readexactly(16)
    result = ProxyProtocolV2().unpack(head + await reader.readexactly(int.from_bytes(head[14:])))
    assert isinstance(result, ProxyResultIPv4)
    writer.write(f"{result.source[0]}:{result.source[1]}\n".encode())
    await echo(reader, writer)


V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 51234 25565\r\n"
V2 = ProxyProtocolV2().pack(
    ProxyResultIPv4(
        (ipaddress.IPv4Address("203.0.113.7"), 51234),
        (ipaddress.IPv4Address("192.0.2.1"), 25565),
        protocol=socket.SOCK_STREAM,
    )
)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("by_name", [False, True])
async def test_a_proxys_word_goes_to_the_target(loop_factory: Any, header: bytes, by_name: bool) -> None:
    """From where it is believed; there it is required."""
    async with serve(told) as target, System() as system:
        await system.host({"mc": target}, proxy_protocol=("mc",))
        trusted = (ipaddress.ip_network("127.0.0.0/8"),)
        opens = shared_mc if by_name else public
        agent = await opens(system, proxy_protocol_from=trusted)
        said = handshake("mc.example.com")
        for wires in ([header + said], [header[:5], header[5:], said]):
            reader, writer = await connect(agent.ports[0])
            for wire in wires:
                writer.write(wire)
                await writer.drain()
            assert await reader.readline() == b"203.0.113.7:51234\n"
            assert await reader.readexactly(len(said)) == said
            await close(writer)
        streams = await connect(agent.ports[0])
        streams[1].write(said)
        assert await ends(streams) == "reset"
        await turned_away(system, "proxy-header")


async def shared_mc(system: System, **settings: Any) -> ClientAgent:
    """A shared port for one name."""
    return await shared(system, "mc.example.com=mc", **settings)


async def test_a_header_from_elsewhere_is_bytes_like_any_other(loop_factory: Any) -> None:
    """The target hears who really connects."""
    async with serve(told) as target, System() as system:
        await system.host({"mc": target}, proxy_protocol=("mc",))
        agent = await public(system, proxy_protocol_from=(ipaddress.ip_network("192.0.2.0/24"),))
        reader, writer = await connect(agent.ports[0])
        writer.write(V1)
        source = "{}:{}\n".format(*writer.get_extra_info("sockname")[:2])
        assert await reader.readline() == source.encode()
        assert await reader.readline() == V1
        await close(writer)


async def test_a_plain_clients_token_names_nobody(loop_factory: Any) -> None:
    """The gateway works with it; the target hears the address of the gateway's own legs."""
    async with serve(told) as target, System() as system:
        await system.host({"mc": target}, proxy_protocol=("mc",))
        agent = await public(system, token=Secret(token("client")), secret=Secret())
        reader, writer = await connect(agent.ports[0])
        assert await reader.readline() == b"127.0.0.1:0\n"
        await close(writer)
        assert system.events("visitors are not named")


# Asleep.


def status_in(answer: bytes) -> dict[str, Any]:
    """The JSON in a status answer."""
    found: dict[str, Any] = json.loads(answer[answer.index(b'{"') : answer.rindex(b"}") + 1])
    return found


@pytest.mark.parametrize("opens", [public, shared_mc], ids=["public", "shared"])
async def test_a_server_that_is_away_is_asleep(loop_factory: Any, opens: Any) -> None:
    """To Minecraft, in words, for the list of servers and for who logs in; anybody else is reset."""
    async with System(wait=0.2) as system:
        agent = await opens(system)
        port = agent.ports[0]
        asks = handshake("mc.example.com", 1) + STATUS_REQUEST
        for _ in range(2):  # after a wait for the host, and then at once
            reader, writer = await connect(port)
            writer.write(asks)
            answer = await reader.readuntil(b"}}")
            assert status_in(answer)["description"] == {"text": "The server is asleep."}
            writer.write(PING)
            assert await reader.read() == PING
            await close(writer)
        assert b"The server is asleep." in await says(port, handshake("mc.example.com") + b"\x06\0\x04alex")
        if opens is public:
            streams = await connect(port)
            streams[1].write(b"SSH-2.0-x\r\n")
            assert await ends(streams) == "reset"
            assert "asleep".encode("utf-16-be") in await says(port, b"\xfe\x01")
        await until(lambda: not gateway_of(agent)._visitors)
        assert not len(gateway_of(agent).limits)


async def test_a_server_that_is_back_is_awake(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One visitor waits for it now and then."""
    monkeypatch.setattr("client_agent.tunnel.ASK_AGAIN", 0.0)
    async with serve(echo) as target, System(wait=0.2) as system:
        agent = await shared_mc(system)
        said = handshake("mc.example.com")
        assert b"asleep" in await says(agent.ports[0], said)
        await system.host({"mc": target})
        assert await says(agent.ports[0], said, len(said)) == said


async def test_who_does_not_listen_is_not_waited_for(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of somebody who stays, whatever he was told."""
    monkeypatch.setattr(visitor, "ASLEEP_PATIENCE", 0.2)
    async with System(wait=0.1) as system:
        agent = await public(system)
        reader, writer = await connect(agent.ports[0])
        writer.write(handshake("mc.example.com", 1))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)
        await until(lambda: not gateway_of(agent)._visitors)


# Names that strangers choose.


async def test_tunnels_of_a_pattern_come_and_go(loop_factory: Any) -> None:
    """They are bounded by the token, and let go of when nobody is in them; a denied one harms nobody else."""
    async with serve(echo) as target, System(wait=0.1) as system:
        await system.host({"mc": target})
        gateway = Secret(token("gateway", "mc", "lobby"))
        agent = await shared(system, "*.example.com", token=gateway, secret=Secret())
        said = handshake("mc.example.com")
        assert await says(agent.ports[0], said, len(said)) == said
        assert b"asleep" in await says(agent.ports[0], handshake("lobby.example.com"))
        streams = await connect(agent.ports[0])
        streams[1].write(handshake("secret.example.com"))
        assert await ends(streams) == "reset"
        await turned_away(system, "no-route")
        made = gateway_of(agent)._made
        assert set(made) == {"mc", "lobby"}
        await until(lambda: not agent._load.sessions)
        for leg in tuple(made["mc"]._free):
            leg.close(1000)
        await until(lambda: all(tunnel.idle for tunnel in made.values()))
        gateway_of(agent).tick()
        assert not made


# The end.


async def test_visitors_may_stay_while_it_drains(loop_factory: Any) -> None:
    """Nobody new is let in; it stops when the last has left."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        agent = await public(system)
        reader, writer = await connect(agent.ports[0])
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        stopping = asyncio.create_task(system.stop(agent))
        await until(lambda: system.events("draining"))
        assert agent.readiness()
        with pytest.raises(ConnectionRefusedError):
            await connect(agent.ports[0])
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"
        assert not stopping.done()
        await close(writer)
        await stopping


async def test_a_drain_has_an_end(loop_factory: Any) -> None:
    """Who is still inside then is reset."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        agent = await public(system, drain=0.2)
        streams = await connect(agent.ports[0])
        streams[1].write(b"hello")
        assert await streams[0].readexactly(5) == b"hello"
        await system.stop(agent)
        assert await ends(streams) == "reset"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shared": (Forward("", 1, ""),)}, "--shared and --route need each other"),
        ({"public": (Forward("", 1, "mc"),), "route": (parse_route("*.x"),)}, "--shared and --route need each other"),
        (
            {"public": (Forward("", 1, "mc"),), "allow": (Allowed("db", ipaddress.ip_network("::/0")),)},
            "--allow: no public port leads to 'db'",
        ),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], said: str) -> None:
    """One line says what to write."""
    with pytest.raises(UsageError, match=said):
        ClientSettings(relay="ws://127.0.0.1", **settings).check()
