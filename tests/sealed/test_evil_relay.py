"""A relay that is not honest: the project's own, with a few lines of evil."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from proxyprotocol.v2 import ProxyProtocolV2
from support.apps import CHUNK, block, close, connect, echo, exchange, serve, until
from support.peer import Opcode, Peer
from support.seals import SEAL_SECRET, key
from support.system import SECRET, System
from tunnel_core.protocol.proxy_header import SUBJECT
from tunnel_core.protocol.seal.errors import Fault
from tunnel_core.service.settings import Secret
from tunnel_relay.leg import RelayLeg

from demo.processes import free_port

pytestmark = pytest.mark.sealed

SEALED: dict[str, Any] = {"e2e_secret": Secret(SEAL_SECRET)}
REQUEST, ANSWER = block(200_000, 1), block(200_000, 2)


class Truth:
    """A server that sends ANSWER and ends, and notes what it read and how that ended."""

    def __init__(self) -> None:
        self.connections = 0
        self.read = bytearray()
        self.saw_end = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(ANSWER)
        writer.write_eof()
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(CHUNK):
                self.read += data
            self.saw_end = True


async def ask(port: int) -> tuple[bytes, bool]:
    """Send REQUEST and end; what came, and whether it came to a true end."""
    reader, writer = await connect(port)
    got = bytearray()
    try:
        writer.write(REQUEST)
        writer.write_eof()
        while data := await reader.read(CHUNK):
            got += data
    except ConnectionResetError:
        return bytes(got), False
    else:
        return bytes(got), True
    finally:
        await close(writer)


class Evil:
    """Changes the bytes of one direction once, `after` so many of them."""

    def __init__(self, role: str, after: int, change: Callable[[bytes], bytes]) -> None:
        self.role = role
        self.after = after
        self.change = change
        self.done = False
        self._seen = 0
        self._deliver = RelayLeg.on_data

    def hears(self) -> Callable[[RelayLeg, Any, int], None]:
        """What a leg is to do with its bytes."""

        def on_data(leg: RelayLeg, pieces: Any, size: int) -> None:
            data = b"".join(bytes(piece) for piece in pieces)
            if leg.role == self.role and not self.done:
                self._seen += size
                if self._seen > self.after:
                    self.done = True
                    data = self.change(data)
            if data:
                self._deliver(leg, (data,), len(data))

        return on_data


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "dropped": lambda data: b"",
    "a byte dropped": lambda data: data[:-1],
    "repeated": lambda data: data + data,
    "swapped": lambda data: data[len(data) // 2 :] + data[: len(data) // 2],
    "invented": lambda data: data + b"\x17\x03\x03\x00\x20" + bytes(32),
}


@pytest.mark.parametrize("role", ["client", "host"])
@pytest.mark.parametrize("after", [0, 300, 100_000])
@pytest.mark.parametrize("how", CHANGES)
async def test_changed_bytes_reach_no_application(
    how: str, after: int, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a wrong byte nor a false end, whichever way; and a handshake that was changed connects nothing."""
    monkeypatch.setattr("tunnel_core.agent.session.HANDSHAKE", 0.5)
    evil = Evil(role, after, CHANGES[how])
    monkeypatch.setattr(RelayLeg, "on_data", evil.hears())
    truth = Truth()
    async with serve(truth.serve) as target, System() as system:
        port = await system.pair(target, resume_window=1.0, **SEALED)
        answer = asyncio.create_task(ask(port))
        await until(lambda: evil.done)
        # What was merely dropped is waited for: as by a relay that stops.
        await asyncio.wait([answer], timeout=1.5)
        for agent in system.agents:
            for session in tuple(agent.sessions()):
                session.stop("the test is over")
        got, ended = await answer
        assert ANSWER.startswith(got)
        assert not ended or got == ANSWER
        assert REQUEST.startswith(bytes(truth.read))
        assert not truth.saw_end or bytes(truth.read) == REQUEST
        hurt_whole = truth.saw_end if role == "client" else ended
        assert not hurt_whole, "what was changed came to an end as if it were whole"
        # What follows the host's whole flight comes too late: by then the client has shown its key.
        if after == 0 and not (role == "host" and how in ("repeated", "invented")):
            assert truth.connections == 0
        await until(lambda: not any(list(agent.sessions()) for agent in system.agents))


def rewriting(change: Callable[[dict[str, Any]], None]) -> Callable[[RelayLeg, bytes], None]:
    """The relay's handling of control messages, each of them changed first."""
    handle = RelayLeg.on_text

    def on_text(leg: RelayLeg, payload: bytes) -> None:
        message = json.loads(payload)
        change(message)
        handle(leg, json.dumps(message).encode())

    return on_text


@pytest.mark.parametrize(
    ("kind", "fault"), [("open", Fault.UNSEALED_CLIENT), ("accepted", Fault.UNSEALED_HOST)], ids=["open", "accepted"]
)
async def test_a_seal_that_is_stripped_is_missed(kind: str, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    def strip(message: dict[str, Any]) -> None:
        if message["type"] == kind:
            message.pop("e2e", None)

    monkeypatch.setattr(RelayLeg, "on_text", rewriting(strip))
    truth = Truth()
    async with serve(truth.serve) as target, System() as system:
        port = await system.pair(target, **SEALED)
        got, ended = await ask(port)
        assert (got, ended) == (b"", False)
        assert not truth.read
        assert truth.connections == 0
        await until(lambda: fault.line in reasons(system))


@pytest.mark.parametrize("forged", ["fin", "reset", "ack", "refused", "accepted"])
@pytest.mark.parametrize("early", [True, False])
async def test_forged_messages_can_but_end_the_stream(
    forged: str, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said to the client, as if by its host: before the host is asked, or in the midst."""
    monkeypatch.setattr("tunnel_core.agent.session.HANDSHAKE", 0.5)
    handle, deliver = RelayLeg.on_text, RelayLeg.on_data
    streams: list[str] = []
    passed = 0
    said = False

    def forge(leg: RelayLeg) -> None:
        """`leg` is the client's."""
        nonlocal said
        said = True
        fields: dict[str, dict[str, Any]] = {
            "fin": {"sent": passed},
            "reset": {"reason": "so the relay says"},
            "ack": {"received": 1000},
            "refused": {"reason": "so the relay says"},
            "accepted": {"window": 1 << 20, "e2e": True},
        }
        leg.send_text(json.dumps({"type": forged, "stream": streams[-1], **fields[forged]}).encode())

    def on_text(leg: RelayLeg, payload: bytes) -> None:
        message = json.loads(payload)
        if message["type"] == "open":
            streams.append(message["stream"])
        handle(leg, payload)
        if message["type"] == "open" and early:
            forge(leg)

    def on_data(leg: RelayLeg, pieces: Any, size: int) -> None:
        nonlocal passed
        deliver(leg, pieces, size)
        if leg.role == "host":
            passed += size
            if not early and not said and passed > 50_000:
                assert isinstance(leg.peer, RelayLeg)
                forge(leg.peer)

    monkeypatch.setattr(RelayLeg, "on_text", on_text)
    monkeypatch.setattr(RelayLeg, "on_data", on_data)
    truth = Truth()
    async with serve(truth.serve) as target, System() as system:
        port = await system.pair(target, resume_window=1.0, **SEALED)
        got, ended = await ask(port)
        assert said
        assert ANSWER.startswith(got)
        assert not ended or got == ANSWER
        assert REQUEST.startswith(bytes(truth.read))
        assert not truth.saw_end or bytes(truth.read) == REQUEST
        if forged in ("fin", "reset"):
            assert not ended


def reasons(system: System) -> set[str]:
    """Why streams have ended."""
    return {line["reason"] for line in system.events("stream closed")}


async def answered(peer: Peer) -> dict[str, Any]:
    """What the host says to an `open`, or of the stream's end."""
    while True:
        frame = await peer.frame()
        if frame.opcode is Opcode.TEXT:
            message: dict[str, Any] = json.loads(bytes(frame.data))
            if message["type"] in ("accepted", "refused", "reset"):
                return message


async def test_a_stream_that_was_recorded_and_is_played_again_connects_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that one client said, up to its end, on a leg of the relay's own: under a new id, and under the old one."""
    said: list[bytes] = []
    deliver = RelayLeg.on_data

    def on_data(leg: RelayLeg, pieces: Any, size: int) -> None:
        if leg.role == "client":
            said.append(b"".join(bytes(piece) for piece in pieces))
        deliver(leg, pieces, size)

    opened: list[dict[str, Any]] = []
    monkeypatch.setattr(RelayLeg, "on_data", on_data)
    monkeypatch.setattr(RelayLeg, "on_text", rewriting(opened.append))
    truth = Truth()
    async with serve(truth.serve) as target, System() as system:
        port = await system.pair(target, **SEALED)
        assert await ask(port) == (ANSWER, True)
        await until(lambda: bytes(truth.read) == REQUEST)
        recorded = b"".join(said)
        hello = 5 + int.from_bytes(recorded[3:5])  # bytes of the record with the ClientHello
        (opening,) = (message for message in opened if message["type"] == "open")
        for stream, reason in (("f" * 32, Fault.CHANGED.line), (opening["stream"], "this stream is known already")):
            async with await system.dial("client", v1=True) as peer:
                await peer.send(json.dumps(opening | {"stream": stream}).encode(), Opcode.TEXT)
                await peer.send(recorded[:hello])
                answer = await answered(peer)
                if answer["type"] == "accepted":
                    await peer.send(recorded[hello : hello + 50_000])  # within its window
                    answer = await answered(peer)
                assert answer["reason"] == reason
        assert truth.connections == 1


@pytest.mark.parametrize("shown", ["none", "wrong", "other"])
async def test_a_raw_client_with_a_good_token_and_no_key_connects_to_nothing(shown: str) -> None:
    """Its TLS takes any host for the true one, and goes on whatever the host answers."""
    context: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if shown != "none":
        identity = (key() if shown == "wrong" else key(secret="a-secret-of-the-relay's-own-making!!")).identity
        context.set_psk_client_callback(lambda hint: (identity, b"guessed!" * 4))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        end.do_handshake()
    truth = Truth()
    async with serve(truth.serve) as target, System() as system:
        await system.host({"mc": target}, **SEALED)
        async with await system.dial("client", v1=True) as peer:
            await peer.say("open", stream="a" * 32, key="b" * 32, window=65536, e2e=True)
            await peer.send(outgoing.read())
            for _ in range(3):  # what would be a Finished, and data
                await peer.send(b"\x17\x03\x03\x00\x45" + bytes(0x45))
            answer = await answered(peer)
        fault = {"none": Fault.UNSEALED_CLIENT, "wrong": Fault.WRONG_KEY, "other": Fault.OLD_KEY}[shown]
        assert (answer["type"], answer["reason"]) == ("refused", fault.line)
        await until(lambda: fault.line in reasons(system))
        assert truth.connections == 0


async def test_who_calls_is_the_relays_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seal says that a friend has a key, not where he is: as docs/security.md warns."""
    send_text = RelayLeg.send_text

    def lie(leg: RelayLeg, payload: bytes) -> None:
        message = json.loads(payload)
        if message["type"] == "paired" and leg.role == "host":
            message |= {"peer": "203.0.113.7:1234", "subject": "somebody-else"}
        send_text(leg, json.dumps(message).encode())

    monkeypatch.setattr(RelayLeg, "send_text", lie)
    told = asyncio.get_running_loop().create_future()

    async def hears(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(16)
        told.set_result(ProxyProtocolV2().unpack(head + await reader.readexactly(int.from_bytes(head[14:]))))
        await echo(reader, writer)

    async with serve(hears) as target, System() as system:
        await system.host({"mc": target}, proxy_protocol=("mc",), **SEALED)
        client = await system.client("mc", **SEALED)
        await exchange(client.ports[0], 1000)
        header = await told
        assert str(header.source[0]) == "203.0.113.7"
        assert header.tlv[SUBJECT] == b"somebody-else"


def writable_memory(pid: int) -> bytes:
    """All that a process could have written to."""
    found = []
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is not None:
                start, end = (int(number, 16) for number in match.groups())
                with contextlib.suppress(OSError):
                    memory.seek(start)
                    found.append(memory.read(end - start))
    return b"".join(found)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no /proc/PID/mem here")
async def test_the_memory_of_the_relay_never_holds_the_text(tmp_path: Path) -> None:
    """In the midst of a transfer. Of a tunnel that is not sealed it does, so the search would find it."""
    port = free_port()
    (tmp_path / "secret").write_text(SECRET)
    relay = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunnel_relay", "--host", "127.0.0.1", "--port", str(port),
        "--secret-file", str(tmp_path / "secret"),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    url = f"ws://127.0.0.1:{port}"
    holds = {}
    try:
        async with System() as system:
            for sealed in (True, False):
                known = os.urandom(24).hex().encode()
                middle, go_on = asyncio.Event(), asyncio.Event()

                async def tells(
                    reader: asyncio.StreamReader,
                    writer: asyncio.StreamWriter,
                    known: bytes = known,
                    middle: asyncio.Event = middle,
                    go_on: asyncio.Event = go_on,
                ) -> None:
                    writer.write(known * 20_000)
                    await writer.drain()
                    middle.set()
                    await go_on.wait()

                async with serve(tells) as target:
                    seal = SEALED if sealed else {}
                    host = await system.host({"mc": target}, relay=url, **seal)
                    client = await system.client("mc", relay=url, **seal)
                    reader, writer = await connect(client.ports[0])
                    assert await reader.readexactly(len(known) * 1000) == known * 1000
                    await middle.wait()
                    assert relay.pid is not None
                    holds[sealed] = known in writable_memory(relay.pid)
                    go_on.set()
                    await reader.read()
                    await close(writer)
                    await system.stop(client)
                    await system.stop(host)
    finally:
        relay.terminate()
        await relay.wait()
    assert holds == {True: False, False: True}
