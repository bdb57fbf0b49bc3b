"""Which legs meet: waiting, sharing, warm legs, and legs that only seem to be there."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
from client_agent import service as client_service
from client_agent import tunnel as client_tunnel
from host_agent import service as host_service
from host_agent.service import HostAgent
from host_agent.tunnel import MOST_WARM, HostTunnel
from support.apps import Handler, close, connect, echo, exchange, reset, serve, until
from support.metrics import Metrics
from support.peer import Peer
from support.system import System, bearer, token
from support.wire import Wire
from tunnel_core.net.liveness import LegTimes
from tunnel_core.protocol.endpoints import Role, new_id
from tunnel_core.protocol.identity import instance_of
from tunnel_core.service.settings import Secret
from tunnel_relay.early import ITEM
from tunnel_relay.limits import SPARE_RESUMES
from websockets.frames import Opcode


def says(word: bytes) -> Handler:
    """A server that says who it is, and ends when the client does."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word)
        await reader.read()

    return say


async def opens(client: Peer, stream: str = "") -> str:
    """Open a stream on a leg by hand. Returns its id."""
    stream = stream or new_id()
    await client.say("open", stream=stream, key=new_id(), window=65536)
    return stream


def warm(host: HostAgent) -> int:
    """How many legs of its first tunnel are ready."""
    return host._tunnels[0].pool.ready


# Waiting.


async def test_clients_that_come_before_their_host_are_served(loop_factory: Any) -> None:
    """Many more than the usual warm legs, with what they have said meanwhile."""
    async with serve(echo) as target, System() as system:
        client = await system.client("mc")
        waiting = [asyncio.create_task(exchange(client.ports[0], 200_000, seed)) for seed in range(20)]
        await until(lambda: system.relay.pairing.waiting == 20)
        await system.host({"mc": target}, wait=False, warm=1)
        await asyncio.gather(*waiting)
        assert system.relay.pairing.waiting == 0


async def test_a_host_that_comes_dials_for_all_who_wait(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first pairing tells how many they are: it dials that many legs together, and not one after the other."""
    monkeypatch.setattr(host_service, "TICK", 0.1)
    wanted: list[int] = []
    usual = HostTunnel._wanted

    def spied(tunnel: HostTunnel) -> int:
        wanted.append(usual(tunnel))
        return wanted[-1]

    monkeypatch.setattr(HostTunnel, "_wanted", spied)
    async with serve(echo) as target, System() as system:
        client = await system.client("mc")
        waiting = [asyncio.create_task(exchange(client.ports[0], 1000, seed)) for seed in range(20)]
        await until(lambda: system.relay.pairing.waiting == 20)
        host = await system.host({"mc": target}, wait=False, warm=1)
        await asyncio.gather(*waiting)
        first = next(number for number in wanted if number > 1)
        assert first == 1 + 19, "the usual one, and one for each who still waits"
        assert max(wanted) <= MOST_WARM
        await until(lambda: usual(host._tunnels[0]) == 1)


async def test_a_client_that_waits_in_vain_is_reset(loop_factory: Any) -> None:
    """Its connection breaks, at once when the wait is over, and the log says why."""
    async with System(wait=0.1) as system:
        client = await system.client("mc")
        reader, writer = await connect(client.ports[0])
        writer.write(b"anybody?")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)
        (closed,) = system.events("stream closed")
        assert (closed["outcome"], closed["reason"]) == ("refused", "no host-agent offers this tunnel now")
        assert closed["level"] == "warning"
        (refused,) = system.events("client refused")
        assert refused["reason"] == closed["reason"]


MEMORY = 256 * 1024  # a token's share of it is 64 KiB
TOO_MUCH = "too much waits for hosts: try again"


@pytest.mark.parametrize("v1", [False, True], ids=["raw", "v1"])
async def test_what_waits_is_bounded(loop_factory: Any, v1: bool) -> None:
    """A client that sends more than its token's share is told so at once; all others go on waiting, and are served."""
    async with serve(echo) as target, System(max_waiting_memory=MEMORY) as system, contextlib.AsyncExitStack() as stack:
        mine, theirs = bearer("client"), bearer("client")
        waiting = []
        for number, headers in enumerate((mine, theirs), 1):
            peer = await stack.enter_async_context(await Peer.dial(system.relay.port, "/client/mc", headers))
            await peer.send(bytes(60_000))
            await until(lambda: system.relay._limits._held == number * (60_000 + ITEM))
            waiting.append(peer)
        async with await Peer.dial(system.relay.port, "/client/mc", mine, v1=v1) as turned_away:
            stream = await opens(turned_away) if v1 else ""
            await turned_away.send(bytes(10_000))
            if v1:
                expected = {"type": "refused", "stream": stream, "reason": TOO_MUCH, "retry": True}
                assert await turned_away.heard() == expected
            close_frame = await turned_away.closed()
            assert (close_frame.code, close_frame.reason) == (1013, TOO_MUCH)
            assert system.relay._limits._held == 2 * (60_000 + ITEM)
            assert system.relay.pairing.waiting == 2
        await system.host({"mc": target})
        for peer in waiting:
            assert await peer.data(60_000) == bytes(60_000)
        assert system.relay._limits._held == 0


async def test_what_waited_with_a_client_that_leaves_is_let_go(loop_factory: Any) -> None:
    """Also with a raw host that spoke before there was a client."""
    async with System() as system:
        roles: tuple[Role, ...] = ("client", "host")
        for role in roles:
            async with await system.dial(role) as peer:
                await peer.send(bytes(60_000))
                await until(lambda: system.relay._limits._held == 60_000 + ITEM)
            await until(lambda: system.relay._limits._held == 0)


async def test_messages_that_wait_count_with_what_they_cost(loop_factory: Any) -> None:
    """Each takes several times its own bytes."""
    message = b'{"type":"x"}'
    async with System() as system, await system.dial("client", v1=True) as client:
        await opens(client)
        await until(lambda: system.relay._limits._held)
        before = system.relay._limits._held
        for _ in range(50):
            await client.send(message, Opcode.TEXT)
        await until(lambda: system.relay._limits._held == before + 50 * (len(message) + ITEM))


async def test_clients_cannot_use_up_what_their_host_may_have(loop_factory: Any) -> None:
    """One who asks for leg after leg of it leaves others theirs: paired, they count for him alone."""
    async with (
        serve(echo) as target,
        System(max_legs_per_token=8) as system,
        contextlib.AsyncExitStack() as stack,
    ):
        host = await system.host({"mc": target}, token=Secret(token("host")), secret=Secret())
        instance = instance_of(host.context.dialer._instance_key or "")
        mine = bearer("client")
        for attempt in range(8):
            greedy = await stack.enter_async_context(await Peer.dial(system.relay.port, "/client/mc", mine, v1=True))
            await greedy.say("resume", stream=new_id(), proof=new_id(), instance=instance, attempt=attempt, received=0)
            assert (await greedy.heard())["type"] == "paired"
        client = await system.client("mc")
        await exchange(client.ports[0], 1000)
        assert (await Metrics.scrape(system.relay.admin_port)).value(
            "relay_refusals_total", reason="legs-per-token"
        ) == 0


async def test_a_host_may_not_say_that_nothing_was_passed_on(loop_factory: Any) -> None:
    """Only the relay knows: a client that believes it opens the stream at another host."""
    for lie in ({"retry": True}, {"instance": new_id()}):
        async with (
            System() as system,
            await system.dial("host", v1=True) as host,
            await system.dial("client", v1=True) as client,
        ):
            stream = await opens(client)
            assert (await host.heard())["type"] == "paired"
            await host.say("refused", stream=stream, reason="full", **lie)
            assert (await client.heard())["type"] == "paired"
            assert (await client.closed()).code == 4410


async def test_resumes_that_wait_in_vain_keep_nobody_out(loop_factory: Any) -> None:
    """They count as streams of their token, and take no place from the tunnel's other clients."""
    async with (
        serve(echo) as target,
        System(max_streams_per_token=2, max_legs_per_token=50) as system,
        contextlib.AsyncExitStack() as stack,
    ):
        mine = bearer("client")

        async def resumes() -> Peer:
            peer = await Peer.dial(system.relay.port, "/client/mc", mine, v1=True)
            stack.push_async_callback(close, peer.writer)
            await peer.say("resume", stream=new_id(), proof=new_id(), instance=new_id(), attempt=1, received=0)
            return peer

        most = 2 * 2 + SPARE_RESUMES
        for number in range(most):
            await resumes()
            await until(lambda: system.relay.pairing.waiting == number + 1)
        close_frame = await (await resumes()).closed()
        assert (close_frame.code, close_frame.reason) == (1013, "too many streams with this token")
        other = await system.client("mc", warm=1)
        waiting = [asyncio.create_task(exchange(other.ports[0], 1000, seed)) for seed in range(2)]
        await until(lambda: system.relay.pairing.waiting == most + 2)
        await system.host({"mc": target})
        await asyncio.gather(*waiting)


async def test_a_flood_of_short_connections_is_served(loop_factory: Any) -> None:
    """More at once than the relay lets one token have streams: they take turns, and none is reset."""
    async with serve(echo) as target, System(max_streams_per_token=8) as system:
        await system.host({"mc": target})
        client = await system.client("mc", token=Secret(token("client")), secret=Secret())
        await asyncio.gather(*(exchange(client.ports[0], 2000, seed) for seed in range(40)))
        assert "too many streams with this token" in {line["reason"] for line in system.events("client refused")}
        assert {line["outcome"] for line in system.events("stream closed")} == {"finished"}


async def test_a_connection_that_ends_while_it_is_turned_away(loop_factory: Any) -> None:
    """It is not opened again."""
    async with serve(echo) as target, System(max_streams_per_token=1) as system:
        await system.host({"mc": target})
        client = await system.client("mc", token=Secret(token("client")), secret=Secret())
        reader, writer = await connect(client.ports[0])
        writer.write(b"first")
        assert await reader.readexactly(5) == b"first"
        second = await connect(client.ports[0])
        second[1].write(b"second")
        await until(lambda: system.events("client refused"))
        reset(second[1])
        await until(lambda: len(list(client.sessions())) == 1)
        await close(writer)
        await until(lambda: not list(client.sessions()))
        assert len(system.events("stream opened")) == 2, "one, at both agents"


async def test_waiting_clients_keep_nobody_from_a_host(loop_factory: Any) -> None:
    """Who can be served at once is, however much waits for other hosts."""
    async with System(max_waiting_memory=MEMORY) as system, contextlib.AsyncExitStack() as stack:
        waiting = await stack.enter_async_context(await system.dial("client", "db"))
        await waiting.send(bytes(60_000))
        host = await stack.enter_async_context(await system.dial("host"))
        client = await stack.enter_async_context(await system.dial("client"))
        await client.send(b"hello")
        assert await host.data(5) == b"hello"


async def test_a_client_that_leaves_waits_no_more(loop_factory: Any) -> None:
    """The host leg that comes then goes to the next."""
    async with System() as system:
        first = await system.dial("client")
        await until(lambda: system.relay.pairing.waiting == 1)
        async with await system.dial("client") as second:
            await until(lambda: system.relay.pairing.waiting == 2)
            first.reset()
            await until(lambda: system.relay.pairing.waiting == 1)
            async with await system.dial("host") as host:
                await second.send(b"mine")
                assert await host.data(4) == b"mine"


@pytest.mark.parametrize("order", list(itertools.permutations(["relay", "host", "client"])), ids="-".join)
async def test_they_start_in_any_order(loop_factory: Any, order: tuple[str, ...]) -> None:
    """And find each other."""
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        wire.shut()
        url = f"ws://127.0.0.1:{wire.port}"
        for name in order:
            if name == "relay":
                await wire.open()
            elif name == "host":
                host = await system.host({"mc": target}, relay=url, wait=False)
            else:
                client = await system.client("mc", relay=url, wait=False)
            await asyncio.sleep(0)
        await exchange(client.ports[0], 100_000)
        await until(lambda: not host.readiness() and not client.readiness())


@pytest.mark.parametrize("order", list(itertools.permutations(["relay", "host", "client"])), ids="-".join)
async def test_they_restart_in_any_order(loop_factory: Any, order: tuple[str, ...]) -> None:
    """After each the tunnel works; a stream outlives a restart of the relay, and is reset with an agent."""
    async with serve(echo) as target, System() as system, System() as other, Wire(system.relay.port) as wire:
        url = f"ws://127.0.0.1:{wire.port}"
        host = await system.host({"mc": target}, relay=url)
        client = await system.client("mc", relay=url)
        reader, writer = await connect(client.ports[0])
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        living = True
        for name in order:
            if name == "relay":
                wire.target = other.relay.port
                wire.cut()
            elif name == "host":
                await system.stop(host)
                host = await system.host({"mc": target}, relay=url, wait=False)
            else:
                await system.stop(client)
                client = await system.client("mc", relay=url, wait=False)
            living = living and name == "relay"
            if living:
                writer.write(b"still here")
                assert await reader.readexactly(10) == b"still here"
            await exchange(client.ports[0], 100_000)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)
        await system.stop_agents()


# Sharing.


async def held(port: int, stack: contextlib.AsyncExitStack) -> bytes:
    """What the server at the other end says, while the stream stays open until the test is over."""
    reader, writer = await connect(port)
    stack.push_async_callback(close, writer)
    return await reader.readexactly(1)


async def test_host_agents_share_a_tunnel_in_turn(loop_factory: Any) -> None:
    """Each gets as many of its streams as the others."""
    async with contextlib.AsyncExitStack() as servers, System() as system, contextlib.AsyncExitStack() as streams:
        hosts = []
        for word in (b"1", b"2", b"3"):
            hosts.append(await system.host({"mc": await servers.enter_async_context(serve(says(word)))}))
        client = await system.client("mc")
        got = []
        for _ in range(12):
            await until(lambda: all(warm(host) == 4 for host in hosts))
            got.append(await held(client.ports[0], streams))
        assert sorted(got) == [b"1"] * 4 + [b"2"] * 4 + [b"3"] * 4


async def test_two_host_agents_on_one_tunnel_are_seen(loop_factory: Any) -> None:
    """In the log, once for each that comes or leaves; in a metric; and by a doctor."""

    async def hosts() -> float:
        metrics = await Metrics.scrape(system.relay.admin_port)
        return metrics.value("relay_hosts", tunnel="mc")

    async with serve(echo) as target, System() as system:
        first = await system.host({"mc": target, "db": target}, warm=3)
        second = await system.host({"mc": target}, warm=3)
        await until(lambda: len(system.relay.pairing.legs) == 9)
        assert await hosts() == 2
        probe = await Peer.dial(system.relay.port, "/probe/client/mc", bearer("client"), v1=True)
        assert await probe.heard() == {"type": "probed", "hosts": 6, "instances": 2}
        await close(probe.writer)
        for agent in (second, first):
            await system.stop(agent)
            await until(lambda: len(system.relay.pairing.legs) in (6, 0))
        assert await hosts() == 0
        told = [(line["event"], line["hosts"]) for line in system.log if line.get("tunnel") == "mc" and "hosts" in line]
        assert told == [("host came", 1), ("host came", 2), ("host left", 1), ("host left", 0)]


async def test_a_host_agent_that_leaves_is_not_missed(loop_factory: Any) -> None:
    """The other serves all, from the next stream on."""
    async with (
        serve(says(b"1")) as one,
        serve(says(b"2")) as two,
        System() as system,
        contextlib.AsyncExitStack() as streams,
    ):
        first = await system.host({"mc": one})
        await system.host({"mc": two})
        client = await system.client("mc")
        assert {await held(client.ports[0], streams) for _ in range(4)} == {b"1", b"2"}
        await system.stop(first)
        assert {await held(client.ports[0], streams) for _ in range(4)} == {b"2"}


async def test_the_newest_leg_of_a_host_agent_is_taken(loop_factory: Any) -> None:
    """It is the surest to be alive."""
    key = new_id()
    async with System() as system, contextlib.AsyncExitStack() as stack:
        hosts = []
        for _ in range(3):
            hosts.append(await stack.enter_async_context(await system.dial("host", v1=True, instance_key=key)))
            await until(lambda: len(system.relay.pairing.legs) == len(hosts))
        for host in reversed(hosts):
            client = await stack.enter_async_context(await system.dial("client", v1=True))
            stream = await opens(client)
            paired = await host.heard()
            expected = {"type": "paired", "peer": "127.0.0.1", "subject": "tester", "leg": client.leg}
            assert paired == expected
            assert (await host.heard())["stream"] == stream
            assert await client.heard() == {"type": "paired", "instance": instance_of(key)}


async def test_a_half_dead_leg_is_not_chosen(loop_factory: Any) -> None:
    """A host-agent whose network has fallen silent gets no stream, long before its legs count as dead."""
    async with (
        serve(says(b"+")) as alive,
        serve(says(b"-")) as half_dead,
        System(legs=LegTimes(tick=0.05, idle=(0.1, 60.0), doubtful=1.5)) as system,
        Wire(system.relay.port) as wire,
        contextlib.AsyncExitStack() as streams,
    ):
        host = await system.host({"mc": half_dead}, relay=f"ws://127.0.0.1:{wire.port}")
        await until(lambda: warm(host) == 4)
        legs = set(system.relay.pairing.legs)
        await system.host({"mc": alive})
        client = await system.client("mc")
        wire.freeze()
        await until(lambda: all(system.relay._monitor.silence(leg) > 1.5 for leg in legs))
        assert [await held(client.ports[0], streams) for _ in range(8)] == [b"+"] * 8
        wire.thaw()
        await until(lambda: all(system.relay._monitor.silence(leg) < 1.5 for leg in legs))
        assert {await held(client.ports[0], streams) for _ in range(4)} == {b"+", b"-"}


# Warm legs and pairs.


async def test_a_stream_needs_no_handshake(loop_factory: Any) -> None:
    """Warm legs on both sides: when a stream opens, the relay has all it needs."""
    async with serve(says(b"!")) as target, System() as system, contextlib.AsyncExitStack() as streams:
        host = await system.host({"mc": target})
        client = await system.client("mc")
        await until(lambda: warm(host) == 4 and client._tunnels["mc"].pool.ready == 2)
        legs = set(system.relay.pairing.legs)
        assert len(legs) == 6
        assert await held(client.ports[0], streams) == b"!"
        assert sorted(leg.role for leg in legs if leg.peer) == ["client", "host"]


async def test_warm_legs_grow_with_demand_and_are_trimmed(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as streams came in a moment; once it is quiet, the usual few."""
    monkeypatch.setattr(host_service, "TICK", 0.1)
    async with serve(says(b"!")) as target, System() as system, contextlib.AsyncExitStack() as streams:
        host = await system.host({"mc": target}, warm=2)
        client = await system.client("mc")
        assert warm(host) <= 2
        # Some tick falls in the middle of so many.
        for _ in range(10):
            await asyncio.gather(*(held(client.ports[0], streams) for _ in range(20)))
            if warm(host) > 4:
                break
        await until(lambda: warm(host) > 4)
        assert warm(host) <= 64
        await until(lambda: warm(host) == 2)
        await until(lambda: len([leg for leg in system.relay.pairing.legs if leg.role == "host" and not leg.peer]) == 2)


async def test_as_many_warm_legs_as_are_asked_for(loop_factory: Any) -> None:
    """Also more than demand alone would ever make."""
    async with serve(says(b"!")) as target, System() as system:
        host = await system.host({"mc": target}, warm=80)
        await until(lambda: warm(host) == 80)


async def test_idle_pairs_are_let_go(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They occupy legs of a host: after a while without a stream they are closed."""
    monkeypatch.setattr(client_tunnel, "IDLE_PAIR", 0.1)
    monkeypatch.setattr(client_service, "TICK", 0.05)
    async with serve(echo) as target, System() as system:
        port = await system.pair(target)
        await asyncio.gather(*(exchange(port, 1000, seed) for seed in range(4)))
        await until(lambda: not [leg for leg in system.relay.pairing.legs if leg.carrying])
        await exchange(port, 1000)


async def test_a_free_pair_is_replaced_at_once(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a stream takes it and when it is lost: a leg is always ready, without a wait for the clock."""
    monkeypatch.setattr(client_service, "TICK", 3600.0)
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        await system.host({"mc": target})
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}", warm=1)
        tunnel = client._tunnels["mc"]
        await exchange(client.ports[0], 1000)
        await until(lambda: tunnel._free)
        tunnel.pool.trim()
        assert tunnel.pool.ready == 0, "the free pair is all that is wanted"
        reader, writer = await connect(client.ports[0])
        await until(lambda: tunnel.pool.ready == 1)
        writer.write_eof()
        assert await reader.read() == b""
        await close(writer)
        await until(lambda: tunnel._free)
        tunnel.pool.trim()
        wire.cut()
        await until(lambda: not tunnel._free and tunnel.pool.ready == 1)


@pytest.mark.parametrize("ends_first", ["client", "server"])
async def test_a_pair_is_used_again_whoever_ended_first(loop_factory: Any, ends_first: str) -> None:
    """Each stream has its own content, and nothing of the one before it."""

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if ends_first == "client":
            writer.write(b"got " + await reader.read())
        else:
            writer.write(b"got " + await reader.readexactly(1000))
            writer.write_eof()
            assert await reader.read() == b""

    async with serve(serves) as target, System() as system:
        await system.host({"mc": target})
        client = await system.client("mc", warm=1)
        for number in range(10):
            reader, writer = await connect(client.ports[0])
            word = b"%01000d" % number
            writer.write(word)
            if ends_first == "client":
                writer.write_eof()
            assert await reader.read() == b"got " + word
            await close(writer)
            await until(lambda: not list(client.sessions()))
        assert len(system.events("paired")) == 1


async def test_a_pair_whose_stream_broke_is_not_used_again(loop_factory: Any) -> None:
    """Refused or reset, it is closed on both sides."""
    async with serve(echo) as closed:
        pass
    async with System() as system:
        await system.host({"mc": closed})
        client = await system.client("mc", warm=1)
        for _ in range(3):
            reader, writer = await connect(client.ports[0])
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await close(writer)
        assert len(system.events("paired")) == 3
        await until(lambda: not [leg for leg in system.relay.pairing.legs if leg.carrying])
