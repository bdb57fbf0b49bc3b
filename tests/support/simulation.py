"""Two stream ends, their applications, a relay, and legs between them that can be cut anywhere.

Everything is a step that a test, or hypothesis, chooses: the next item of a leg arrives, an
application writes, reads or ends, a leg is cut, an end learns of it, the client dials again.
Nothing happens by itself, so each order of events can be had.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence

from tunnel_core.protocol.control import Message, Open, Paired, Refused, Resume, Unknown, encode, to_client, to_host
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.protocol.replay import ReplayMemory
from tunnel_core.protocol.resume import ClientStream, HostStream, HostStreams, Refusal
from tunnel_core.protocol.stream import Outcome, Payload, Phase, Stream
from tunnel_relay.history import History

WINDOW = 64 * 1024
INSTANCE = new_id()
SUBJECT = "tester"
BLOCK = 8 * 1024  # of replay memory: small, so that there are many


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
        self.stream: HostStream | None = None

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
    """The client-agent's and the host-agent's part in it is as short as can be; the rest is the streams'."""

    def __init__(self, *, window: int = WINDOW, memory: int = 1 << 30) -> None:
        self.now = 0.0
        self.client_app, self.host_app = App("client"), App("host")
        self.client_memory, self.host_memory = ReplayMemory(memory, BLOCK), ReplayMemory(memory, BLOCK)
        self.outcomes: dict[str, tuple[Outcome, str]] = {}
        self.clock: set[Stream] = set()
        self.window = window
        self.client = ClientStream(
            self.client_app,
            window=window,
            memory=self.client_memory,
            owner="mc",
            clock=self.clock.add,
            closed=self._closed("client"),
        )
        self.hosts = HostStreams(remember=1000)
        self.host: HostStream | None = None
        self.history: History[Leg] = History(1000, 1000)  # the relay's
        self.connections = 0  # to the target
        self.legs: list[Leg] = []
        self.leg: Leg | None = None  # the client's attached one
        self.candidate: Leg | None = None
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
            item = decoded
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
                self.client.open(leg.end(leg.to_relay))
                self.client.instance = INSTANCE
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
            if not self.client.instance and not self.client.lost_unpaired(leg.id, told=False):
                self.client.expire("lost before paired")

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
        message = to_host(encode(item))
        assert not isinstance(message, Unknown)
        match message:
            case Open() if self.hosts.knows(message.stream):
                link.send_message(Refused(message.stream, "this stream is known already"))
            case Open():
                if self.connections:  # opened anew: the target says the same on the new connection
                    before, self.host_app = self.host_app, App("host")
                    self.host_app.written, self.host_app.ended = before.written, before.ended
                    self.answered = False
                self.connections += 1
                self.host = HostStream(
                    message,
                    self.host_app,
                    window=self.window,
                    memory=self.host_memory,
                    owner=SUBJECT,
                    clock=self.clock.add,
                    closed=self._closed("host"),
                )
                self.host.link = link
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

    def target_answers(self) -> None:
        """The target accepts the host-agent's connection."""
        assert self.host is not None
        self.answered = True
        self.host.accept()

    @property
    def may_answer(self) -> bool:
        return self.host is not None and not self.answered and self.host.phase is Phase.OPENING

    # The network.

    def cut(self, leg: Leg, *, deliver: bool = False) -> None:
        """Nothing more is sent on `leg`; what is on its way is lost, unless it is to be delivered first."""
        leg.cut = True
        if not deliver:
            leg.to_relay.clear()
            leg.to_host.clear()
            leg.to_client.clear()

    # The applications.

    def takes(self, app: App, stream: Stream) -> None:
        """The stream reads what the application wrote, as far as it may."""
        if app.holds or app.eof_taken or app.aborted:
            return
        block = stream.replay.memory.block
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
        for app, stream in ((self.client_app, self.client), (self.host_app, self.host)):
            if stream is not None and stream.phase in (Phase.OPENING, Phase.LIVE):
                if app.has_unread and (app is self.client_app or self.answered):
                    out.append(lambda app=app, stream=stream: self._reads(app, stream, 50_000))  # type: ignore[misc]
                unread = app.taken < len(app.written) or (app.ended and not app.eof_taken)
                if unread and not app.holds and (app is self.client_app or self.answered):
                    out.append(lambda app=app, stream=stream: self.takes(app, stream))  # type: ignore[misc]
        if self.clock:
            out.append(self.tick)
        return out

    def _reads(self, app: App, stream: Stream, size: int) -> None:
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
