"""Whatever a peer says on a leg, in whatever pieces: once it is silent, all comes to rest within the resume window."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple

import client_agent.session
import host_agent.session
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.apps import close, connect, echo, reset, serve, until
from support.hostile_relay import HostileRelay
from support.peer import Peer
from support.system import System
from tunnel_core.agent import clock
from tunnel_core.net.liveness import LegTimes
from tunnel_core.protocol import stream
from tunnel_core.protocol.control import MIN_WINDOW
from tunnel_core.protocol.endpoints import new_id
from websockets.frames import Frame, Opcode

BATCHES = 100 if settings.get_current_profile_name() == "long" else 2
TOGETHER = 30  # scripts of a batch at least: silence has to be waited for, so it is waited for together
WINDOW = 0.3  # of resume, in seconds
TIMES = LegTimes(tick=0.05, carrying=(0.1, 0.3), idle=(0.2, 0.6), close=0.2)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody waits for a fraction of a second where it would be many."""
    monkeypatch.setattr(clock, "INTERVAL", 0.02)
    monkeypatch.setattr(stream, "RESET_PATIENCE", 10)
    monkeypatch.setattr(host_agent.session, "CLOSE_PATIENCE", 0.2)
    monkeypatch.setattr(client_agent.session, "OPEN_TIMEOUT", 0.3)
    monkeypatch.setattr(client_agent.session, "RESUMED_TIMEOUT", 0.2)


class Script(NamedTuple):
    """What one peer does with one leg."""

    greets: bool  # it begins as an honest peer would
    says: list[tuple[Any, ...]]  # (opcode, payload), (message, stream, number), or bytes that need be no frame
    cuts: list[float]  # where the bytes are cut into segments, from 0 to 1
    end: str  # "silence", "fin" or "rst"

    def segments(self, greeting: list[tuple[Any, ...]], streams: list[str], *, mask: bool) -> Iterator[bytes]:
        """The script as a peer sends it that masks or not; `streams` are the ids that it uses."""
        said = (greeting if self.greets else []) + self.says
        wire = b"".join(_wire(item, streams, mask=mask) for item in said)
        edges = [0, *sorted(int(cut * len(wire)) for cut in self.cuts), len(wire)]
        for start, end in itertools.pairwise(edges):
            yield wire[start:end]

    async def perform(
        self, writer: asyncio.StreamWriter, greeting: list[tuple[Any, ...]], streams: list[str], *, mask: bool
    ) -> None:
        """Say it, segment by segment, and leave as the script ends."""
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: uvloop has closed the transport
            for segment in self.segments(greeting, streams, mask=mask):
                writer.write(segment)
                await asyncio.sleep(0.001)
        if self.end == "fin":
            writer.close()
        elif self.end == "rst":
            reset(writer)


def _wire(item: tuple[Any, ...], streams: list[str], *, mask: bool) -> bytes:
    match item:
        case (bytes() as garbage,):
            return garbage
        case (Opcode() as opcode, payload):
            return Frame(opcode, payload).serialize(mask=mask)
        case (kind, number, value):
            message = {
                "type": kind,
                "stream": streams[number],
                "key": streams[0],
                "proof": streams[0],
                "instance": streams[0],
                "window": MIN_WINDOW,
                "attempt": value + 1,
                "received": value,
                "sent": value,
                "reason": "",
                "grace": value,
                "raw": bool(value & 1),
                "unknown": bool(value & 1),
                "done": bool(value & 1),
            }
            return Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=mask)
    raise AssertionError(item)


KINDS = ["open", "paired", "accepted", "refused", "ack", "fin", "reset", "resume", "resumed", "gone", "goaway"]
OPEN, PAIRED, ACCEPTED = ("open", 0, 0), ("paired", 0, 0), ("accepted", 0, 0)
messages = st.tuples(st.sampled_from(KINDS), st.sampled_from([0, 0, 1, 2]), st.sampled_from([0, 0, 1, 5, 70_000]))
data = st.tuples(st.just(Opcode.BINARY), st.sampled_from([b"", b"?", bytes(70_000)]))
frames = st.sampled_from(
    [
        (Opcode.PING, b"?"),
        (Opcode.PONG, b"?"),
        (Opcode.TEXT, b"?"),
        (Opcode.CLOSE, b""),
        (Opcode.CLOSE, b"\x0f\xa0"),
    ]
)
garbage = st.tuples(st.binary(min_size=1, max_size=3))
# What moves a stream most is said most.
moves = st.sampled_from([("open", 1, 0), ("open", 2, 0), ("reset", 0, 0), ("fin", 0, 0), ("paired", 0, 0)])
scripts = st.builds(
    Script,
    greets=st.sampled_from([True, True, False]),
    says=st.lists(st.one_of(moves, moves, messages, data, frames, garbage), max_size=8),
    cuts=st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.6, 0.75, 0.9]), max_size=2),
    end=st.sampled_from(["silence", "fin", "rst"]),
)


Perform = Callable[[list[tuple[Script, bool]]], Coroutine[Any, Any, None]]


def drive(loop_factory: Any, start: Callable[[contextlib.AsyncExitStack], Coroutine[Any, Any, Perform]]) -> None:
    """Let hypothesis choose batches of scripts for what `start` returns, all in one event loop."""
    bugs: list[Any] = []
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: bugs.append(context))
        stack = contextlib.AsyncExitStack()
        perform = runner.run(start(stack))

        @settings(max_examples=BATCHES, suppress_health_check=list(HealthCheck))
        @given(
            st.lists(st.tuples(scripts, st.sampled_from([True, True, False])), min_size=TOGETHER, max_size=2 * TOGETHER)
        )
        def at_rest(batch: list[tuple[Script, bool]]) -> None:
            runner.run(perform(batch))
            assert not bugs, bugs

        try:
            at_rest()
        finally:
            runner.run(stack.aclose())
    assert not bugs, bugs


def test_a_host_agent_comes_to_rest(loop_factory: Any) -> None:
    """Clients with a token, over an honest relay."""

    async def start(stack: contextlib.AsyncExitStack) -> Perform:
        target = await stack.enter_async_context(serve(echo))
        system = await stack.enter_async_context(System(legs=TIMES, max_legs_per_token=10_000))
        host = await system.host({"mc": target}, resume_window=WINDOW)

        async def attack(script: Script, v1: bool) -> Peer:
            peer = await system.dial("client", v1=v1)
            await script.perform(peer.writer, [OPEN], [new_id() for _ in range(3)], mask=True)
            return peer

        async def perform(batch: list[tuple[Script, bool]]) -> None:
            peers = await asyncio.gather(*(attack(script, v1) for script, v1 in batch))
            pairing = system.relay.pairing
            await until(lambda: not list(host.sessions()) and not host.context.streams.memory.used)
            await until(lambda: all(leg.role == "host" and leg.peer is None for leg in pairing.legs))
            await system.check()
            for peer in peers:
                await close(peer.writer)

        return perform

    drive(loop_factory, start)


def test_agents_of_a_hostile_relay_come_to_rest(loop_factory: Any) -> None:
    """It says what it likes to both agents, and answers nothing."""

    async def start(stack: contextlib.AsyncExitStack) -> Perform:
        target = await stack.enter_async_context(serve(echo))
        relays = {role: await stack.enter_async_context(HostileRelay()) for role in ("host", "client")}
        system = await stack.enter_async_context(System(legs=TIMES))
        host = await system.host({"mc": target}, relay=relays["host"].url, resume_window=WINDOW, wait=False)
        client = await system.client("mc", relay=relays["client"].url, resume_window=WINDOW, wait=False)

        async def attack(script: Script, to_host: bool) -> None:
            if to_host:
                leg = await relays["host"].leg()
                await script.perform(leg.writer, [PAIRED, OPEN], [new_id() for _ in range(3)], mask=False)
                return
            reader, writer = await connect(client.ports[0])
            writer.write(b"hello")
            ended = asyncio.ensure_future(reader.read())
            opened = asyncio.ensure_future(relays["client"].opened.get())
            await asyncio.wait((ended, opened), return_when=asyncio.FIRST_COMPLETED)
            if opened.done():
                leg, stream = opened.result()
                await script.perform(leg.writer, [PAIRED, ACCEPTED], [stream, new_id(), new_id()], mask=False)
            opened.cancel()
            with contextlib.suppress(OSError):
                await ended
            await close(writer)

        async def perform(batch: list[tuple[Script, bool]]) -> None:
            await asyncio.gather(*(attack(script, to_host) for script, to_host in batch))
            for agent in (host, client):
                await until(lambda: not list(agent.sessions()) and not agent.context.streams.memory.used)
            await system.check()

        return perform

    drive(loop_factory, start)
