"""What comes beyond a limit is turned away with a word that says when to come again, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from client_agent import session
from support.apps import close, connect, echo, exchange, serve, until
from support.metrics import Metrics
from support.peer import Peer, ask, get, handshake
from support.system import System, bearer, token
from tunnel_core.protocol.endpoints import INSTANCE_KEY_HEADER, SUBPROTOCOL, new_id
from tunnel_core.service.settings import Secret
from tunnel_relay.service import RelayTimes

FROM_HERE: dict[str, Any] = {"trusted_proxy": ("127.0.0.0/8",)}


async def refusals(system: System, reason: str) -> float:
    """How many the relay has counted."""
    metrics = await Metrics.scrape(system.relay.admin_port)
    return metrics.value("relay_refusals_total", reason=reason)


@pytest.mark.parametrize(
    ("settings", "status", "reason"),
    [
        ({"max_legs": 2}, 503, "legs"),
        ({"max_legs_per_address": 2}, 429, "legs-per-address"),
        ({"max_legs_per_token": 2}, 429, "legs-per-token"),
    ],
)
async def test_a_leg_beyond_the_limit_gets_retry_after(
    loop_factory: Any, settings: dict[str, Any], status: int, reason: str
) -> None:
    """Those who are in stay; when one of them leaves, the next is let in."""
    headers = bearer("host")
    async with System(**settings) as system, contextlib.AsyncExitStack() as stack:
        port = system.relay.port
        first, second = [
            await stack.enter_async_context(await Peer.dial(port, "/host/mc", headers, v1=True)) for _ in range(2)
        ]
        answer = await get(port, "/host/mc", headers, upgrade=True)
        assert (answer.status, int(answer.headers["retry-after"]) > 0) == (status, True)
        assert await refusals(system, reason) == 1
        await close(first.writer)
        await until(lambda: len(system.relay.pairing.legs) == 1)
        third = await stack.enter_async_context(await Peer.dial(port, "/host/mc", headers, v1=True))
        await until(lambda: len(system.relay.pairing.legs) == 2)
        for peer in (second, third):
            await close(peer.writer)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Fly-Client-IP"])
async def test_behind_a_trusted_proxy_each_client_has_its_own_limit(loop_factory: Any, header: str) -> None:
    """Its address is what the proxy says, in limits, logs and what the host is told; no other header counts."""
    async with (
        System(**FROM_HERE, client_address_header=header, max_legs_per_address=1) as system,
        contextlib.AsyncExitStack() as stack,
    ):
        port = system.relay.port
        for number in range(3):
            headers = bearer("host") | {header: f"203.0.113.{number}"}
            await stack.enter_async_context(await Peer.dial(port, "/host/mc", headers))
            assert (await get(port, "/host/mc", headers, upgrade=True)).status == 429
        assert {leg.address for leg in system.relay.pairing.legs} == {f"203.0.113.{number}" for number in range(3)}
        assert {line["address"] for line in system.events("leg refused")} == {f"203.0.113.{n}" for n in range(3)}


async def test_who_is_no_trusted_proxy_is_not_believed(loop_factory: Any) -> None:
    """By default nobody is."""
    async with System(max_legs_per_address=1) as system:
        headers = bearer("host") | {"X-Forwarded-For": "203.0.113.1", "Fly-Client-IP": "203.0.113.1"}
        async with await Peer.dial(system.relay.port, "/host/mc", headers):
            headers["X-Forwarded-For"] = "203.0.113.2"
            assert (await get(system.relay.port, "/host/mc", headers, upgrade=True)).status == 429
            assert {leg.address for leg in system.relay.pairing.legs} == {"127.0.0.1"}


async def test_bad_tokens_slow_down_their_address_and_no_good_token(loop_factory: Any) -> None:
    """Who shares the address of somebody who guesses, behind a NAT or a proxy, is let in all the same."""
    async with System(**FROM_HERE, max_failed_logins=2, failed_login_refill=60.0) as system:
        port = system.relay.port
        here, there = {"X-Forwarded-For": "203.0.113.1"}, {"X-Forwarded-For": "203.0.113.2"}
        for given in ({"Authorization": "Bearer guess"}, {}):
            for _ in range(3):
                answer = await get(port, "/client/mc", here | given, upgrade=True)
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) > 0
        assert await refusals(system, "failed-logins") == 4
        assert (await get(port, "/client/mc", there, upgrade=True)).status == 401
        async with await Peer.dial(port, "/client/mc", here | bearer("client")):
            pass
        assert (await get(port, "/client/mc", here, upgrade=True)).status == 429


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("X-Forwarded-For", ["127.0.0.1", "203.0.113.7", "127.0.0.2"]),
        ("Forwarded", ["for=127.0.0.1", 'for="203.0.113.7:4711";proto=https', "for=127.0.0.2, for=127.0.0.3"]),
    ],
)
async def test_a_header_that_several_proxies_send_is_read_whole(loop_factory: Any, name: str, lines: list[str]) -> None:
    """Each may append a line of its own instead of a member of a list: RFC 9110 section 5.3 makes that the same."""
    async with System(**FROM_HERE, client_address_header=name) as system:
        streams = await connect(system.relay.port)
        repeated = f"\r\n{name}: ".join(lines)
        answer = await ask(streams, "/client/mc", {name: repeated, **handshake(), **bearer("client")})
        assert answer.status == 101
        assert [leg.address for leg in system.relay.pairing.legs] == ["203.0.113.7"]
        await close(streams[1])


@pytest.mark.parametrize("of_token", [True, False], ids=["the token's own", "the relay's"])
async def test_a_stream_too_many_is_refused(loop_factory: Any, monkeypatch: pytest.MonkeyPatch, of_token: bool) -> None:
    """With the reason, for an agent in the end and for a raw leg at once; when one ends there is room again."""
    monkeypatch.setattr(session, "OPEN_TIMEOUT", 0.5)
    settings: dict[str, Any] = {"max_streams_per_token": 100 if of_token else 1}
    async with serve(echo) as target, System(**settings) as system:
        await system.host({"mc": target})
        given = token("client", streams=1) if of_token else token("client")
        client = await system.client("mc", secret=Secret(), token=Secret(given))
        reader, writer = await connect(client.ports[0])
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        second = await connect(client.ports[0])
        with pytest.raises(ConnectionResetError):
            await second[0].read()
        await close(second[1])
        assert system.events("stream closed")[-1]["reason"] == "too many streams with this token"
        async with await Peer.dial(system.relay.port, f"/client/mc?token={given}") as raw:
            closed = await raw.closed()
            assert (closed.code, closed.reason) == (1013, "too many streams with this token")
        assert await refusals(system, "streams-per-token") > 2
        monkeypatch.setattr(session, "OPEN_TIMEOUT", 15.0)
        writer.write_eof()
        assert await reader.read() == b""
        await close(writer)
        await until(
            lambda: len([line for line in system.events("stream closed") if line["outcome"] == "finished"]) == 2
        )
        await exchange(client.ports[0], 1000)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"", "handshake-timeout"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 5000, "header-size"),
        (b"\x16\x03\x01", "not-http"),
    ],
)
async def test_a_request_that_is_none_is_counted(loop_factory: Any, says: bytes, reason: str) -> None:
    """One that does not come, is too long, or is something else: the connection ends."""
    async with System(handshake_timeout=0.2 if not says else 20.0, max_header=4096) as system:
        reader, writer = await connect(system.relay.port)
        writer.write(says)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        await close(writer)
        assert await refusals(system, reason) == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_handshakes": 32, **FROM_HERE}, "handshakes"),
        ({"max_handshakes_per_address": 32}, "handshakes-per-address"),
    ],
    ids=["in all", "of an address"],
)
async def test_silent_connections_make_room(loop_factory: Any, settings: dict[str, Any], reason: str) -> None:
    """The oldest is closed for the newest, so that health checks and legs get through."""
    async with System(**settings, handshake_timeout=30.0) as system, contextlib.AsyncExitStack() as stack:
        port = system.relay.port
        silent = []
        for number in range(200):
            streams = await connect(port)
            stack.push_async_callback(close, streams[1])
            silent.append(streams)
            if number % 2:
                streams[1].write(b"GET /client/mc HTTP/1.1\r\nHost: ")
            if number % 50 == 49:
                assert (await get(port, "/readyz")).status == 200
                async with await system.dial("client"):
                    pass
        with contextlib.suppress(ConnectionResetError):
            assert await silent[0][0].read() == b""
        assert not silent[-1][0].at_eof()
        assert await refusals(system, reason) >= 200 - 32
        assert len(system.relay._server._connections) <= 32
        assert {line["reason"] for line in system.events("connection dropped")} == {reason}


async def test_an_address_that_is_silent_takes_no_room_from_others(loop_factory: Any) -> None:
    """Its own oldest connection makes room for its next one."""
    async with System(max_handshakes_per_address=4, host="127.0.0.1") as system, contextlib.AsyncExitStack() as stack:
        port = system.relay.port
        other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        stack.push_async_callback(close, other[1])
        for _ in range(20):
            stack.push_async_callback(close, (await connect(port))[1])
        await until(lambda: len(system.relay._server._connections) == 5)
        assert (await ask(other, "/healthz", {})).status == 200


@pytest.mark.parametrize("agent", [False, True], ids=["relay", "agent"])
async def test_silent_connections_do_not_stall_the_admin_port(loop_factory: Any, agent: bool) -> None:
    """A liveness probe that got no answer would have the service restarted."""
    async with System() as system, contextlib.AsyncExitStack() as stack:
        port = system.relay.admin_port
        if agent:
            client = await system.client("mc", admin_port=0)
            assert client.admin is not None
            port = client.admin.port
        for _ in range(600):
            stack.push_async_callback(close, (await connect(port))[1])
        for path in ("/healthz", "/metrics"):
            assert (await get(port, path)).status == 200


async def test_an_agent_comes_again_when_there_is_room(loop_factory: Any) -> None:
    """It waits as long as the relay asks, says why once, and needs no help."""
    times = RelayTimes(retry_after=1)
    async with serve(echo) as target, System(times=times, max_legs=3) as system, contextlib.AsyncExitStack() as stack:
        others = [await stack.enter_async_context(await system.dial("host", tunnel="db")) for _ in range(3)]
        host = await system.host({"mc": target}, wait=False, warm=1)
        await until(lambda: system.events("relay unreachable"))
        (line,) = system.events("relay unreachable")
        assert line["reason"] == f"{system.url} answered HTTP 503: the relay is full"
        assert host.context.dialer._outage.active
        for other in others:
            await close(other.writer)
        await until(lambda: not host.readiness())
        client = await system.client("mc", warm=1)
        await exchange(client.ports[0], 1000)


async def test_a_host_leg_must_show_an_instance_key(loop_factory: Any) -> None:
    """What is no key is no leg: 400, and nothing of it is logged but the reason. Client legs need none."""
    async with System() as system:
        async with await system.dial("client", v1=True):
            pass
        for key in ("", "x", new_id() + "0", new_id().upper() + "G", "../" * 11):
            headers = bearer("host") | {"Sec-WebSocket-Protocol": SUBPROTOCOL, INSTANCE_KEY_HEADER: key}
            answer = await get(system.relay.port, "/host/mc", headers, upgrade=True)
            assert answer.status == 400
            assert answer.text == "Tunnel-Instance-Key: 32 hexadecimal digits are needed\n"
        assert await refusals(system, "instance-key") == 5


async def test_an_unknown_version_is_refused(loop_factory: Any) -> None:
    """It never becomes a raw leg: 400, which says what the relay speaks. Beside v1 it is of no account."""
    async with System() as system:
        for role in ("host", "client"):
            for offered in ("tcp-ws-tunnel.v2", "chat, tcp-ws-tunnel.v3"):
                headers = bearer(role) | {"Sec-WebSocket-Protocol": offered}
                answer = await get(system.relay.port, f"/{role}/mc", headers, upgrade=True)
                assert (answer.status, answer.text) == (
                    400, "this relay speaks tcp-ws-tunnel.v1 and no other version\n"
                )  # fmt: skip
        headers = bearer("client") | {"Sec-WebSocket-Protocol": "tcp-ws-tunnel.v2, tcp-ws-tunnel.v1"}
        answer = await get(system.relay.port, "/client/mc", headers, upgrade=True)
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, SUBPROTOCOL)
        assert await refusals(system, "subprotocol") == 4
