"""A leg that has ended or is closing takes nothing more, and whatever its peer did, all comes to rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.apps import echo, serve, until
from support.hostile_relay import HostileRelay, frame, says
from support.system import System
from tunnel_core.protocol.control import MIN_WINDOW
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.protocol.frames import CloseCode
from websockets.frames import Opcode

WINDOW = 0.3  # of resume, in seconds


def opens(stream: str = "") -> bytes:
    return says("open", stream=stream or new_id(), key=new_id(), window=MIN_WINDOW)


# What ends a leg on which a stream was reset.
ENDINGS = {
    "data without a stream": frame(Opcode.BINARY, b"?"),
    "a second stream": opens(),
    "a close frame": frame(Opcode.CLOSE, (1000).to_bytes(2, "big")),
    "no message": frame(Opcode.TEXT, b"?"),
    "a message that may not travel this way": says("accepted", stream=new_id(), window=MIN_WINDOW),
    "no frame": b"\xf2\x00",
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_nothing_is_handled_after_what_ends_a_leg(loop_factory: Any, ending: str) -> None:
    """The rest of the read would make a stream that nobody ever ends."""
    accepted = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await echo(reader, writer)

    async with serve(counts) as target, System() as system, HostileRelay() as relay:
        host = await system.host({"mc": target}, relay=relay.url, resume_window=WINDOW)
        for _ in range(5):
            leg, stream = await relay.leg(), new_id()
            leg.writer.write(says("paired", peer="a") + opens(stream))
            assert (await leg.heard())["type"] == "accepted"
            rest = says("reset", stream=stream, reason="") + ENDINGS[ending] + opens() + frame(Opcode.BINARY, b"more")
            leg.writer.write(rest)
            await leg.over.wait()
        await until(lambda: not list(host.sessions()))
        await system.check()
        assert accepted == 5


@pytest.mark.parametrize("role", ["host", "client"])
@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != "a second stream"])
async def test_a_leg_that_ends_with_its_handshake(loop_factory: Any, role: str, ending: str) -> None:
    """What comes with the 101 response ends the leg; agents go on dialing, and nothing is left of it."""
    greeting = says("paired") + ENDINGS[ending] * 3 + opens() + frame(Opcode.PING)
    async with serve(echo) as target, System() as system, HostileRelay(greeting) as relay:
        if role == "host":
            await system.host({"mc": target}, relay=relay.url, resume_window=WINDOW, wait=False)
        else:
            await system.client("mc", relay=relay.url, resume_window=WINDOW, wait=False)
        for _ in range(4):
            await (await relay.leg()).over.wait()


async def test_a_stream_that_broke_is_the_last_of_its_pair(loop_factory: Any) -> None:
    """Its pair is about to be closed: a stream opened on it would break with it."""
    async with serve(echo) as target, System() as system, HostileRelay() as relay:
        await system.host({"mc": target}, relay=relay.url, resume_window=WINDOW)
        leg, stream = await relay.leg(), new_id()
        leg.writer.write(says("paired") + opens(stream) + says("reset", stream=stream, reason="") + opens())
        await leg.over.wait()
        assert len(system.events("stream closed")) == 1


async def test_a_closing_leg_is_paired_with_nobody(loop_factory: Any) -> None:
    """Neither a host's nor a client's: it has been told to go, and has not answered yet."""
    async with System() as system:
        pairing = system.relay.pairing
        async with await system.dial("host"):
            await until(lambda: pairing.host_legs("mc") == 1)
            (leg,) = pairing.legs
            leg.close(CloseCode.POLICY_VIOLATION, "the token was revoked")
            async with await system.dial("client"):
                await until(lambda: pairing.waiting == 1)
        await until(lambda: not pairing.legs)
        async with await system.dial("client"):
            await until(lambda: pairing.waiting == 1)
            (leg,) = pairing.legs
            leg.close(CloseCode.POLICY_VIOLATION, "the token was revoked")
            async with await system.dial("host"):
                await until(lambda: pairing.host_legs("mc") == 1)
