"""Targets that are told who connects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from host_agent.doctor import HostDoctor
from host_agent.settings import HostSettings, Offer
from proxyprotocol.result import ProxyResultIPv4
from proxyprotocol.v2 import ProxyProtocolV2
from support.apps import Handler, close, connect, echo, exchange, receive, send, serve, until
from support.peer import Opcode, Peer
from support.system import SECRET, System, bearer
from support.wire import Wire
from tunnel_core.errors import UsageError
from tunnel_core.net.address import Address
from tunnel_core.protocol.proxy_header import LOCAL, SUBJECT, UNIQUE_ID
from tunnel_core.service.settings import Secret

SOURCE, STREAM = "203.0.113.7:51234", "1" * 32


class Told:
    """A target that expects the PROXY protocol, and echoes. `headers` are what it was told."""

    def __init__(self) -> None:
        self.headers: list[ProxyResultIPv4] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(16)
        rest = await reader.readexactly(int.from_bytes(head[14:]))
        result = ProxyProtocolV2().unpack(head + rest)
        if isinstance(result, ProxyResultIPv4):  # else it is a health check
            self.headers.append(result)
        await echo(reader, writer)


async def test_the_target_is_told_the_address_of_a_friend(loop_factory: Any) -> None:
    """That of the client-agent, with the stream as logs have it and the subject; others are told nothing."""
    told = Told()
    async with serve(told) as target, serve(echo) as plain, System() as system:
        await system.host({"mc": target, "db": plain}, proxy_protocol=("mc",))
        client = await system.client("mc", "db")
        await exchange(client.ports[0], 3 << 20)
        await exchange(client.ports[1], 1000)
        (header,) = told.headers
        assert str(header.source[0]) == "127.0.0.1"
        assert header.dest[1] == target
        opened = [line for line in system.events("stream opened") if line.get("target") == f"127.0.0.1:{target}"]
        assert [header.tlv[UNIQUE_ID].decode()] == [line["stream"] for line in opened]
        assert header.tlv[SUBJECT].startswith(b"client@")


async def test_a_header_counts_for_no_offset(loop_factory: Any) -> None:
    """Acks are of the stream's bytes alone: streams go through cut legs as ever, and nothing is violated."""
    told = Told()
    async with serve(told) as target, System() as system, Wire(system.relay.port) as wire:
        await system.host({"mc": target}, proxy_protocol=("mc",), relay=f"ws://127.0.0.1:{wire.port}")
        client = await system.client("mc")
        reader, writer = await connect(client.ports[0])
        sending = asyncio.create_task(send(writer, 8 << 20, 1))
        receiving = asyncio.create_task(receive(reader))
        for _ in range(3):
            carried = wire.carried
            await until(lambda: wire.carried > carried + (1 << 20) or sending.done())
            wire.cut()
        assert await receiving == (8 << 20, await sending)
        await close(writer)
        assert len(told.headers) == 1
        assert not [line for line in system.log if "protocol:" in str(line.get("reason"))]


@pytest.mark.parametrize(("role", "expected"), [("gateway", SOURCE), ("client", "127.0.0.1:0")])
async def test_a_gateway_alone_names_visitors(loop_factory: Any, role: Any, expected: str) -> None:
    """What anybody else says reaches neither the target nor the log."""
    told = Told()
    async with serve(told) as target, System() as system:
        await system.host({"mc": target}, proxy_protocol=("mc",))
        client = await Peer.dial(system.relay.port, "/client/mc", bearer(role, subject="alex"), v1=True)
        async with client:
            await client.say("open", stream=STREAM, key="2" * 32, window=65536, source=SOURCE)
            await client.send(b"hello")
            await until(lambda: told.headers)
            (header,) = told.headers
            assert f"{header.source[0]}:{header.source[1]}" == expected
            assert (header.tlv[UNIQUE_ID], header.tlv[SUBJECT]) == (STREAM.encode(), b"alex")
            while (frame := await client.frame()).opcode is not Opcode.BINARY:
                pass
            assert frame.data == b"hello"
        (opened,) = system.events("stream opened")
        assert opened["client"] == expected.removesuffix(":0")
        assert ("203.0.113.7" in system.raw_log) == (role == "gateway")


async def test_a_raw_friend_has_an_address_too(loop_factory: Any) -> None:
    """And no stream's id."""
    told = Told()
    async with serve(told) as target, System() as system:
        await system.host({"mc": target}, proxy_protocol=("mc",))
        async with await system.dial("client") as client:
            await client.send(b"hello")
            assert await client.data(5) == b"hello"
        (header,) = told.headers
        assert str(header.source[0]) == "127.0.0.1"
        assert UNIQUE_ID not in header.tlv


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that will have no connection."""


async def closes_on_a_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server to which a PROXY header is garbage."""
    assert await reader.readexactly(len(LOCAL)) == LOCAL


@pytest.mark.parametrize(
    ("handler", "tells", "advice"),
    [
        (echo, (), ""),
        (Told(), ("mc",), ""),
        (closes, (), "does it expect the PROXY protocol? Then write --proxy-protocol mc"),
        (closes_on_a_header, ("mc",), "does it not expect the PROXY protocol? Then leave --proxy-protocol out"),
    ],
)
async def test_the_doctor_notices_who_expects_what(
    loop_factory: Any, handler: Handler, tells: tuple[str, ...], advice: str
) -> None:
    """A target that closes at once mostly differs in this."""
    lines: list[str] = []
    async with serve(handler) as target, System() as system:
        await system.host({"mc": target}, proxy_protocol=tells)
        offer = Offer("mc", Address("127.0.0.1", target))
        settings = HostSettings(relay=system.url, tunnel=(offer,), proxy_protocol=tells, secret=Secret(SECRET))
        assert await HostDoctor(settings, lines.append).run() == 0
    (number,) = [number for number, line in enumerate(lines) if " target " in line]
    assert ("closes at once" in lines[number]) == bool(advice)
    if advice:
        assert lines[number + 1].endswith(f"→ {advice}")


def test_only_for_tunnels_that_are_offered() -> None:
    """One line says what to write."""
    settings = HostSettings(
        relay="ws://127.0.0.1", tunnel=(Offer("mc", Address("127.0.0.1", 1)),), proxy_protocol=("db",)
    )
    with pytest.raises(UsageError, match="'db' is not offered: write --tunnel db=HOST:PORT, too"):
        settings.check()
