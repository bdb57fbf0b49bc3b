"""The soak: fifty streams through a tunnel of five processes that break, and the judgement."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import shutil
import ssl
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from support.apps import CHUNK, Streams, close, connect, reset
from support.wire import Wire
from tunnel_core.protocol.seal.errors import Fault

from bench import machine
from demo.processes import Process, Tunnel, free_port

from . import chart
from .chaos import Chaos
from .logs import LogReader
from .streams import KINDS, STUCK, Corrupt, End, FalseEnd, Flow, Kind
from .watch import MIB, Limit, Sample, Trend, Watch, trends

SEALS: Final = bool(getattr(ssl, "HAS_PSK", False))  # from Python 3.13 on
HEADER: Final = struct.Struct("!Q")  # a stream's number: its first bytes, so that the server knows what to do
HOSTS: Final = ("host-agent", "host-agent-2")
SETTLE: Final = 120.0  # seconds until nothing is left: idle pairs are let go after 30, ended streams forgotten after 60
SLACK: Final = {"descriptors": 12, "tasks": 4}  # warm legs, a dial under way
# A stream that the client-agent could not yet open when the relay was lost is reset, by PROTOCOL.md.
NOT_OPENED: Final = (
    "nobody knows whether a host has this stream",
    "no leg to the relay in time",
    "no host",
    "this stream is known already",
)
PANELS: Final = (
    chart.Panel("Memory, MB resident", lambda sample: sample.memory / 1e6),
    chart.Panel("Open descriptors", lambda sample: sample.descriptors),
    chart.Panel("Tasks of the event loop", lambda sample: sample.tasks),
    chart.Panel("Streams", lambda sample: sample.streams if "agent" in sample.process else None),
    chart.Panel(
        "Kept for a resume, MB",
        lambda sample: None if sample.replay is None or "agent" not in sample.process else sample.replay / 1e6,
    ),
)


class Stream:
    """One stream, and how it ended at either end."""

    def __init__(self, number: int, kind: Kind, client: Process, seed: int) -> None:
        self.number = number
        self.kind = kind
        self.client = client.name
        self.host = ""  # until it arrives at one
        self.address = ""  # of the client application
        self.up, self.down = Flow(seed * 1_000_003 + 2 * number), Flow(seed * 1_000_003 + 2 * number + 1)
        self.chance = random.Random(f"{seed} {number}")
        self.seconds = self.chance.uniform(*kind.lasts)
        self.client_resets = self.chance.random() < 0.5
        self.born = time.monotonic()
        self.at_client = ""  # the outcome there
        self.at_server: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.judged = False

    @property
    def bytes_checked(self) -> int:
        return self.up.got + self.down.got

    def __str__(self) -> str:
        server = self.at_server.result() if self.at_server.done() else "never arrived" if not self.host else "open"
        return (
            f"stream {self.number} ({self.kind.name}) of {self.client} to {self.host or 'no host'}: "
            f"{self.at_client} at the client, {server} at the server, after {time.monotonic() - self.born:.1f} s, "
            f"{self.up.got} of {self.up.sent} bytes up, {self.down.got} of {self.down.sent} down"
        )


class Soak:
    """Runs for `seconds` and the time that it takes to come to rest. `agents` are flags for all agents."""

    def __init__(self, seconds: float, seed: int, output: Path, *, agents: Sequence[str] = ()) -> None:
        self._seconds = seconds
        self._seed = seed
        self._output = output
        self._flags = agents
        self._stopping = asyncio.Event()
        self._streams: dict[int, Stream] = {}
        self._ended: Counter[str] = Counter()  # by how
        self._checked = 0  # bytes
        self._kinds: Counter[str] = Counter()
        self._not_opened: Counter[str] = Counter()
        self.problems: list[str] = []
        self._judges: set[asyncio.Task[None]] = set()
        self._next = 0

    async def run(self) -> bool:
        """All of it. Returns whether all was well."""
        sealed = "half of them sealed" if SEALS else "NONE SEALED, as that needs Python 3.13"
        count = sum(kind.count for kind in KINDS)
        print(f"soak: {self._seconds:g} s, seed {self._seed}, {count} streams, {sealed}", flush=True)
        async with contextlib.AsyncExitStack() as stack:
            near, far = await stack.enter_async_context(Wire(0)), await stack.enter_async_context(Wire(0))
            servers = [
                await asyncio.start_server(self._accept(name), "127.0.0.1", 0, limit=CHUNK, backlog=1024)
                for name in HOSTS
            ]
            ports = [int(server.sockets[0].getsockname()[1]) for server in servers]
            tunnel = Tunnel(
                target=ports[0],
                client_via=near.port,
                host_via=far.port,
                agents=self._flags,
                relay=("--drain", "5s"),
                sealed=SEALS,
            )
            near.target = far.target = tunnel.relay_port
            host = tunnel.add_host(HOSTS[1], ports[1])
            second = free_port()
            client = tunnel.add_client("client-agent-2", second)
            tunnel.all += [host, client]
            users = [(tunnel.client, tunnel.port), (tunnel.client, tunnel.port), (client, second)]
            if SEALS:
                third = free_port()
                sealed_client = tunnel.add_client("client-agent-3", third, sealed=True)
                tunnel.all.append(sealed_client)
                users = [(tunnel.client, tunnel.port), (sealed_client, third), (client, second), (sealed_client, third)]
            stack.callback(tunnel.stop)
            await asyncio.to_thread(tunnel.__enter__)
            await self._soak(tunnel, host, client, users, near, far)
            for server in servers:
                server.close()
        return not self.problems

    async def _soak(
        self, tunnel: Tunnel, host: Process, client: Process, ports: list[tuple[Process, int]], near: Wire, far: Wire
    ) -> None:
        """`ports` are those that streams take in turn, each with its client-agent."""
        agents = [process for process in tunnel.all if process is not tunnel.relay]
        self._logs = {process.name: LogReader(process) for process in tunnel.all}
        self._chaos = Chaos(
            random.Random(self._seed), tunnel.relay, agents, [host, client], near, far, lambda text: None
        )
        self._watch = Watch(tunnel.all, self._chaos.stopped)
        began = time.monotonic()
        before = {process.name: await self._watch.look(process) for process in tunnel.all}
        looking = asyncio.create_task(self._watch.run(max(0.5, min(6.0, self._seconds / 600))))
        reading = asyncio.create_task(self._read())
        slots = [(kind, place) for kind in KINDS for place in range(kind.count)]
        users = [asyncio.create_task(self._slot(kind, *ports[place % len(ports)])) for kind, place in slots]
        try:
            breaking = asyncio.create_task(self._chaos.run(self._seconds))
            await asyncio.wait([breaking, *users], return_when=asyncio.FIRST_COMPLETED)
            breaking.result()
            await asyncio.sleep(max(0.0, began + self._seconds - time.monotonic()))
            self._stopping.set()
            await asyncio.gather(*users)
            while self._judges:
                await asyncio.gather(*self._judges)
            self._came_to_rest = await self._settle(tunnel.all, before)
        finally:
            for task in (breaking, looking, reading, *users):
                task.cancel()
            await asyncio.gather(breaking, looking, reading, *users, return_exceptions=True)
            self._chaos.mend()
        self._judge_all(began)
        self._write(tunnel.all, began)

    async def _read(self) -> None:
        """Read the logs now and then, and say how it goes."""
        began = told = time.monotonic()
        while True:
            await asyncio.sleep(2)
            for log in self._logs.values():
                log.read()
            now = time.monotonic()
            if now - told >= 60:
                told = now
                print(
                    f"  {(now - began) / 60:4.0f} min  {sum(self._chaos.count.values())} faults, "
                    f"{self._next} streams, {self._bytes >> 20} MiB checked, {len(self.problems)} problems",
                    flush=True,
                )

    @property
    def _bytes(self) -> int:
        return self._checked + sum(stream.bytes_checked for stream in self._streams.values())

    # The streams.

    async def _slot(self, kind: Kind, client: Process, port: int) -> None:
        """One place: a stream of this kind after the other."""
        chance = random.Random()
        while not self._stopping.is_set():
            try:
                connection = await connect(port)
            except OSError:
                await asyncio.sleep(0.2)  # the agent is being restarted
                continue
            stream = Stream(self._next, kind, client, self._seed)
            self._next += 1
            self._streams[stream.number] = stream
            stream.at_client = await self._play(stream, connection, client=True)
            task = asyncio.create_task(self._judge(stream))
            self._judges.add(task)
            task.add_done_callback(self._judges.discard)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chance.uniform(0.1, 2)):
                    await self._stopping.wait()

    def _accept(self, host: str) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(STUCK):
                    (number,) = HEADER.unpack(await reader.readexactly(HEADER.size))
            except (OSError, EOFError) as exc:
                # An agent ended, or a leg was lost before the first byte came; but not with a FIN of nobody's.
                if not isinstance(exc, ConnectionError) and not self._hurt(host, time.monotonic(), killed=True):
                    self.problems.append(f"a connection from {host} ended before its first byte: {exc!r}")
                await close(writer)
                return
            stream = self._streams.get(number)
            if stream is None:
                await close(writer)  # its client broke it off, and was judged; no byte of it is awaited
                return
            stream.host = host
            outcome = await self._play(stream, (reader, writer), client=False)
            if not stream.at_server.done():
                stream.at_server.set_result(outcome)

        return serve

    async def _play(self, stream: Stream, connection: Streams, *, client: bool) -> str:
        """Do one end's part. Returns the outcome there."""
        reader, writer = connection
        out, into = (stream.up, stream.down) if client else (stream.down, stream.up)
        resets = stream.kind.name == "broken off" and client == stream.client_resets
        chance = random.Random(stream.chance.random())
        end = End(reader, writer, out, into, chance, self._stopping, stream.seconds, resets)
        try:
            if client:
                name = writer.get_extra_info("sockname")
                stream.address = f"{name[0]}:{name[1]}"
                writer.write(HEADER.pack(stream.number))
                await stream.kind.client(end)
            else:
                await stream.kind.server(end)
        except Corrupt as exc:
            self.problems.append(f"WRONG BYTES at the {'client' if client else 'server'}: {exc}: {stream}")
            outcome = "wrong bytes"
        except FalseEnd:
            outcome = "false FIN"
        except TimeoutError:
            outcome = "stuck"
        except (OSError, RuntimeError) as exc:
            if isinstance(exc, RuntimeError) and "the handler is closed" not in str(exc):
                raise
            outcome = "reset"
        else:
            outcome = "broke it off" if resets else "finished"
        if outcome != "finished":
            reset(writer)
        await close(writer)
        return outcome

    # The judgement.

    def _hurt(self, agent: str, since: float, *, killed: bool = False) -> bool:
        """Whether this agent ended after this time: what it carried then ended with it."""
        return any(
            hurt.agent == agent and hurt.ended + 1 >= since and (hurt.killed or not killed)
            for hurt in self._chaos.hurts
        )

    async def _judge(self, stream: Stream) -> None:
        """Say how it ended, once both ends have."""
        if stream.at_client != "finished" and not stream.host:
            await asyncio.sleep(5)  # it may be on its way
        if stream.host:
            try:
                async with asyncio.timeout(STUCK * 1.5):
                    await stream.at_server
            except TimeoutError:
                self.problems.append(f"the other end heard nothing: {stream}")
        self._logs[stream.client].read()
        how = self._how(stream)
        if not how:
            self.problems.append(f"broken and not meant: {stream}: {self._why(stream)}")
            how = "broken, not meant"
        self._ended[how] += 1
        self._kinds[stream.kind.name] += 1
        self._checked += stream.bytes_checked
        del self._streams[stream.number]

    def _why(self, stream: Stream) -> str:
        return self._logs[stream.client].broken.get(stream.address, (False, "not in the client-agent's log"))[1]

    def _how(self, stream: Stream) -> str:
        """In a few words; empty if it should not have ended so."""
        server = stream.at_server.result() if stream.at_server.done() else ""
        ends = {stream.at_client, server}
        if ends == {"finished"}:
            return "finished"
        if ends == {"broke it off", "reset"}:
            return "broken off by one end, reset at the other"
        allowed = {"finished", "reset", "broke it off", ""}
        # If no server heard of it, either host-agent may have had it.
        hosts = (stream.host,) if stream.host else HOSTS
        for name, far in ((stream.client, server), *((host, stream.at_client) for host in hosts)):
            if self._hurt(name, stream.born):
                # The kernel closes the sockets of an agent that was killed, with FIN or RST. The far end is reset.
                judged = {far} if self._hurt(name, stream.born, killed=True) else ends
                if judged <= allowed:
                    return "ended with its agent"
        if stream.at_client == "reset" and server in ("", "reset"):
            opened, reason = self._logs[stream.client].broken.get(stream.address, (True, ""))
            hurt = any(self._hurt(name, stream.born) for name in HOSTS)
            # A handshake has ten seconds, whatever happens to its leg.
            if (not opened or reason == Fault.TIMEOUT.line) and (
                hurt or self._chaos.in_trouble(stream.born - 15, time.monotonic())
            ):
                self._not_opened[reason] += 1
                return "not opened while the relay was away"
        return ""

    async def _settle(self, processes: list[Process], before: dict[str, Sample | None]) -> list[str]:
        """Wait until nothing is left. Returns what is."""
        deadline = time.monotonic() + SETTLE
        while True:
            left = []
            for process in processes:
                now, then = await self._watch.look(process), before[process.name]
                if now is None or then is None or now.tasks is None or then.tasks is None:
                    left.append(f"{process.name} does not answer")
                    continue
                if now.streams or now.replay:
                    left.append(f"{process.name} still has {now.streams} streams, {now.replay} bytes for a resume")
                for name, slack in SLACK.items():
                    is_now, was = getattr(now, name), getattr(then, name)
                    # The relay holds a leg of each warm leg of all agents.
                    if is_now > was + slack * (len(processes) - 1 if process.name == "relay" else 1):
                        left.append(f"{process.name} has {is_now} {name}, and had {was} before")
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(1)

    def _judge_all(self, began: float) -> None:
        for log in self._logs.values():
            log.read()
        self.problems += self._came_to_rest
        for name, log in self._logs.items():
            self.problems += [f"{name} logged a bug: {line}" for line in log.bugs]
            self.problems += [f"{name} wrote: {line}" for line in log.other[:10]]
        self._trends = list(trends([s for s in self._watch.samples if s.at <= self._seconds]))
        for trend in self._trends:
            if not trend.is_flat:
                self.problems.append(f"NOT FLAT: {describe(trend)}")

    def _write(self, processes: list[Process], began: float) -> None:
        """The report on the terminal; the plot and the figures in the output folder."""
        print("\n" + "\n".join(self._report()), flush=True)
        self._output.mkdir(parents=True, exist_ok=True)
        deaths = [at - began for at in self._chaos.deaths]
        (self._output / "soak.svg").write_text(chart.draw(self._watch.samples, PANELS, deaths))
        figures = {
            "seconds": self._seconds,
            "seed": self._seed,
            "machine": str(machine.describe()),
            "faults": self._chaos.count,
            "streams": self._ended,
            "kinds": self._kinds,
            "not opened": self._not_opened,
            "bytes checked": self._bytes,
            "pauses ms": self._pauses(),
            "trends": [dataclasses.asdict(trend) | {"limit": trend.limit.name} for trend in self._trends],
            "problems": self.problems,
            "samples": [sample.flat() for sample in self._watch.samples],
        }
        (self._output / "soak.json").write_text(json.dumps(figures, indent=1) + "\n")
        if self.problems:
            for process in processes:
                shutil.copy(process.log, self._output / process.log.name)
        print(f"\nplot and figures: {self._output}/soak.svg, soak.json")

    def _pauses(self) -> list[int]:
        return sorted(pause for name in self._logs if "client" in name for pause in self._logs[name].pauses)

    def _report(self) -> Iterator[str]:
        pauses = self._pauses()
        yield f"{sum(self._chaos.count.values())} faults:"
        yield from (f"  {count:6}  {name}" for name, count in sorted(self._chaos.count.items()))
        yield f"{sum(self._ended.values())} streams, {self._bytes / MIB:.0f} MiB checked byte by byte:"
        yield from (f"  {count:6}  {name}" for name, count in self._ended.most_common())
        yield from (f"          {count} x {reason}" for reason, count in self._not_opened.most_common())
        if pauses:
            middle, late = pauses[len(pauses) // 2], pauses[len(pauses) * 99 // 100]
            yield f"{len(pauses)} resumes; pause {middle} ms (p50), {late} ms (p99), {pauses[-1]} ms at most"
        yield "memory, descriptors and tasks, from the second minute of a process' life on:"
        yield from (f"  {describe(trend)}" for trend in self._trends)
        if not self._trends:
            yield "  not judged: no process lived for three minutes"
        yield "PROBLEMS:" if self.problems else "no problem"
        yield from (f"  {problem}" for problem in self.problems[:50])


def describe(trend: Trend) -> str:
    """One line."""
    limit: Limit = trend.limit
    values = ", ".join(
        f"{name} {value / limit.scale:.1f}"
        for name, value in (
            ("first third", trend.first),
            ("last third", trend.last),
            ("at most", trend.most),
        )
    )
    return (
        f"{trend.process} ({trend.life + 1}.), {limit.name}{limit.unit and ', ' + limit.unit}: {values}, "
        f"{trend.seconds / 60:.1f} min"
    )
