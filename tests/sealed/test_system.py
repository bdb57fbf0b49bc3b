"""Sealed tunnels end to end: agents, relay and applications over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from support.apps import CHUNK, close, connect, echo, exchange, receive, reset, send, serve, until
from support.metrics import Metrics
from support.seals import SEAL_SECRET, key
from support.system import System, token
from support.wire import Wire
from tunnel_core.errors import UsageError
from tunnel_core.protocol import tokens
from tunnel_core.protocol.seal.errors import Fault
from tunnel_core.protocol.stream import Outcome
from tunnel_core.service.settings import Secret
from tunnel_relay.leg import RelayLeg

pytestmark = pytest.mark.sealed

MIB = 1 << 20
SEALED: dict[str, Any] = {"e2e_secret": Secret(SEAL_SECRET)}


def is_empty(system: System) -> bool:
    """Whether no stream, and no byte of one, is kept anywhere."""
    return all(not list(agent.sessions()) and not agent.context.streams.memory.used for agent in system.agents)


async def refused(port: int) -> bool:
    """Whether a connection is reset, and brings nothing."""
    reader, writer = await connect(port)
    try:
        return await reader.read() is None
    except ConnectionResetError:
        return True
    finally:
        await close(writer)


class Target:
    """A server that counts who has connected, and echoes."""

    def __init__(self) -> None:
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await echo(reader, writer)


async def test_carries_every_size_unchanged(loop_factory: Any) -> None:
    """From nothing to more than any buffer, many at once; pairs are used again."""
    async with serve(echo) as target, System() as system:
        port = await system.pair(target, **SEALED)
        for size in (0, 1, 16383, 16384, 16385, 130_712, 130_713, 3 * MIB + 7):
            await exchange(port, size, seed=size)
        async with asyncio.TaskGroup() as group:
            for seed in range(20):
                group.create_task(exchange(port, 300_000, seed=seed))
        await until(lambda: is_empty(system))
        assert {line["outcome"] for line in system.events("stream closed")} == {"finished"}


async def test_a_server_that_speaks_first_and_one_that_ends_first(loop_factory: Any) -> None:
    """The client says nothing before it has heard something; either half is closed first."""
    got = asyncio.get_running_loop().create_future()

    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        got.set_result(await reader.read())

    async with serve(greets) as target, System() as system:
        port = await system.pair(target, **SEALED)
        reader, writer = await connect(port)
        assert await reader.read() == b"hello"
        writer.write(b"and back")
        writer.write_eof()
        assert await got == b"and back"
        await close(writer)
        await until(lambda: is_empty(system))


async def test_a_server_that_writes_before_it_reads(loop_factory: Any) -> None:
    """8 MiB each way at once: the seal holds up no acknowledgement."""
    size = 8 * MIB
    got: list[tuple[int, str]] = []

    async def writes_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append((size, await send(writer, size, seed=2, end=False)))
        got.append(await receive(reader))
        writer.write_eof()

    async with serve(writes_first) as target, System() as system:
        port = await system.pair(target, **SEALED)
        reader, writer = await connect(port)
        sent, received = await asyncio.gather(send(writer, size, seed=1), receive(reader))
        await close(writer)
        assert got == [received, (size, sent)]


@pytest.mark.parametrize("end", ["client", "host"])
async def test_a_reset_is_a_reset(loop_factory: Any, end: str) -> None:
    seen = asyncio.get_running_loop().create_future()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ready")
        if end == "host":
            await reader.readexactly(2)
            reset(writer)
            return
        try:
            seen.set_result(await reader.read())
        except OSError as exc:
            seen.set_result(exc)

    async with serve(waits) as target, System() as system:
        port = await system.pair(target, **SEALED)
        reader, writer = await connect(port)
        assert await reader.readexactly(5) == b"ready"
        if end == "client":
            reset(writer)
            assert isinstance(await seen, ConnectionResetError)
        else:
            writer.write(b"go")
            with pytest.raises(ConnectionResetError):
                await reader.read()
        await close(writer)
        await until(lambda: is_empty(system))


async def test_a_target_that_refuses_reaches_the_client_as_a_reset(loop_factory: Any) -> None:
    async with serve(echo) as target:
        pass
    async with System() as system:
        port = await system.pair(target, **SEALED)
        assert await refused(port)
        await until(lambda: len(system.events("stream closed")) == 2)
        assert {line["reason"] for line in system.events("stream closed")} == {"the target refused the connection"}


@pytest.mark.parametrize("which", ["client", "host", "both"])
async def test_a_transfer_survives_cut_legs(loop_factory: Any, which: str) -> None:
    """Cut with RST again and again while bytes go both ways: the same records are sent again."""
    chance = random.Random(7)
    async with (
        serve(echo) as target,
        System() as system,
        Wire(system.relay.port) as near,
        Wire(system.relay.port) as far,
    ):
        both = {"resume_window": 8.0, **SEALED}
        await system.host({"mc": target}, relay=f"ws://127.0.0.1:{far.port}", **both)
        client = await system.client("mc", relay=f"ws://127.0.0.1:{near.port}", **both)
        wires = {"client": [near], "host": [far], "both": [near, far]}[which]
        transfers = asyncio.gather(*(exchange(client.ports[0], 4 * MIB, seed) for seed in range(3)))
        await until(lambda: len(system.events("stream opened")) == 6)
        for _ in range(5):
            mark = near.carried + chance.randrange(MIB)
            await until(lambda: near.carried > mark or transfers.done())
            assert not transfers.done(), "the transfer was over before the legs were cut"
            for wire in wires:
                wire.cut()
        await transfers
        assert system.events("stream resumed")
        await until(lambda: is_empty(system))


# Who gets in, and what they are told.


async def test_a_friend_comes_with_a_key_for_a_token(loop_factory: Any) -> None:
    """And without the secret."""
    mine = token("client", "mc", subject="alex")
    token_id = tokens.read(mine).id
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target}, **SEALED)
        client = await system.client(
            "mc", secret=Secret(), token=Secret(mine), e2e_key=Secret(f"mc={key(token=token_id)}")
        )
        await exchange(client.ports[0], 100_000)
        assert SEAL_SECRET not in system.raw_log
        assert str(key(token=token_id)) not in system.raw_log


OLDER = "an-older-secret-of-the-same-owner's"


@pytest.mark.parametrize(
    ("host", "client", "fault"),
    [
        (SEALED, {"e2e_secret": Secret(OLDER)}, Fault.OLD_KEY),
        (SEALED, {}, Fault.UNSEALED_CLIENT),
        ({}, SEALED, Fault.UNSEALED_HOST),
        (SEALED, "another tunnel's", Fault.WRONG_KEY),
    ],
    ids=["an older key", "no key", "a host that does not seal", "the key of another tunnel"],
)
async def test_who_has_no_key_hears_why(loop_factory: Any, host: Any, client: Any, fault: Fault) -> None:
    """In the words that help; the target is never connected, and the failure is counted."""
    served = Target()
    if client == "another tunnel's":
        mine = token("client", "mc")
        client = {"token": Secret(mine), "e2e_key": Secret(f"mc={key(tunnel='db', token=tokens.read(mine).id)}")}
    async with serve(served.serve) as target, System() as system:
        await system.host({"mc": target}, admin_port=0, **host)
        agent = await system.client("mc", **client)
        assert await refused(agent.ports[0])
        await until(lambda: system.events("stream closed"))
        assert fault.line in {line["reason"] for line in system.events("stream closed")}
        assert served.connections == 0
        metrics = await Metrics.scrape(system.agents[0].admin.port)  # type: ignore[union-attr]
        assert metrics.value("tunnel_agent_e2e_failures_total", reason=fault.label) == 1
        assert metrics.value("tunnel_agent_e2e_failures_total") == 1


async def test_a_raw_peer_gets_nowhere(loop_factory: Any) -> None:
    """Neither as client of a sealed tunnel, nor as its host."""
    served = Target()
    async with serve(served.serve) as target, System() as system:
        host = await system.host({"mc": target}, **SEALED)
        peer = await system.dial("client")
        await peer.send(b"hello")
        frame = await peer.closed()
        assert frame.code == 4411
        await close(peer.writer)
        assert served.connections == 0
        await system.stop(host)
        client = await system.client("mc", **SEALED)
        raw = await system.dial("host")
        assert await refused(client.ports[0])
        await close(raw.writer)
        await until(lambda: system.events("stream closed"))
        assert {line["outcome"] for line in system.events("stream closed")} == {Outcome.SEAL_BROKEN.value}


async def test_rotation_during_traffic(loop_factory: Any, tmp_path: Path) -> None:
    """A new secret comes in before the old one goes: live streams go on, and friends have time for a new link."""
    file = tmp_path / "e2e.secret"
    file.write_text(OLDER)
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target}, e2e_secret=Secret(path=file))
        old = await system.client("mc", e2e_secret=Secret(OLDER))
        new = await system.client("mc", e2e_secret=Secret(SEAL_SECRET))
        reader, writer = await connect(old.ports[0])
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        assert await refused(new.ports[0])
        file.write_text(f"{SEAL_SECRET}\n{OLDER}\n")
        await until(lambda: len(system.events("e2e secrets read")) == 1)
        await exchange(new.ports[0], 50_000)
        await exchange(old.ports[0], 50_000)
        file.write_text("short")
        await until(lambda: system.events("e2e secrets unreadable"))
        await exchange(old.ports[0], 50_000)  # a mistake takes nothing away
        file.write_text(SEAL_SECRET)
        await until(lambda: len(system.events("e2e secrets read")) == 2)
        assert await refused(old.ports[0])
        await exchange(new.ports[0], 50_000)
        writer.write(b"after")
        writer.write_eof()
        assert await reader.read() == b"after"
        await close(writer)


async def test_a_revoked_token_is_refused_by_the_host(loop_factory: Any, tmp_path: Path) -> None:
    """Whatever the relay says of it; what it had open is reset, and nobody else's."""
    file = tmp_path / "revoked"
    file.write_text("")
    mine, other = token("client", "mc"), token("client", "mc")
    clients = []
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target}, revoked=str(file), **SEALED)
        for each in (mine, other):
            clients.append(await system.client("mc", secret=Secret(), token=Secret(each), **SEALED))
        streams = [await connect(client.ports[0]) for client in clients]
        for reader, writer in streams:
            writer.write(b"hi")
            assert await reader.readexactly(2) == b"hi"
        file.write_text(tokens.read(mine).id)
        with pytest.raises(ConnectionResetError):
            await streams[0][0].read()
        assert await refused(clients[0].ports[0])
        assert Fault.REVOKED.line in {line["reason"] for line in system.events("stream closed")}
        streams[1][1].write(b"still here")
        streams[1][1].write_eof()
        assert await streams[1][0].read() == b"still here"
        for _, writer in streams:
            await close(writer)


async def test_a_handshake_that_stalls_is_given_up(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that says its ClientHello, or nothing at all, and stays."""
    monkeypatch.setattr("tunnel_core.agent.session.HANDSHAKE", 0.2)
    served = Target()
    async with serve(served.serve) as target, System() as system:
        await system.host({"mc": target}, **SEALED)
        peer = await system.dial("client", v1=True)
        await peer.say("open", stream="a" * 32, key="b" * 32, window=65536, e2e=True)
        assert (await peer.heard())["type"] == "paired"
        answer = await peer.heard()
        assert (answer["type"], answer["reason"]) == ("refused", Fault.TIMEOUT.line)
        await close(peer.writer)
        assert served.connections == 0


async def test_only_what_is_asked_for_is_sealed(loop_factory: Any) -> None:
    """`--sealed mc`: the other tunnel carries what it always did, and metrics tell them apart."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target, "db": target}, sealed=("mc",), admin_port=0, **SEALED)
        mc = await system.client("mc", **SEALED)
        db = await system.client("db")
        for client in (mc, db):
            await exchange(client.ports[0], 10_000)
        metrics = await Metrics.scrape(system.agents[0].admin.port)  # type: ignore[union-attr]
        for tunnel, sealed in (("mc", "yes"), ("db", "no")):
            assert metrics.value("tunnel_agent_streams_opened_total", tunnel=tunnel, sealed=sealed) == 1


async def test_keys_that_cannot_be_used_are_refused_at_the_start(tmp_path: Path) -> None:
    async with serve(echo) as target, System() as system:
        for settings in (
            {"e2e_secret": Secret("short")},
            {"e2e_secret": Secret(path=tmp_path / "nowhere")},
            {"revoked": str(tmp_path / "nowhere"), **SEALED},
        ):
            with pytest.raises(UsageError):
                await system.host({"mc": target}, **settings)


async def test_what_the_relay_is_given_holds_nothing_of_it(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte that any relay leg brings, and everything that the agents keep for a resume."""
    passed = bytearray()
    deliver = RelayLeg.on_data

    def hear(self: RelayLeg, pieces: Any, size: int) -> None:
        passed.extend(b"".join(pieces))
        deliver(self, pieces, size)

    monkeypatch.setattr(RelayLeg, "on_data", hear)
    known = hashlib.sha256(os.urandom(16)).hexdigest().encode()
    kept = 0

    async def holds(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal kept
        await until(lambda: any(session.stream.replay.end > 300_000 for session in system.agents[1].sessions()))
        for agent in system.agents:
            for session in agent.sessions():
                held = b"".join(bytes(piece) for piece in session.stream.replay.since(session.stream.replay.start))
                kept += len(held)
                assert known not in held
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async with serve(holds) as target, System() as system:
        port = await system.pair(target, **SEALED)
        reader, writer = await connect(port)
        text = known * 10_000

        async def says() -> None:
            writer.write(text)
            await writer.drain()
            writer.write_eof()

        _, got = await asyncio.gather(says(), reader.read())
        assert got == text
        await close(writer)
    assert len(passed) > 2 * len(text)
    assert kept > 0
    assert known not in passed
