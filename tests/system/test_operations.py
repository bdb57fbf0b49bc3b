"""What an operator sees and does: health, metrics, logs, signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host_agent.settings import HostSettings
from support.apps import close, connect, echo, exchange, receive, reset, send, serve, until
from support.commands import BIN, NO_UVLOOP, PREFIXES, environment, run, running
from support.metrics import Metrics
from support.peer import Peer, get
from support.system import System, bearer, token
from support.wire import Wire
from tunnel_core import __version__
from tunnel_core.net.liveness import LegTimes
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.service import logs
from tunnel_core.service.metrics import TunnelLabels
from tunnel_core.service.settings import Secret
from tunnel_relay.settings import RelaySettings

from demo.processes import Tunnel, free_port

BOUND = 10.0  # seconds in which a service stops
NUMBERS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
COMMANDS = pytest.mark.parametrize("command", PREFIXES)


# Health.


async def ready(port: int) -> tuple[int, str]:
    """What /readyz says."""
    assert (await get(port, "/healthz")).status == 200
    answer = await get(port, "/readyz")
    assert answer.headers["cache-control"] == "no-store"
    return answer.status, answer.text


async def test_the_relay_answers_on_both_ports(loop_factory: Any) -> None:
    """Hosting platforms see the public one only; /metrics is for the operator alone."""
    async with System() as system:
        for port in (system.relay.port, system.relay.admin_port):
            assert await ready(port) == (200, "ready\n")
            assert (await get(port, "/healthz?x=1")).text == "ok\n"
        assert (await get(system.relay.port, "/metrics")).status == 404
        assert (await get(system.relay.admin_port, "/nowhere")).status == 404
        assert (await get(system.relay.admin_port, "/client/mc", upgrade=True)).status == 404


async def test_the_relay_listens_on_both_families(loop_factory: Any) -> None:
    """By default on all interfaces, IPv6 and IPv4; the admin port on loopback alone."""
    async with System(host=RelaySettings().host) as system:
        for host in ("127.0.0.1", "::1"):
            assert (await get(system.relay.port, "/healthz", host=host)).status == 200
    assert (RelaySettings().admin_host, HostSettings().admin_host) == ("127.0.0.1", "127.0.0.1")


async def test_a_relay_that_drains_is_not_ready(loop_factory: Any) -> None:
    """But alive. Its port is closed, so that balancers try the next relay; who was in is sent away for a moment."""
    async with System(drain=30.0, drain_alone=30.0) as system, await system.dial("host") as host:
        port = system.relay.port
        reader, writer = await connect(port)
        writer.write(f"GET /client/mc?token={token('client')} HTTP/1.1\r\nHost: x\r\n".encode())
        assert await ready(port) == (200, "ready\n")  # so that the connection before it has been accepted
        stopping = asyncio.create_task(system.relay.stop())
        await until(lambda: system.events("draining"))
        assert await ready(system.relay.admin_port) == (503, "draining\n")
        with pytest.raises(ConnectionRefusedError):
            await connect(port)
        writer.write(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        head = await reader.read()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in head
        await close(writer)
        host.reset()
        await stopping


async def test_connections_that_come_while_the_port_is_being_closed_end(loop_factory: Any) -> None:
    """None is left open with nobody to answer it: its agent would wait for ten seconds before it dials anew."""
    async with System() as system:
        socks = [socket.create_connection(("127.0.0.1", system.relay.port)) for _ in range(5)]
        for _ in range(2):  # until they have been accepted, and not a turn of the loop longer
            await asyncio.sleep(0)
        await system.relay.stop()
        loop = asyncio.get_running_loop()
        for sock in socks:
            sock.setblocking(False)
            with contextlib.suppress(ConnectionResetError), sock:
                async with asyncio.timeout(5):
                    assert await loop.sock_recv(sock, 1) == b""


async def test_a_host_agent_is_ready_with_a_leg_for_each_tunnel(loop_factory: Any) -> None:
    """And not before, nor while the relay is away."""
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        wire.shut()
        url = f"ws://127.0.0.1:{wire.port}"
        host = await system.host({"mc": target, "db": target}, relay=url, admin_port=0, wait=False)
        assert host.admin is not None
        port = host.admin.port
        assert await ready(port) == (503, "no leg at the relay for: mc, db\n")
        await wire.open()
        await until(lambda: not host.readiness())
        assert await ready(port) == (200, "ready\n")
        wire.shut()
        wire.cut()
        await until(host.readiness)
        assert await ready(port) == (503, "no leg at the relay for: mc, db\n")
        await wire.open()
        await until(lambda: not host.readiness())
        # A stream that waits for its resume is no leg.
        async with await system.dial("client", v1=True) as client:
            await client.say("open", stream="0" * 32, key="1" * 32, window=65536)
            assert (await client.heard())["type"] == "paired"
            await until(lambda: list(host.sessions()))
            wire.shut()
            wire.cut()
            await until(host.readiness)
            assert len(list(host.sessions())) == 1
            assert await ready(port) == (503, "no leg at the relay for: mc, db\n")


async def test_a_client_agent_is_ready_when_it_reaches_the_relay(loop_factory: Any) -> None:
    """Whether or not anybody hosts the tunnel."""
    async with System() as system, Wire(system.relay.port) as wire:
        wire.shut()
        client = await system.client("mc", relay=f"ws://127.0.0.1:{wire.port}", admin_port=0, wait=False)
        assert client.admin is not None
        not_ready = (503, "the relay cannot be reached, or does not let this agent in\n")
        assert await ready(client.admin.port) == not_ready
        await wire.open()
        await until(lambda: not client.readiness())
        assert await ready(client.admin.port) == (200, "ready\n")
        wire.shut()
        wire.cut()
        await until(client.readiness)
        assert await ready(client.admin.port) == not_ready


async def test_agents_have_no_admin_port_unless_asked(loop_factory: Any) -> None:
    """One open port less on a friend's machine."""
    async with System() as system:
        assert (await system.client("mc")).admin is None


@COMMANDS
async def test_health_commands(loop_factory: Any, tmp_path: Path, command: str) -> None:
    """Exit code 0 if the service is ready, 1 if it is not or not there, 2 for a wrong call; one line each."""

    async def health(*arguments: str, **variables: str) -> tuple[int, str, str]:
        ended = await asyncio.to_thread(run, command, "health", *arguments, **variables)
        return ended.returncode, ended.stdout, ended.stderr

    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        if command == "relay":
            port = system.relay.admin_port
        else:
            url = f"ws://127.0.0.1:{wire.port}"
            agent = (
                await system.host({"mc": target}, relay=url, admin_port=0)
                if command == "host-agent"
                else await system.client("mc", relay=url, admin_port=0)
            )
            assert agent.admin is not None
            port = agent.admin.port
        variable = f"{PREFIXES[command]}_ADMIN_PORT"
        assert await health("--admin-port", str(port)) == (0, "ready\n", "")
        assert await health(**{variable: str(port)}) == (0, "ready\n", "")
        (tmp_path / "port").write_text(f"{port}\n")
        assert await health(**{f"{variable}_FILE": str(tmp_path / "port")}) == (0, "ready\n", "")
        assert await health("--admin-port", str(port), "--admin-host", "0.0.0.0") == (0, "ready\n", "")
        if command != "relay":
            wire.shut()
            wire.cut()
            await until(agent.readiness)
            code, said, _ = await health("--admin-port", str(port))
            assert (code, said) == (1, agent.readiness() + "\n")
    code, said, _ = await health("--admin-port", str(port))
    assert code == 1
    assert said.startswith(f"no answer from the admin port 127.0.0.1:{port}: ")
    code, said, error = await health("--admin-port", str(port), "--admin-host", "a..b")
    assert (code, error) == (1, "")
    assert said.startswith(f"no answer from the admin port a..b:{port}: ")


@COMMANDS
def test_health_commands_called_wrongly(command: str, tmp_path: Path) -> None:
    """Exit code 2, and one line that says what to write."""
    variable = f"{PREFIXES[command]}_ADMIN_PORT"
    cases: list[tuple[list[str], dict[str, str]]] = [
        (["--admin-port", "many"], {}),
        (["--admin-port", "65536"], {}),
        (["--colour", "blue"], {}),
        (["now"], {}),
        ([], {variable: "many"}),
        ([], {f"{variable}_FILE": str(tmp_path / "nowhere")}),
    ]
    if command != "relay":
        cases.append(([], {}))
    for arguments, variables in cases:
        ended = run(command, "health", *arguments, **variables)
        assert (ended.returncode, ended.stdout) == (2, ""), (arguments, variables)
        assert len(ended.stderr.splitlines()) == 1, ended.stderr
        assert ended.stderr.startswith(f"{command} health: ")


def test_health_of_all_interfaces_is_asked_over_ipv4(tmp_path: Path) -> None:
    """`::` may be IPv4 alone, as in a container without IPv6: 127.0.0.1 is always there."""
    port = free_port()
    flags = ("--auth", "none", "--port", "0", "--admin-host", "0.0.0.0", "--admin-port", str(port))
    with running(tmp_path, "relay", *flags, admin_port=port) as relay:
        relay.wait_ready()
        for host in ("::", "[::]", "0.0.0.0", "127.0.0.1", "localhost"):
            ended = run("relay", "health", "--admin-host", host, "--admin-port", str(port))
            assert (ended.returncode, ended.stdout) == (0, "ready\n"), host


@COMMANDS
def test_health_commands_import_next_to_nothing(command: str) -> None:
    """They run every few seconds: the standard library, and two small modules."""
    package = {"relay": "tunnel_relay", "host-agent": "host_agent", "client-agent": "client_agent"}[command]
    program = f"""
import sys
before = set(sys.modules)
sys.argv = ["{command}", "health", "--admin-port", "1"]
from {package}.__main__ import run
try:
    run()
finally:
    print(*sorted(set(sys.modules) - before))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    imported = ended.stdout.splitlines()[-1].split()
    ours = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    core = {"tunnel_core", "tunnel_core.service", "tunnel_core.service.health", "tunnel_core.service.textfile"}
    assert ours == {package, f"{package}.__main__"} | core
    assert "asyncio" not in imported


# Metrics.


async def test_the_relay_counts_what_it_carries(loop_factory: Any) -> None:
    """Legs and pairs now and ever, bytes by direction, waits, refusals."""

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader, 300_000)
        await send(writer, 500_000, 1)
        await reader.read()

    async with serve(serves) as target, System(legs=LegTimes(tick=0.05, idle=(0.1, 60.0))) as system:
        await system.host({"mc": target}, warm=2)
        client = await system.client("mc", warm=1)
        reader, writer = await connect(client.ports[0])
        sending = asyncio.create_task(send(writer, 300_000, 2, end=False))
        assert (await receive(reader))[0] == 500_000
        await sending
        await until(lambda: sum(1 for leg in system.relay.pairing.legs if not leg.peer) == 3)
        metrics = await Metrics.scrape(system.relay.admin_port)
        assert metrics.value("relay_bytes_total", tunnel="mc", role="client") == 300_000
        assert metrics.value("relay_bytes_total", tunnel="mc", role="host") == 500_000
        assert metrics.value("relay_legs", state="paired", mode="v1", role="host", tunnel="mc") == 1
        assert metrics.value("relay_legs", state="paired", mode="v1", role="client") == 1
        assert metrics.value("relay_legs", state="waiting", role="host") == 2
        assert metrics.value("relay_legs", state="waiting", role="client") == 1
        assert metrics.value("relay_legs", mode="raw") == 0
        assert metrics.value("relay_pairings_total", tunnel="mc") == 1
        assert metrics.value("relay_pair_wait_seconds_count") == 1
        assert metrics.value("relay_pair_wait_seconds_sum") == 0
        writer.write_eof()
        await close(writer)
        opened = metrics.value("relay_legs_opened_total", role="host")

        # A raw client waits a little, and is then served.
        async with await system.dial("client", "db") as raw:
            await until(lambda: system.relay.pairing.waiting == 1)
            assert (await Metrics.scrape(system.relay.admin_port)).value("relay_waiting_clients") == 1
            await asyncio.sleep(0.05)
            async with await system.dial("host", "db") as host:
                await raw.send(bytes(1000))
                await host.data(1000)
        await get(system.relay.port, "/client/mc", upgrade=True)
        await until(lambda: not [leg for leg in system.relay.pairing.legs if not leg.v1])
        metrics = await Metrics.scrape(system.relay.admin_port)
        assert metrics.value("relay_bytes_total", tunnel="db", role="client") == 1000, "also of legs that are gone"
        assert metrics.value("relay_pair_wait_seconds_sum") > 0.04
        assert metrics.value("relay_pairings_total") == 2
        assert metrics.value("relay_waiting_clients") == 0
        assert metrics.value("relay_refusals_total", reason="no-token") == 1
        assert metrics.value("relay_refusals_total") == 1
        assert metrics.value("relay_legs_opened_total", mode="raw") == 2
        assert metrics.value("relay_legs_opened_total", role="host", mode="v1") >= opened


async def test_agents_count_their_streams(loop_factory: Any) -> None:
    """Now and ever, by how they ended; bytes by direction; what is kept ready, and for a resume."""
    async with serve(echo) as target, System() as system:
        host = await system.host({"mc": target}, admin_port=0)
        client = await system.client("mc", admin_port=0)
        assert host.admin is not None
        assert client.admin is not None
        for seed in range(3):
            await exchange(client.ports[0], 10_000, seed)
        _, broken = await connect(client.ports[0])
        broken.write(bytes(7))
        await until(lambda: sum(session.stream.received for session in client.sessions()) == 7)
        reset(broken)
        reader, writer = await connect(client.ports[0])
        writer.write(bytes(500))
        await reader.readexactly(500)
        await until(lambda: len(system.events("stream closed")) == 8)
        await until(lambda: host._tunnels[0].pool.ready and client._tunnels["mc"].pool.ready)
        for agent, sent, received in ((host, 30_507, 30_507), (client, 30_507, 30_507)):
            assert agent.admin is not None
            metrics = await Metrics.scrape(agent.admin.port)
            assert metrics.value("tunnel_agent_streams", tunnel="mc") == 1
            assert metrics.value("tunnel_agent_detached_streams") == 0
            assert metrics.value("tunnel_agent_streams_opened_total", tunnel="mc") == 5
            assert metrics.value("tunnel_agent_open_seconds_count") == 5
            assert metrics.value("tunnel_agent_streams_ended_total", outcome="finished") == 3
            outcome = "reset-local" if agent is client else "reset-peer"
            assert metrics.value("tunnel_agent_streams_ended_total", outcome=outcome) == 1
            assert metrics.value("tunnel_agent_streams_ended_total") == 4
            assert metrics.value("tunnel_agent_bytes_total", direction="sent") == sent
            assert metrics.value("tunnel_agent_bytes_total", direction="received") == received
            assert metrics.value("tunnel_agent_ready_legs", tunnel="mc") >= 1
            assert metrics.value("tunnel_agent_replay_memory_limit_bytes") == 256 << 20
            assert metrics.value("tunnel_agent_dial_failures_total") == 0
        writer.write_eof()
        assert await reader.read() == b""
        await close(writer)


async def test_every_service_tells_what_it_is_and_how_it_does(loop_factory: Any) -> None:
    """Build, event loop and leg round trips, in the same metrics everywhere; and no label that could grow."""
    known = {
        "tunnel", "role", "mode", "state", "reason", "sealed", "direction", "outcome", "le", "service", "version",
        "python", "loop", "generation", "implementation", "major", "minor", "patchlevel",
    }  # fmt: skip
    async with serve(echo) as target, System(legs=LegTimes(tick=0.05, idle=(0.1, 60.0))) as system:
        given = Secret(token("client", subject="alex-from-school"))
        host = await system.host({"mc": target}, admin_port=0)
        client = await system.client("mc", admin_port=0, secret=Secret(), token=given)
        assert host.admin is not None
        assert client.admin is not None
        async with await system.dial("client") as raw:  # the relay pings raw legs itself
            await raw.send(b"hello")
            await exchange(client.ports[0], 1000)
            ports = {
                "relay": system.relay.admin_port,
                "host-agent": host.admin.port,
                "client-agent": client.admin.port,
            }
            for service, port in ports.items():
                await until(lambda: all(a.context.monitor._legs for a in system.agents))
                async with asyncio.timeout(20):
                    metrics = await Metrics.scrape(port)
                    while not metrics.value("tunnel_event_loop_lag_seconds_count") or (
                        service != "relay" and not metrics.value("tunnel_leg_round_trip_seconds_count")
                    ):
                        await asyncio.sleep(0.02)
                        metrics = await Metrics.scrape(port)
                info = {"service": service, "version": __version__, "python": platform.python_version()}
                assert metrics.value("tunnel_build_info", **info) == 1
                assert {label for sample in metrics.samples for label in sample.labels} <= known
                assert "alex" not in str(metrics.samples)
                assert metrics.value("process_resident_memory_bytes") > 0
                for family in metrics.families.values():
                    assert family.documentation, family.name


async def test_tunnel_labels_are_bounded(loop_factory: Any) -> None:
    """Two hundred names, the rest is one."""
    async with System(auth="none") as system, contextlib.AsyncExitStack() as stack:
        for number in range(205):
            await stack.enter_async_context(await Peer.dial(system.relay.port, f"/host/t{number}"))
            await stack.enter_async_context(await Peer.dial(system.relay.port, f"/client/t{number}"))
        metrics = await Metrics.scrape(system.relay.admin_port)
        for name in ("relay_legs", "relay_bytes_total", "relay_pairings_total"):
            assert len({sample.labels["tunnel"] for sample in metrics.samples if sample.name == name}) <= 201
        assert metrics.value("relay_legs", tunnel="other") == 10
        assert metrics.value("relay_pairings_total", tunnel="other") == 5
        assert metrics.value("relay_pairings_total") == 205
    labels = TunnelLabels()
    names = [labels(f"t{number}") for number in (*range(300), *range(300))]
    assert names[:200] == names[300:500] == [f"t{number}" for number in range(200)]
    assert set(names[200:300]) == set(names[500:]) == {"other"}


# Signals.


@pytest.fixture(params=["uvloop", "asyncio"])
def environ(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of services with uvloop, and as if it were not installed."""
    root = Path(__file__).parent.parent.parent
    return {"PYTHONPATH": os.pathsep.join((str(NO_UVLOOP), str(root)))} if request.param == "asyncio" else {}


@pytest.fixture
def tunnel(environ: dict[str, str]) -> Iterator[Tunnel]:
    """The services as processes, with an echo behind them."""
    with Tunnel(relay=["--drain", "2s"], environ=environ) as running_tunnel:
        yield running_tunnel


@NUMBERS
@COMMANDS
async def test_a_signal_stops_a_service(tunnel: Tunnel, command: str, number: signal.Signals) -> None:
    """With a stream on it, within 10 s, with exit code 0 and a last line."""
    process = {"relay": tunnel.relay, "host-agent": tunnel.host, "client-agent": tunnel.client}[command]
    reader, writer = await connect(tunnel.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    begun = time.monotonic()
    process.signal(number)
    assert await asyncio.to_thread(process.wait) == 0
    assert time.monotonic() - begun < BOUND
    assert json.loads(process.log.read_text().splitlines()[-1])["event"] == "stopped"
    if command != "relay":
        with pytest.raises(ConnectionResetError):
            await reader.read()
    await close(writer)


async def test_the_event_loop_is_told(tunnel: Tunnel, environ: dict[str, str]) -> None:
    """By its metric: uvloop where it is installed, else asyncio."""
    for process in (tunnel.relay, tunnel.host, tunnel.client):
        _, text = process.get("/metrics")
        assert Metrics(text).value("tunnel_build_info", loop="asyncio" if environ else "uvloop") == 1


@COMMANDS
async def test_a_second_signal_ends_at_once(environ: dict[str, str], tmp_path: Path, command: str) -> None:
    """Whatever is still waited for: here a peer that answers nothing."""
    port, broken = free_port(), asyncio.Event()

    async def watches(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        broken.set()

    async with serve(watches) as target, System(auth="none") as system, contextlib.AsyncExitStack() as stack:
        flags = {
            "relay": ("--host", "127.0.0.1", "--port", str(port), "--admin-port", "0", "--auth", "none"),
            "host-agent": ("--relay", system.url, "--tunnel", f"mc=127.0.0.1:{target}"),
            "client-agent": ("--relay", system.url, "--forward", "0=mc"),
        }[command]
        patience = ("--drain", "1h") if command == "relay" else ("--stop-timeout", "60s")
        process = stack.enter_context(running(tmp_path, command, *flags, *patience, environ=environ))
        await until(lambda: process.events("tunnel offered" if command == "host-agent" else "listening"))
        if command == "relay":
            await stack.enter_async_context(await Peer.dial(port, "/host/mc"))
        elif command == "host-agent":
            client = await stack.enter_async_context(await system.dial("client", v1=True))
            await client.say("open", stream="0" * 32, key="1" * 32, window=65536)
            assert (await client.heard())["type"] == "paired"
            assert (await client.heard())["type"] == "accepted"
        else:
            host = await stack.enter_async_context(await system.dial("host", v1=True))
            local = await connect(int(process.events("listening")[0]["address"].rpartition(":")[2]))
            stack.push_async_callback(close, local[1])
            assert (await host.heard())["type"] == "paired"
            assert (await host.heard())["type"] == "open"
            watching = asyncio.create_task(watches(*local))
        process.signal(signal.SIGTERM)
        if command == "relay":
            await until(lambda: process.events("draining"))
        else:
            await broken.wait()
        if command == "client-agent":
            await watching
        process.signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait) == 1
        assert not process.events("stopped")


# Opens a terminal as its own, as a login does, and becomes the command.
LOGIN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


async def test_a_terminal_that_is_closed_resets_what_is_unfinished() -> None:
    """The agent in it stops in order, though nobody reads its log: no application sees an end of data."""
    seen = asyncio.get_running_loop().create_future()

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of ")
        try:
            seen.set_result(await reader.read())
        except OSError as exc:
            seen.set_result(exc)

    async with serve(serves) as target, System(auth="none") as system:
        await system.host({"mc": target})
        port = free_port()
        ours, its = os.openpty()
        command = [str(BIN / "client-agent"), "--relay", system.url, "--forward", f"127.0.0.1:{port}=mc"]
        agent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", LOGIN, *command,
            stdin=its, stdout=its, stderr=its, env=environment(), start_new_session=True,
        )  # fmt: skip
        os.close(its)
        try:
            await until(lambda: any(leg.role == "client" for leg in system.relay.pairing.legs))
            reader, writer = await connect(port)
            assert await reader.readexactly(8) == b"half of "
            os.close(ours)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert isinstance(await seen, OSError)
            assert await asyncio.wait_for(agent.wait(), BOUND) == 0
            await close(writer)
        finally:
            if agent.returncode is None:
                agent.kill()
                await agent.wait()


@pytest.mark.parametrize("stops", ["host", "client"])
@pytest.mark.parametrize("half_closed", [False, True])
async def test_what_is_unfinished_is_reset(loop_factory: Any, stops: str, half_closed: bool) -> None:
    """When an agent stops, both applications see a reset: an end that nobody sent would look like all of it."""
    seen = asyncio.get_running_loop().create_future()

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of ")
        try:
            data = await reader.read()
            if half_closed:  # an end that was sent; the writing side is what is broken
                assert data == b"hello"
                while True:
                    writer.write(b".")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            seen.set_result(data)
        except OSError as exc:
            seen.set_result(exc)

    async with serve(serves) as target, System() as system:
        host = await system.host({"mc": target})
        client = await system.client("mc")
        reader, writer = await connect(client.ports[0])
        writer.write(b"hello")
        if half_closed:
            writer.write_eof()
        assert await reader.readexactly(8) == b"half of "
        await until(lambda: len(system.events("stream opened")) == 2)
        await system.stop(host if stops == "host" else client)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert isinstance(await seen, OSError)
        await close(writer)
        assert {line["outcome"] for line in system.events("stream closed")} == {"stopped", "reset-peer"}


# Logs.


def test_log_lines_are_json(tunnel: Tunnel) -> None:
    """One object a line: when, how bad, who, what; and ids that join the three services' lines."""
    run_echo(tunnel.port)
    logs = {process.name: process.log for process in (tunnel.relay, tunnel.host, tunnel.client)}
    deadline = time.monotonic() + 20
    while not (tunnel.host.events("stream closed") and tunnel.client.events("stream closed")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    streams = {}
    for service, path in logs.items():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            assert list(line)[:4] == ["timestamp", "level", "service", "event"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
            assert line["level"] in ("info", "warning", "error")
            assert line["service"] == service
        streams[service] = {line["stream"] for line in lines if "stream" in line}
        assert all(line["tunnel"] == "demo" for line in lines if "stream" in line)
    assert len(streams["relay"]) == 1
    assert streams["relay"] == streams["host-agent"] == streams["client-agent"]


def run_echo(port: int) -> None:
    """One small exchange, from outside any event loop."""
    asyncio.run(exchange(port, 10_000))


def on_terminal(*arguments: str) -> str:
    """What a relay writes to a terminal from its start to SIGTERM."""
    ours, its = os.openpty()
    flags = ["--host", "127.0.0.1", "--port", "0", "--admin-port", "0", "--auth", "none", *arguments]
    child = subprocess.Popen([BIN / "relay", *flags], stdin=its, stdout=its, stderr=its, env=environment())
    os.close(its)
    text, stopped = b"", False
    with contextlib.suppress(OSError):  # EIO: nobody has it open any more
        while data := os.read(ours, 4096):
            text += data
            if b"listening" in text and not stopped:
                child.terminate()
                stopped = True
    os.close(ours)
    assert child.wait(20) == 0
    return text.decode()


def test_a_terminal_gets_lines_for_people() -> None:
    """With colours; JSON there only if it is asked for."""
    lines = on_terminal().splitlines()
    assert not any(line.startswith("{") for line in lines)
    assert re.search(r"\d\d:\d\d:\d\d.*info.*listening.*address.*=.*127\.0\.0\.1:", lines[0])
    assert "\x1b[" in lines[0]
    for line in on_terminal("--log-format", "json").splitlines():
        json.loads(line)


def test_lines_for_people_without_a_terminal(tmp_path: Path) -> None:
    """If asked for, and then without colours."""
    flags = ("--host", "127.0.0.1", "--port", "0", "--admin-port", "0", "--auth", "none", "--log-format", "console")
    with running(tmp_path, "relay", *flags) as relay:
        deadline = time.monotonic() + 20
        while "listening" not in relay.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "\x1b[" not in relay.log.read_text()


@pytest.mark.parametrize("device", ["/dev/full", "broken pipe", "closed"])
@COMMANDS
def test_a_log_that_cannot_be_written_stops_nothing(command: str, device: str) -> None:
    """A full disk, a terminal that was closed: the service goes on, and ends as it should."""
    port = free_port()
    flags = {
        "relay": ("--auth", "none", "--host", "127.0.0.1", "--port", "0"),
        "host-agent": ("--relay", "ws://127.0.0.1:1", "--tunnel", "mc=127.0.0.1:1"),
        "client-agent": ("--relay", "ws://127.0.0.1:1", "--forward", "0=mc"),
    }[command]
    line = [str(BIN / command), *flags, "--admin-port", str(port), "--log-level", "debug"]
    if device == "closed":
        line = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *line]
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full" if device == "/dev/full" else os.devnull, "w") as file:
        stderr = writer if device == "broken pipe" else file.fileno()
        child = subprocess.Popen(line, env=environment(), stderr=stderr)
    os.close(writer)
    try:
        deadline = time.monotonic() + 20
        while run(command, "health", "--admin-port", str(port)).stdout.startswith("no answer"):
            assert child.poll() is None
            assert time.monotonic() < deadline
        child.terminate()
        assert child.wait(BOUND) == 0
    finally:
        child.kill()
        child.wait()


async def test_a_flood_of_streams_does_not_fill_the_log(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one client, at the relay and the host-agent: its lines are cut and counted, those of others are written."""
    monkeypatch.setattr(logs, "KEY_AT_ONCE", 20)
    monkeypatch.setattr(logs, "KEY_PER_SECOND", 0.001)

    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        for subject, times in (("mallory", 50), ("alex", 1)):
            headers = bearer("client", subject=subject)
            for _ in range(times):
                async with await Peer.dial(system.relay.port, "/client/mc", headers, v1=True) as client:
                    stream = new_id()
                    await client.say("open", stream=stream, key=new_id(), window=65536)
                    await client.say("reset", stream=stream, reason="")
                    while (await client.heard())["type"] != "reset":
                        pass
        await until(lambda: [line for line in system.events("stream closed") if line["subject"] == "alex"])
        for event in ("stream opening", "stream closed"):
            lines = [line for line in system.events(event) if line["subject"] == "mallory"]
            assert 5 <= len(lines) <= 20
            assert len([line for line in system.events(event) if line["subject"] == "alex"]) == 1
