"""Whose an instance is, and whose a stream: what somebody with a genuine token can do to others', which is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from client_agent import session
from host_agent.service import HostAgent
from support.apps import Streams, close, connect, echo, serve, until
from support.peer import Peer
from support.system import System, bearer
from support.wire import Wire
from tunnel_core.protocol.endpoints import INSTANCE_KEY_HEADER, new_id
from tunnel_core.protocol.identity import instance_of


async def ask(streams: Streams, question: bytes) -> None:
    """One question and its answer, on a connection that is open."""
    streams[1].write(question)
    assert await streams[0].readexactly(len(question)) == question


async def stolen_instance(system: System) -> str:
    """The instance of a tunnel's host-agent, as any client learns it."""
    async with await system.dial("client", v1=True) as client:
        await client.say("open", stream=new_id(), key=new_id(), window=65536)
        return str((await client.heard())["instance"])


async def false_host(system: System, host: HostAgent, wire: Wire) -> Peer:
    """Cut the stream off, and have a thief's leg wait for its `resume`: he has stolen the instance's key."""
    wire.shut()
    wire.cut()
    ready = host.context.settings.warm + 1  # one for the stream that is detached; the thief's leg is the newest
    await until(lambda: host._tunnels[0].pool.ready == ready and len(system.relay.pairing.legs) == ready)
    key = host.context.dialer._instance_key
    assert key is not None
    eve = bearer("host", subject="eve")
    return await Peer.dial(system.relay.port, "/host/mc", eve, v1=True, instance_key=key)


async def test_an_instance_cannot_be_claimed(loop_factory: Any) -> None:
    """Nor after the relay was restarted: neither by a client nor by another host."""
    async with serve(echo) as target, System() as old, System() as system, Wire(old.relay.port) as wire:
        port = await system.pair(target, relay=f"ws://127.0.0.1:{wire.port}")
        streams = await connect(port)
        await ask(streams, b"before")
        instance = await stolen_instance(old)
        wire.target = system.relay.port
        # The thieves are there first.
        claims = {INSTANCE_KEY_HEADER: instance, "Tunnel-Instance": instance}
        async with contextlib.AsyncExitStack() as stack:
            for role, path in (("client", "/client/mc"), ("host", "/host/mc")):
                headers = bearer(role, subject="eve") | claims  # type: ignore[arg-type]
                await stack.enter_async_context(
                    await Peer.dial(system.relay.port, path, headers, v1=True, instance_key=instance)
                )
            thieves = {leg.role: leg for leg in system.relay.pairing.legs if leg.subject == "eve"}
            assert (thieves["client"].instance, thieves["host"].instance) == ("", instance_of(instance))
            assert instance_of(instance) != instance
            wire.cut()
            await ask(streams, b"after")
        assert system.events("stream resumed")
        await close(streams[1])


async def test_what_a_false_host_hears_is_worth_nothing(loop_factory: Any) -> None:
    """Somebody who stole even the instance's key hears a `resume`. Replayed on a leg of his own it opens nothing."""
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        host = await system.host({"mc": target})
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        streams = await connect(client.ports[0])
        await ask(streams, b"before")
        async with await false_host(system, host, wire) as thief:
            await wire.open()
            assert (await thief.heard())["type"] == "paired"
            resume = await thief.heard()
            assert resume.pop("type") == "resume"
            assert "key" not in resume
            async with await system.dial("client", v1=True) as replay:
                await replay.say("resume", **resume)
                assert (await replay.heard())["type"] == "paired"
                answer = await replay.heard()
                assert (answer["type"], answer["unknown"]) == ("gone", True)
        await ask(streams, b"after")
        await close(streams[1])


async def falsely_proven(thief: Peer, resume: dict[str, Any]) -> None:
    await thief.say("resumed", stream=resume["stream"], received=resume["received"], proof=new_id())
    await thief.send(b"injected")


async def proven_as_it_was_asked(thief: Peer, resume: dict[str, Any]) -> None:
    await thief.say("resumed", stream=resume["stream"], received=resume["received"], proof=resume["proof"])
    await thief.send(b"injected")


async def not_proven(thief: Peer, resume: dict[str, Any]) -> None:
    await thief.say("resumed", stream=resume["stream"], received=resume["received"])


async def falsely_done(thief: Peer, resume: dict[str, Any]) -> None:
    await thief.say("resumed", stream=resume["stream"], done=True, proof=new_id())


async def of_something_else(thief: Peer, resume: dict[str, Any]) -> None:
    await thief.say("accepted", stream=resume["stream"], window=1 << 20)


@pytest.mark.parametrize(
    "answers", [falsely_proven, proven_as_it_was_asked, not_proven, falsely_done, of_something_else]
)
async def test_a_false_answer_costs_a_leg_and_no_stream(
    loop_factory: Any, answers: Callable[[Peer, dict[str, Any]], Awaitable[None]]
) -> None:
    """Without the stream's key nobody can take it over, get its data, or end it."""
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        host = await system.host({"mc": target})
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        streams = await connect(client.ports[0])
        await ask(streams, b"before")
        async with await false_host(system, host, wire) as thief:
            streams[1].write(b"after")
            await wire.open()
            assert (await thief.heard())["type"] == "paired"
            await answers(thief, await thief.heard())
            assert (await thief.closed()).code in (1008, 4410)  # and no data before it
        assert await streams[0].readexactly(5) == b"after"
        await close(streams[1])


async def closes(host: Peer, stream: str) -> None:
    await host.send_close(4409)


async def talks_nonsense(host: Peer, stream: str) -> None:
    await host.say("ack", stream=stream, received=0)


async def leaves(host: Peer, stream: str) -> None:
    host.reset()


@pytest.mark.parametrize("answers", [closes, talks_nonsense, leaves])
async def test_a_host_that_ends_every_resume_is_asked_at_a_measured_pace(
    loop_factory: Any, monkeypatch: pytest.MonkeyPatch, answers: Callable[[Peer, str], Awaitable[None]]
) -> None:
    """A few times at once, then once a while; each stream until its window is over."""
    monkeypatch.setattr(session, "LEGS_AT_ONCE", 3)
    monkeypatch.setattr(session, "NEXT_LEG", 0.1)
    window = 0.5
    async with System() as system, contextlib.AsyncExitStack() as stack:
        client = await system.client("mc", resume_window=window)
        key, resumes, begun = new_id(), 0, time.monotonic()

        async def host() -> Peer:
            return await stack.enter_async_context(await system.dial("host", v1=True, instance_key=key))

        leg = await host()
        streams = await connect(client.ports[0])
        await leg.heard()
        stream = (await leg.heard())["stream"]
        await leg.say("accepted", stream=stream, window=1 << 20)
        await until(lambda: system.events("stream opened"))
        leg.reset()
        async with asyncio.timeout(20):
            with contextlib.suppress(TimeoutError):
                while not system.events("stream closed"):
                    leg = await host()
                    async with asyncio.timeout(window):
                        assert (await leg.heard())["type"] == "paired"
                        assert (await leg.heard())["type"] == "resume"
                    resumes += 1
                    await answers(leg, stream)
        with pytest.raises(ConnectionResetError):
            await streams[0].read()
        assert system.events("stream closed")[0]["reason"] == f"no resume within {window:g} s"
        assert 3 <= resumes <= 3 + (time.monotonic() - begun) / 0.1
        assert len(system.events("resume failed")) >= resumes - 1
        await close(streams[1])
