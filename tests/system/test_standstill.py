"""A machine that slept, or came to another network: its legs are dead, and nothing says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from client_agent import session
from support.apps import close, connect, echo, exchange, serve, until
from support.system import System
from support.wire import Wire
from tunnel_core.agent.times import AgentTimes
from tunnel_core.net import liveness, route
from tunnel_core.net.liveness import LegTimes


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that would notice a dead leg in another way takes longer than any test."""
    monkeypatch.setattr(session, "OPEN_TIMEOUT", 1000.0)
    monkeypatch.setattr(session, "RESUMED_TIMEOUT", 1000.0)


def patient_system(answer: float = 2.0, tick: float = 1.0) -> System:
    """One in which a suspected leg has `answer` seconds, and all else has time."""
    legs = LegTimes(tick=tick, answer=answer, carrying=(1000.0, 1000.0), idle=(1000.0, 1000.0))
    return System(legs=legs, agents=AgentTimes(legs=legs, dial=1000.0, route=0.02))


class Machine:
    """The machine that agents run on, and its cable."""

    def __init__(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        self._wire = wire
        self._asleep = 0.0
        self._source = "192.0.2.1"
        monkeypatch.setattr(liveness, "slept", lambda: self._asleep)
        monkeypatch.setattr(route, "source_address", lambda peer: self._source)

    def _forgotten(self) -> None:
        """A NAT has forgotten the connections of before; new ones work."""
        self._wire.freeze()
        self._wire.frozen = False

    def sleep(self, seconds: float) -> None:
        self._forgotten()
        self._asleep += seconds

    def move(self) -> None:
        self._forgotten()
        self._source = "198.51.100.1"


async def test_a_connection_right_after_waking(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given a leg that was dialed since, and none of the ready legs and free pairs; those that are dead go."""
    async with serve(echo) as target, patient_system(0.2) as system, Wire(system.relay.port) as wire:
        machine = Machine(wire, monkeypatch)
        await system.host({"mc": target})
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        await exchange(client.ports[0], 1000)  # its pair is free now
        tunnel = client._tunnels["mc"]
        await until(lambda: len(tunnel._free) == 1)
        dead = [*tunnel._free, *tunnel.pool._born]
        opened = len(system.events("stream opening"))
        machine.sleep(3600)
        await exchange(client.ports[0], 1000)
        assert len(system.events("stream opening")) == opened + 1, "the first leg was a good one"
        await until(lambda: all(not leg.open for leg in dead))
        assert not system.events("stream resumed")


async def test_legs_that_lived_on_are_used_again(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a nap nothing is dead: nothing is lost."""
    async with serve(echo) as target, patient_system(0.1) as system, Wire(system.relay.port) as wire:
        machine = Machine(wire, monkeypatch)
        port = await system.pair(target, relay=f"ws://127.0.0.1:{wire.port}")
        streams = await connect(port)
        streams[1].write(b"before")
        assert await streams[0].readexactly(6) == b"before"
        legs = set(system.relay.pairing.legs)
        machine._asleep += 3600
        await exchange(port, 1000)
        await until(lambda: all(not agent.context.monitor._suspects for agent in system.agents))
        assert legs <= system.relay.pairing.legs
        assert not system.events("stream resumed")
        await close(streams[1])


@pytest.mark.parametrize("how", ["sleep", "move"])
async def test_a_stream_goes_on_after_waking_or_moving(
    loop_factory: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Its leg does not answer, so it is resumed on another."""
    async with serve(echo) as target, patient_system(0.2, tick=0.05) as system, Wire(system.relay.port) as wire:
        machine = Machine(wire, monkeypatch)
        await system.host({"mc": target})
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        reader, writer = await connect(client.ports[0])
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        await until(lambda: client._route._source)
        if how == "sleep":
            machine.sleep(3600)
        else:
            machine.move()
        writer.write(b"after")
        assert await reader.readexactly(5) == b"after"
        assert system.events("stood still" if how == "sleep" else "network changed")
        assert system.events("stream resumed")
        await close(writer)


async def test_a_host_that_wakes_up_has_new_legs_at_once(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay knows nothing of the old ones' death, but it takes the newest first."""
    async with serve(echo) as target, patient_system(0.1, tick=0.05) as system, Wire(system.relay.port) as wire:
        machine = Machine(wire, monkeypatch)
        host = await system.host({"mc": target}, relay=f"ws://127.0.0.1:{wire.port}")
        client = await system.client("mc")
        pool = host._tunnels[0].pool
        await until(lambda: pool.ready == 4)
        dead = set(pool._born)
        machine.sleep(3600)
        await until(lambda: pool.ready == 4 and not dead & set(pool._born))
        await exchange(client.ports[0], 1000)


async def test_a_stream_that_was_just_opening(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data went out on a dead leg, before anybody knew. It is opened anew."""
    async with serve(echo) as target, patient_system(0.2) as system, Wire(system.relay.port) as wire:
        machine = Machine(wire, monkeypatch)
        await system.host({"mc": target})
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        await until(lambda: client._route._source)
        machine._forgotten()
        transfer = asyncio.create_task(exchange(client.ports[0], 50_000))
        await until(lambda: sum(it.stream.sent for it in client.sessions()))
        machine.move()
        await transfer
        assert len(system.events("stream closed")) >= 1
        assert not [line for line in system.events("stream closed") if line["outcome"] != "finished"]


async def test_dials_begin_anew_on_another_network(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were under way on the old one would hang, and those that wait for the relay would wait on."""
    async with serve(echo) as target, patient_system() as system, Wire(system.relay.port) as wire:
        machine = Machine(wire, monkeypatch)
        await system.host({"mc": target})
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}")
        await until(lambda: client._route._source)
        wire.freeze()
        for leg in tuple(client._tunnels["mc"].pool._born):
            leg.abort()
        transfer = asyncio.create_task(exchange(client.ports[0], 1000))
        await until(lambda: client.context.dialer._underway)
        machine.move()
        await transfer
        # And in an outage.
        wire.shut()
        wire.cut()
        await until(lambda: client.context.dialer._outage.active)
        client.context.dialer._outage._next += 1000
        await until(lambda: not client.context.dialer._underway)
        await wire.open()
        machine._source = "203.0.113.1"
        await exchange(client.ports[0], 1000)
