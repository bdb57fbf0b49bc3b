"""Two stream ends, their applications, a relay, and legs between them that can be cut anywhere.

Everything is a step that a test, or hypothesis, chooses: the next item of a leg arrives, an
application writes, reads or ends, a leg is cut, an end learns of it, the client dials again.
Nothing happens by itself, so each order of events can be had.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from tunnel_core.protocol.control import (
    Accepted,
    Ack,
    Message,
    Open,
    Paired,
    Refused,
    Resume,
    Unknown,
    encode,
    to_client,
    to_host,
)
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.protocol.local import Carrier, Payload
from tunnel_core.protocol.replay import ReplayMemory
from tunnel_core.protocol.resume import ClientStream, HostStream, HostStreams, Refusal
from tunnel_core.protocol.seal.errors import Fault, SealError
from tunnel_core.protocol.seal.local import SealedLocal
from tunnel_core.protocol.seal.tls import ClientTls, HostTls
from tunnel_core.protocol.stream import Outcome, Phase, Stream, StreamContext
from tunnel_relay.history import History

WINDOW = 64 * 1024
INSTANCE = new_id()
SUBJECT = "tester"
BLOCK = 8 * 1024  # of replay memory: small, so that there are many

Seals = tuple[ClientTls, HostTls]


@functools.cache
def words(name: str) -> bytes:
    """What an application says, until it begins anew: no two places in it look alike."""
    return "".join(f"{name}{number} " for number in range(ord(name[0]) * 1000, ord(name[0]) * 1000 + 50_000)).encode()


class App:
    """An application and its TCP socket: what it writes, what it has read, and how the socket ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.written = bytearray()  # by the application, so far
        self.read = bytearray()  # by the application
        self.taken = 0  # of what it wrote, by the stream
        self.ended = False  # it sent a FIN
        self.eof_taken = False
        self.saw_eof = False
        self.aborted = False
        self.closed = False
        self.holds = 0
        self._kernel = bytearray()  # written to its socket and not read by it: `pending`
        self._eof_waits = False
        self.most_pending = 0

    def write(self, pieces: Sequence[Payload]) -> None:
        for piece in pieces:
            self._kernel += piece
        self.most_pending = max(self.most_pending, len(self._kernel))

    def write_eof(self) -> None:
        assert not self._eof_waits, "a second FIN to the application"
        self._eof_waits = True

    def close(self) -> None:
        assert not self._kernel, "closed with bytes unread"
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def set_window(self, window: int) -> None:
        pass

    def hold(self, reason: int) -> None:
        self.holds |= reason

    def release(self, reason: int) -> None:
        self.holds &= ~reason

    @property
    def pending(self) -> int:
        return len(self._kernel)

    # What the application does.

    def says(self, size: int) -> None:
        """Write `size` bytes that tell where they stand."""
        text = words(self.name)
        while size > 0:
            at = len(self.written) % len(text)
            piece = text[at : at + size]
            self.written += piece
            size -= len(piece)

    def reads(self, size: int) -> None:
        """Read up to `size` bytes, and the end if nothing is left before it."""
        self.read += self._kernel[:size]
        del self._kernel[:size]
        if not self._kernel and self._eof_waits:
            self.saw_eof = True

    @property
    def has_unread(self) -> bool:
        return bool(self._kernel) or (self._eof_waits and not self.saw_eof)


class Leg:
    """A client leg and the host leg it is paired with, seen as one: queues, until it is cut."""

    def __init__(self) -> None:
        self.id = new_id()
        self.subject, self.tunnel = SUBJECT, "mc"
        self.host: str | None = None  # the instance it is paired with
        self.to_relay: deque[bytes | Message] = deque()  # from the client
        self.to_host: deque[bytes | Message] = deque()
        self.to_client: deque[bytes | Message] = deque()
        self.cut = False
        self.client_knows = False
        self.relay_knows = False
        self.host_knows = False
        self.stream: HostStream[_End] | None = None

    def end(self, queue: deque[bytes | Message]) -> _End:
        return _End(self, queue)


class _End:
    """One end's link."""

    def __init__(self, leg: Leg, queue: deque[bytes | Message]) -> None:
        self.leg = leg
        self._queue = queue

    def send(self, pieces: Sequence[Payload], size: int) -> None:
        if not self.leg.cut:
            self._queue.append(b"".join(pieces))

    def send_message(self, message: Message, *, linger: bool = False) -> None:
        if not self.leg.cut:
            self._queue.append(message)


class Simulation:
    """The client-agent's and the host-agent's part in it is as short as can be; the rest is the streams'.

    With `seals` the stream is sealed at both ends.
    """

    def __init__(self, *, window: int = WINDOW, memory: int = 1 << 30, seals: Seals | None = None) -> None:
        self.now = 0.0
        self.client_app, self.host_app = App("client"), App("host")
        self.client_memory, self.host_memory = ReplayMemory(memory, BLOCK), ReplayMemory(memory, BLOCK)
        self.neighbours = [memory.share("neighbour") for memory in (self.client_memory, self.host_memory)]
        self.older = ""  # the end that does not know of windows that change
        self.windows: set[int] = set()  # that were said in acks, to an older end
        self.outcomes: dict[str, tuple[Outcome, str]] = {}
        self.clock: set[Stream[Any]] = set()
        self.window = window
        self.seals = seals
        self.faults: dict[str, Fault] = {}
        seal = None
        if seals is not None:
            seal = SealedLocal(seals[0], self.client_app, largest=BLOCK, failed=self._client_seal_failed)
        self.client: ClientStream[_End] = ClientStream(
            seal or self.client_app,
            context=StreamContext(window, self.client_memory, self.clock.add),
            owner="mc",
            closed=self._closed("client"),
            e2e=seals is not None,
        )
        self.client_end: Carrier = seal or self.client
        if seal is not None:
            seal.carrier = self.client
            seal.start()
        self.hosts: HostStreams[_End] = HostStreams(remember=1000)
        self.host: HostStream[_End] | None = None
        self.host_end: Carrier | None = None
        self.history: History[Leg] = History(1000, 1000)  # the relay's
        self.connections = 0  # to the target
        self.legs: list[Leg] = []
        self.leg: Leg | None = None  # the client's attached one
        self.candidate: Leg | None = None
        self.connecting = False  # to the target
        self.answered = False  # the target

    def _closed(self, name: str) -> Callable[[Outcome, str], None]:
        def closed(outcome: Outcome, reason: str) -> None:
            assert name not in self.outcomes, "closed twice"
            self.outcomes[name] = outcome, reason
            if name == "host":
                assert self.host is not None
                self.hosts.end(self.host, SUBJECT, outcome, reason, self.now)

        return closed

    # The client-agent.

    def dial(self) -> None:
        """A new leg: to open the stream, or to resume it."""
        leg = Leg()
        self.legs.append(leg)
        self.history.began(leg)
        link = leg.end(leg.to_relay)
        if self.client.instance:
            self.candidate = leg
            self.client.resume(link, leg.id)
        else:
            self.leg = leg
            self.client.open(link)

    @property
    def may_dial(self) -> bool:
        over = self.client.phase is Phase.CLOSED or self.outcomes.get("client") is not None
        return not over and self.leg is None and self.candidate is None

    def move(self) -> None:
        """A planned move: resume on a new leg while the old one carries."""
        assert self.leg is not None
        self.dial()

    @property
    def may_move(self) -> bool:
        return self.leg is not None and self.candidate is None and self.client.phase is Phase.LIVE

    def client_gets(self, leg: Leg) -> None:
        """The next item of `leg` arrives at the client."""
        item = leg.to_client.popleft()
        if not isinstance(item, bytes):
            decoded = to_client(encode(item))
            assert not isinstance(decoded, Unknown)
            item = self._as_known(decoded)
        if leg is self.candidate:
            if isinstance(item, Paired):
                return
            assert not isinstance(item, bytes), "data before the answer to resume"
            self.leg, self.candidate, old = leg, None, self.leg
            if old is not None:
                self.cut(old)
                old.client_knows = True
            answered = self.client.on_answer(item)
            assert answered
            if self.client.phase is Phase.OPENING and not self.client.instance:
                self.client.open(leg.end(leg.to_relay), INSTANCE)
        elif leg is self.leg:
            if isinstance(item, bytes):
                self.client.link_data((item,), len(item))
            elif isinstance(item, Refused) and item.instance and not self.client.instance:
                self.client.passed_on(item.instance)
                self.cut(leg)
                self.client_learns(leg)
            else:
                self.client.on_message(item)

    def client_learns(self, leg: Leg) -> None:
        """The client hears that `leg` is gone."""
        leg.client_knows = True
        leg.to_client.clear()
        if leg is self.candidate:
            self.candidate = None
            self.client.candidate_lost()
        elif leg is self.leg:
            self.leg = None
            self.client.link_lost()
            if not self.client.instance and not self.client.lost_unpaired(leg.id, passed_nothing=False):
                self.client.expire("lost before paired")

    def _as_known(self, message: Message) -> Message:
        """The message without what an older end does not say, or does not know."""
        if self.older and isinstance(message, Open | Accepted):
            return msgspec.structs.replace(message, most=0)
        if self.older and isinstance(message, Ack) and (message.window or message.use):
            self.windows |= {message.window, message.use}
        return message

    # The memory.

    def squeeze(self, end: int, full: bool) -> None:
        """All memory of the client (0) or the host (1) is taken by somebody else, or free again."""
        share = self.neighbours[end]
        share.take((self.client_memory.limit if full else 0) - share.used)

    # The relay.

    def relay_gets(self, leg: Leg) -> None:
        """The next item of the client leg `leg` arrives at the relay."""
        item = leg.to_relay.popleft()
        if leg.host is None:
            assert isinstance(item, Open | Resume), "a leg begins with one of these"
            if isinstance(item, Open) and item.replaces:
                instance = self.history.passed_on_to(item.replaces, leg, self.now)
                if instance is not None:
                    leg.to_client.append(Refused(item.stream, "passed on", instance))
                    self._relay_closes(leg)
                    return
                for old in tuple(self.history.still_open(item.replaces)):
                    self._relay_closes(old)
            leg.host = INSTANCE
            leg.to_client.append(Paired(instance=INSTANCE))
        leg.to_host.append(item)

    def relay_learns(self, leg: Leg) -> None:
        """The relay hears that `leg` is gone."""
        leg.relay_knows = True
        self.history.ended(leg, self.now)

    def relay_restarts(self) -> None:
        """It forgets everything, and all legs are cut. What it has passed on still arrives."""
        self.history = History(1000, 1000)
        for leg in self.legs:
            leg.to_relay.clear()
            leg.relay_knows = True
            self.cut(leg, deliver=True)

    def _relay_closes(self, leg: Leg) -> None:
        leg.to_relay.clear()
        self.cut(leg, deliver=True)
        self.relay_learns(leg)

    # The host-agent.

    def host_gets(self, leg: Leg) -> None:
        """The next item of `leg` arrives at the host."""
        item = leg.to_host.popleft()
        link = leg.end(leg.to_client)
        if isinstance(item, bytes):
            if leg.stream is not None:
                leg.stream.link_data((item,), len(item))
            return
        decoded = to_host(encode(item))
        assert not isinstance(decoded, Unknown)
        message = self._as_known(decoded)
        match message:
            case Open() if self.hosts.knows(message.stream):
                link.send_message(Refused(message.stream, "this stream is known already"))
            case Open():
                if self.connections:  # opened anew: the target says the same on the new connection
                    before, self.host_app = self.host_app, App("host")
                    self.host_app.written, self.host_app.ended = before.written, before.ended
                    self.answered = self.connecting = False
                seal = None
                if self.seals is None:
                    self._connects()
                else:
                    seal = SealedLocal(
                        self.seals[1],
                        self.host_app,
                        largest=BLOCK,
                        failed=self._host_seal_failed,
                        sealed=self._connects,
                        answers=self._host_answers,
                    )
                self.host = HostStream(
                    message,
                    seal or self.host_app,
                    link,
                    context=StreamContext(self.window, self.host_memory, self.clock.add),
                    owner=SUBJECT,
                    closed=self._closed("host"),
                )
                self.host_end = seal or self.host
                if seal is not None:
                    seal.carrier = self.host
                leg.stream = self.host
                self.hosts.add(self.host)
            case Resume():
                found = self.hosts.find(message, leg.id, SUBJECT, self.now)
                if isinstance(found, HostStream):
                    for old in self.legs:
                        if old.stream is found:
                            old.stream = None
                            self.cut(old, deliver=True)  # closed: the client has to learn that it is
                    found.link_lost()
                    leg.stream = found
                    found.resume(link, message, leg.id)
                elif isinstance(found, Refusal):
                    self.cut(leg)
                else:
                    link.send_message(found)
            case _:
                if leg.stream is not None:
                    leg.stream.on_message(message)

    def host_learns(self, leg: Leg) -> None:
        """The host hears that `leg` is gone."""
        leg.host_knows = True
        leg.to_host.clear()
        if leg.stream is not None:
            stream, leg.stream = leg.stream, None
            stream.link_lost()

    def _connects(self) -> None:
        """The host-agent connects to the target: at `open`, or once the seal holds."""
        self.connections += 1
        self.connecting = True

    def target_answers(self) -> None:
        """The target accepts the host-agent's connection."""
        assert self.host is not None
        self.answered = True
        if self.seals is None:
            self.host.accept()

    @property
    def may_answer(self) -> bool:
        waits = self.host is not None and self.connecting and not self.answered
        return waits and self.host is not None and self.host.phase in (Phase.OPENING, Phase.LIVE)

    def host_acknowledges(self) -> int:
        """The offset below which everything has left for the target."""
        assert self.host is not None
        return self.host.received - self.host.local.pending

    # The seals.

    def _host_answers(self) -> None:
        assert self.host is not None
        self.host.accept()

    def _host_seal_failed(self, error: SealError) -> None:
        assert self.host is not None
        self.faults["host"] = error.fault
        if self.host.phase is Phase.OPENING:
            self.host.refuse(str(error))
        else:
            self.host.local_broken(str(error), Outcome.SEAL_BROKEN)

    def _client_seal_failed(self, error: SealError) -> None:
        self.faults["client"] = error.fault
        self.client.local_broken(str(error), Outcome.SEAL_BROKEN)

    # The network.

    def cut(self, leg: Leg, *, deliver: bool = False) -> None:
        """Nothing more is sent on `leg`; what is on its way is lost, unless it is to be delivered first."""
        leg.cut = True
        if not deliver:
            leg.to_relay.clear()
            leg.to_host.clear()
            leg.to_client.clear()

    # The applications.

    def takes(self, app: App, stream: Carrier) -> None:
        """The stream reads what the application wrote, as far as it may."""
        if app.holds or app.eof_taken or app.aborted:
            return
        assert stream.credit > 0, "it is read although it has no credit"
        block = (self.client_memory if app is self.client_app else self.host_memory).block
        size = min(stream.credit, len(app.written) - app.taken, len(block))
        if size > 0:
            block[:size] = app.written[app.taken : app.taken + size]
            app.taken += size
            stream.local_data(block[:size])
        elif app.ended and app.taken == len(app.written):
            app.eof_taken = True
            stream.local_eof()

    def tick(self) -> None:
        """Half a second passes."""
        self.now += 0.5
        for stream in tuple(self.clock):
            if not stream.tick():
                self.clock.discard(stream)

    # All of it.

    def steps(self) -> list[Callable[[], None]]:
        """Every step that can be taken now, but for cuts and what only applications decide."""
        out: list[Callable[[], None]] = []
        for leg in self.legs:
            if leg.to_relay:
                out.append(lambda leg=leg: self.relay_gets(leg))  # type: ignore[misc]
            elif leg.cut and not leg.relay_knows:
                out.append(lambda leg=leg: self.relay_learns(leg))  # type: ignore[misc]
            if leg.to_host:
                out.append(lambda leg=leg: self.host_gets(leg))  # type: ignore[misc]
            elif leg.cut and leg.relay_knows and not leg.host_knows:
                out.append(lambda leg=leg: self.host_learns(leg))  # type: ignore[misc]
            if leg.to_client:
                out.append(lambda leg=leg: self.client_gets(leg))  # type: ignore[misc]
            elif leg.cut and not leg.client_knows:
                out.append(lambda leg=leg: self.client_learns(leg))  # type: ignore[misc]
        if self.may_dial:
            out.append(self.dial)
        if self.may_answer:
            out.append(self.target_answers)
        for app, stream, end in (
            (self.client_app, self.client, self.client_end),
            (self.host_app, self.host, self.host_end),
        ):
            if stream is not None and stream.phase in (Phase.OPENING, Phase.LIVE):
                if app.has_unread and (app is self.client_app or self.answered):
                    out.append(lambda app=app, end=end: self._reads(app, end, 50_000))  # type: ignore[misc]
                unread = app.taken < len(app.written) or (app.ended and not app.eof_taken)
                if unread and not app.holds and (app is self.client_app or self.answered):
                    out.append(lambda app=app, end=end: self.takes(app, end))  # type: ignore[misc]
        if self.clock:
            out.append(self.tick)
        return out

    def _reads(self, app: App, stream: Carrier, size: int) -> None:
        app.reads(size)
        stream.local_drained()

    def settle(self, limit: int = 5000) -> None:
        """Take steps in turn, without cuts, until nothing more happens."""
        for count in range(limit):
            steps = self.steps()
            if not steps:
                return
            steps[count % len(steps)]()
            self.check()
        raise AssertionError("it does not come to rest")

    def check(self) -> None:
        """What holds at every moment."""
        client, host = self.client_app, self.host_app
        assert client.written.startswith(host.read), "the host's application read what was not written"
        assert host.written.startswith(client.read), "the client's application read what was not written"
        assert client.most_pending <= self.window
        assert host.most_pending <= self.window
        for stream in (self.client, self.host):
            if stream is not None:
                assert stream.replay.end - stream.replay.start <= max(stream.limit, self.window)
        assert self.client_memory.used >= 0
        if client.saw_eof and not host.aborted:
            assert host.ended, "a FIN that the application did not send"
            assert client.read == host.written
        if host.saw_eof and not client.aborted:
            assert client.ended, "a FIN that the application did not send"
            assert host.read == client.written


# What is run in it.


def begun(seals: Seals | None = None, *, window: int = WINDOW) -> Simulation:
    """A simulation whose client has sent, and heard nothing yet."""
    simulation = Simulation(seals=seals, window=window)
    simulation.client_app.says(50)
    simulation.takes(simulation.client_app, simulation.client_end)
    simulation.dial()
    return simulation


def all_finished(simulation: Simulation) -> bool:
    return [outcome for outcome, _ in simulation.outcomes.values()] == [Outcome.FINISHED] * 2


def nothing_is_kept(simulation: Simulation) -> None:
    assert simulation.client_memory.used == simulation.host_memory.used == 0
    assert len(simulation.hosts) == 0


def talk(simulation: Simulation) -> None:
    """A conversation with data in flight both ways, half-closes and late reading."""
    simulation.client_app.says(150_000)
    simulation.host_app.says(90_000)
    simulation.client_app.ended = simulation.host_app.ended = True


def run_with_cuts(
    cuts: set[int], *, deliver: str = "nothing", move: bool = False, seals: Seals | None = None
) -> tuple[Simulation, int]:
    """Run a conversation and cut whatever leg is attached after these many steps. Returns the number of steps."""
    simulation = begun(seals)
    count = 0
    for count in range(3000):
        if count == 3:
            talk(simulation)
        if count in cuts:
            for leg in simulation.legs:
                if leg.cut:
                    continue
                if move and simulation.may_move:
                    simulation.move()
                    break
                if deliver != "to host" and not (deliver == "to relay" and leg.host is None):
                    leg.to_relay.clear()  # on a pair it comes after what is on its way to the host
                if deliver != "to host":
                    leg.to_host.clear()
                if deliver != "to client":
                    leg.to_client.clear()
                simulation.cut(leg, deliver=True)
        steps = simulation.steps()
        if not steps:
            break
        steps[count % len(steps)]()
        simulation.check()
    return simulation, count


def torn(simulation: Simulation, choices: list[int], *, restarts: bool = False, squeezed: bool = False) -> bool:
    """Cuts, moves, resets, FINs, stalls and ticks as they are chosen. Whether an application broke off."""
    broke = False
    for choice in choices:
        steps = simulation.steps()
        mine: list[Callable[[], None]] = []
        for app in (simulation.client_app, simulation.host_app):
            if not app.ended:
                mine.append(lambda app=app: app.says(1 + choice % 70_000))  # type: ignore[misc]
                mine.append(lambda app=app: setattr(app, "ended", choice % 5 == 0))  # type: ignore[misc]
        for leg in simulation.legs:
            if not leg.cut:
                mine.append(lambda leg=leg: simulation.cut(leg, deliver=choice % 2 == 0))  # type: ignore[misc]
        if simulation.may_move:
            mine.append(simulation.move)
        if restarts and choice % 7 == 0:
            mine.append(simulation.relay_restarts)
        if squeezed and choice % 3 == 0:
            mine.append(lambda: simulation.squeeze(choice // 3 % 2, choice // 6 % 2 == 0))
        if choice % 97 == 0 and simulation.host is not None:
            stream = (simulation.client, simulation.host)[choice % 2]
            mine.append(lambda stream=stream: stream.local_broken("broken"))  # type: ignore[misc]
        # Twice as likely that the network goes on as that something new happens.
        options = steps + steps + mine
        step = options[choice % len(options)] if options else None
        if step is not None:
            step()
            broke = broke or any(s is not None and s.broken is not None for s in (simulation.client, simulation.host))
            simulation.check()
    if not broke:
        simulation.client_app.ended = simulation.host_app.ended = True
    simulation.settle()
    if simulation.host is not None and simulation.outcomes.get("host") is None:
        simulation.host.expire("no resume")
    for end in range(2):
        simulation.squeeze(end, full=False)
    nothing_is_kept(simulation)
    return broke
