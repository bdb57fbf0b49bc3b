"""One stream at the client: an accepted TCP connection and the leg that carries it."""

from __future__ import annotations

import asyncio
import enum
import functools
import random
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from tunnel_core.agent.context import AgentContext
from tunnel_core.agent.pace import Pace
from tunnel_core.agent.session import RawSession, Session
from tunnel_core.net.buffers import FRAME_SIZE
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol.control import Accepted, Goaway, Paired, Refused, Resumed, ToClient
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.local import HOLD_SEAL, Nowhere
from tunnel_core.protocol.resume import ClientStream
from tunnel_core.protocol.seal.errors import Fault, SealError
from tunnel_core.protocol.seal.local import SealedLocal
from tunnel_core.protocol.seal.tls import ClientTls
from tunnel_core.protocol.sniff.reader import LIMIT
from tunnel_core.protocol.stream import Outcome, Phase
from tunnel_core.protocol.tokens import EXPIRED
from tunnel_core.service.logs import Throttle

from .leg import ClientLeg
from .settings import ClientSettings

# Seconds for each step of opening: a leg to the relay, the pairing (the relay lets a client
# wait 10 s for its host), the target's answer (the host-agent gives it 10 s).
OPEN_TIMEOUT: Final = 15.0
# Seconds until a stream that the relay had no room for is opened again; doubled each time.
MIN_RETRY: Final = 0.05
MAX_RETRY: Final = 1.0
RESUMED_TIMEOUT: Final = 5.0  # seconds for the answer to `resume`; then the leg counts as dead
# How many legs a stream that keeps losing them may ask for at once, and the seconds until one more. This
# tolerates a network that cuts three times a second (each cut may also cost the few ready legs), and limits
# a host that ends every leg at once.
LEGS_AT_ONCE: Final = 20
NEXT_LEG: Final = 0.5
STEADY: Final = 1.0  # seconds: a leg that carries the stream for longer was worth its dial
FEW: Final = 3  # short-lived legs in a row until the stream shares the retries of all such streams
# Of the streams past FEW, how many may ask for a leg at once, and the seconds until one more may. So they
# cost next to nothing, however many there are.
HASTY_AT_ONCE: Final = 20
NEXT_HASTY: Final = 0.05
SPARE_DESCRIPTORS: Final = 32  # for logs, ports, ready legs and dials
DESCRIPTORS_A_STREAM: Final = 3  # the local socket, its leg, and the next one while it moves
# Close codes with which a relay, before `paired`, has passed nothing on.
NOT_PASSED_ON: Final = (CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER)


class Kind(enum.Enum):
    """The kind of leg that a session asks for."""

    ANY = enum.auto()  # preferably a pair that is free for another stream
    UNPAIRED = enum.auto()  # `resume` names its host, so it begins a pair
    NEW = enum.auto()  # dialed from now on: ready ones may be at the relay that drains


class Load:
    """Limits shared by all sessions of an agent that may open `descriptors` files."""

    def __init__(self, descriptors: int) -> None:
        self.sessions: set[Session[Any]] = set()
        self.haste = Pace(HASTY_AT_ONCE, NEXT_HASTY)
        # More connections would leave current streams no descriptor for a resume.
        self.most = max(1, (descriptors - SPARE_DESCRIPTORS) // DESCRIPTORS_A_STREAM)

    @property
    def is_full(self) -> bool:
        """Whether there are more streams than descriptors for them."""
        return len(self.sessions) > self.most


class Tunnel(Protocol):
    """What a session needs of its tunnel."""

    name: str
    stream_log: Throttle

    def want_leg(self, session: ClientSession, kind: Kind) -> bool:
        """Call `session.take` with a leg, now or once there is one. Returns whether it was called now."""

    def host_is(self, *, there: bool) -> None:
        """The host accepted or refused a stream, or was not there."""

    def free(self, leg: ClientLeg) -> None:
        """The stream on `leg` has ended cleanly: keep the pair for another stream, if useful."""

    def session_over(self, session: ClientSession) -> None:
        """The session no longer wants a leg."""


class ClientSession(Session[ClientStream[ClientLeg]]):
    """Opens the stream, moves it when its leg is lost or must be left, and ends it.

    `stream.link` is the leg that carries it now, `stream.candidate` the next, whose `resume` is not answered.
    """

    def __init__(
        self,
        context: AgentContext[ClientSettings],
        tunnel: Tunnel,
        load: Load,
        tls: ClientTls | None,
        *,
        tcp: TcpConnection | None = None,
        source: str = "",
        asleep: Callable[[bytes], bool] = lambda said: False,
    ) -> None:
        super().__init__(context, tunnel.name, tunnel.stream_log)
        self._tunnel = tunnel
        self._load = load
        self._retries = 0  # how many times the relay had no room
        self._pace = Pace(LEGS_AT_ONCE, NEXT_LEG)
        self._attached_at = self._begun  # when it was attached to its leg
        self._short_lived = 0  # legs in a row that lasted less than STEADY
        self._step: asyncio.TimerHandle | None = None  # the deadline of the awaited answer
        self._source = source
        self._asleep = asleep
        self.tcp = tcp or TcpConnection(context.streams.memory, self._start)
        # At a gateway, per visitor's address; otherwise all local applications count together.
        self._owner = source.rpartition(":")[0] or tunnel.name
        self._seal = seal = None
        if tls is not None:
            self._seal = seal = SealedLocal(
                tls, self.tcp, largest=FRAME_SIZE, failed=self._seal_failed, sealed=self._end_sealing
            )
        self.stream = ClientStream(
            seal or self.tcp,
            context=context.streams,
            owner=self._owner,
            closed=self._closed,
            source=source,
            e2e=seal is not None,
        )
        self.tcp.carrier = seal or self.stream
        if seal is not None:
            seal.carrier = self.stream
            seal.start()

    # Opening and moving: the tunnel gives a leg whenever one is asked for.

    def begin(self, said: bytes) -> None:
        """Carry a connection that there is already, and that has `said` something."""
        self._start()
        if said and self.stream.phase is Phase.OPENING:
            self.tcp.carrier.local_data(said)

    def _start(self) -> None:
        self._log = self._log.bind(client=self._source or self.tcp.peer)
        if self._load.is_full:
            self.stream.expire(f"no descriptors for over {self._load.most} streams: raise the limit (ulimit -n)")
            return
        if not self._context.streams.memory.admits(self._owner):
            self.stream.expire("no memory for more streams: allow more with --replay-memory")
            return
        self._ask_for_first_leg()

    def _ask_for_first_leg(self) -> None:
        if not self._tunnel.want_leg(self, Kind.ANY):
            self._arm(self._left_to_open, lambda: self.stream.expire("no leg to the relay in time"))

    @property
    def _left_to_open(self) -> float:
        """Seconds within which the relay must take the stream."""
        return max(0.0, self._begun + OPEN_TIMEOUT - time.monotonic())

    def take(self, leg: ClientLeg) -> None:
        """Use `leg`: to open the stream, or to resume it."""
        if self.stream.instance:
            leg.session = self
            self._arm(RESUMED_TIMEOUT, lambda: leg.lost(f"no answer to resume within {RESUMED_TIMEOUT:g} s"))
            self.stream.resume(leg, leg.id)
        else:
            self._open_on(leg)

    def on_message(self, leg: ClientLeg, message: ToClient) -> None:
        stream = self.stream
        if isinstance(message, Goaway):
            leg.leaving = True
            self._move_if_leaving()
        elif leg is stream.candidate:
            if not isinstance(message, Paired):
                self._on_answer(leg, message)
        elif stream.e2e and (
            (isinstance(message, Paired) and message.raw) or (isinstance(message, Accepted) and not message.e2e)
        ):
            self._seal_failed(SealError(Fault.UNSEALED_HOST))
        elif isinstance(message, Paired) and message.raw:
            self._become_raw(leg)
        elif isinstance(message, Refused) and message.retry:
            self._turned_away(leg, message)
        elif isinstance(message, Refused) and message.instance and not stream.instance:
            stream.passed_on(message.instance)  # by an earlier leg: carry on there
            leg.lost(message.reason)
        else:
            if isinstance(message, Paired):
                self._arm(OPEN_TIMEOUT, lambda: leg.lost(f"no answer from the host within {OPEN_TIMEOUT:g} s"))
            was_opening = stream.phase is Phase.OPENING
            if isinstance(message, Refused) and was_opening:
                self._tunnel.host_is(there=False)
                said = stream.replay.since(0) if self._seal is None else (self._seal.early,)
                if stream.sent <= LIMIT and self._asleep(b"".join(said)):
                    self.tcp.release(HOLD_SEAL)
                    stream.local = Nowhere()
            stream.on_message(message)
            if was_opening and stream.phase is Phase.LIVE:
                self._tunnel.host_is(there=True)
                self._opened()

    def leg_ended(self, leg: ClientLeg, code: int, reason: str) -> None:
        stream = self.stream
        leg.detach()
        if leg is stream.candidate:
            self._arm(None)
            stream.candidate_lost()
            self._short_lived += 1
            self._log.info("resume failed", stream=stream.id, reason=reason, code=code)
        else:
            stream.link_lost()
            steady = time.monotonic() - self._attached_at > STEADY
            self._short_lived = 0 if steady else self._short_lived + 1
        # Leaving a leg on purpose counts as a loss only if there is no other to move to.
        moving = leg.leaving and stream.candidate is not None
        if stream.link is None and self._deadline is None and not moving:
            self._detached("no resume")
            if stream.instance:
                self._log.info("leg lost", stream=stream.id, reason=reason, code=code)
        if not stream.instance and not (
            code != CloseCode.POLICY_VIOLATION and stream.lost_unpaired(leg.id, passed_nothing=code in NOT_PASSED_ON)
        ):
            stream.expire(f"the leg was lost before there was a host: {reason}")
        elif stream.candidate is None and (stream.link is None or stream.link.leaving):
            self._ask_for_leg(Kind.UNPAIRED if stream.link is None else Kind.NEW)

    def _attach(self, leg: ClientLeg) -> None:
        self._attached_at = time.monotonic()
        leg.carrying = True
        leg.attach(self, self.stream)

    def _move_if_leaving(self) -> None:
        """Find another leg while this one, which must be left, still carries the stream."""
        stream = self.stream
        if stream.phase is Phase.LIVE and stream.candidate is None and stream.link is not None and stream.link.leaving:
            self._ask_for_leg(Kind.NEW)

    def _ask_for_leg(self, kind: Kind) -> None:
        """Ask for a leg to move to, as soon as the pace allows."""
        now = time.monotonic()
        wait = self._pace.take(now)
        if self._short_lived >= FEW:
            wait = max(wait, self._load.haste.take(now))
        if wait:
            self._arm(wait, functools.partial(self._tunnel.want_leg, self, kind))
        else:
            self._arm(None)
            self._tunnel.want_leg(self, kind)

    def _on_answer(self, leg: ClientLeg, message: ToClient) -> None:
        stream, old = self.stream, self.stream.link
        self._arm(None)
        replayed = stream.replayed
        if isinstance(message, Resumed) and not message.done:
            if old is not None:
                old.detach()
                old.close(CloseCode.MOVED)
                stream.link_lost()
            self._attach(leg)
        if not stream.on_answer(message):
            leg.violated(CloseCode.POLICY_VIOLATION, "no answer to resume from the stream's host")
        elif stream.phase in (Phase.OPENING, Phase.LIVE) and not stream.instance:
            # The `open` never reached the host. The pair is free, so open on it now.
            self._open_on(leg)
        elif stream.phase is not Phase.CLOSED:
            self._arm(None)
            self._resumed(self._reattached(), stream.replayed - replayed, stream=stream.id)
            self._move_if_leaving()

    def _open_on(self, leg: ClientLeg) -> None:
        self._attach(leg)
        self._arm(OPEN_TIMEOUT, lambda: leg.lost(f"no answer to open within {OPEN_TIMEOUT:g} s"))
        self.stream.open(leg, leg.instance)

    def _turned_away(self, leg: ClientLeg, message: Refused) -> None:
        """The relay has passed nothing on, for lack of room or as a token is over: open it again a little later."""
        stream = self.stream
        wait = min(MAX_RETRY, MIN_RETRY * 2**self._retries) * random.uniform(0.5, 1)
        self._retries += 1
        hopeless = EXPIRED in message.reason and not self._context.credentials.may_differ(leg.token)
        if not stream.turned_away() or hopeless or wait > self._left_to_open:
            stream.on_message(message)
            return
        stream.link_lost()
        leg.detach()
        leg.close(CloseCode.NORMAL)
        self._arm(wait, self._retry)

    def _retry(self) -> None:
        if self.stream.phase is Phase.OPENING:
            self._ask_for_first_leg()
        else:
            self.stream.expire("")  # the local connection broke meanwhile

    def _opened(self) -> None:
        self._arm(None)
        self._reattached()
        self.opened(stream=self.stream.id)
        if self.stream.e2e:
            self._begin_sealing()
        self._move_if_leaving()

    def _become_raw(self, leg: ClientLeg) -> None:
        stream = self.stream
        if stream.phase is not Phase.OPENING:
            stream.expire("")  # the local connection broke meanwhile
            return
        self._arm(None)
        self._forget_deadline()
        sent, ended = stream.become_raw()
        raw = RawSession(
            self._context,
            self.tunnel,
            self._log.bind(stream="raw"),
            tcp=self.tcp,
            leg=leg,
            over=self._load.sessions.discard,
            sent=sent,
            ended=ended,
            begun=self._begun,
        )
        self._load.sessions.add(raw)
        self._tunnel.session_over(self)
        raw.opened()

    # The end.

    def stop(self, reason: str) -> None:
        super().stop(reason)
        if self.stream.link is None:
            self.stream.expire("")

    def _closed(self, outcome: Outcome, reason: str) -> None:
        stream = self.stream
        self._arm(None)
        for leg in (stream.link, stream.candidate):
            if leg is not None:
                leg.detach()
                if outcome is Outcome.VIOLATION:
                    leg.violated(CloseCode.POLICY_VIOLATION, reason)
                elif outcome is Outcome.FINISHED and leg is stream.link:
                    self._tunnel.free(leg)
                else:
                    leg.close(CloseCode.NORMAL)
        refused = outcome is Outcome.REFUSED
        self._ended(outcome, reason, was_paired=bool(stream.instance), warn=refused, stream=stream.id)
        self._tunnel.session_over(self)

    def _arm(self, seconds: float | None, expired: Callable[[], object] = lambda: None) -> None:
        """Set the deadline of the next answer, or clear it."""
        if self._step is not None:
            self._step.cancel()
            self._step = None
        if seconds is not None:
            self._step = asyncio.get_running_loop().call_later(seconds, expired)
