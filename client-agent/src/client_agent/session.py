"""One stream at the client: an accepted TCP connection, and whatever leg carries it."""

from __future__ import annotations

import asyncio
import enum
import functools
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tunnel_core.agent.pace import Pace
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol.control import Accepted, Goaway, Paired, Refused, Resumed, ToClient
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.raw import RawStream
from tunnel_core.protocol.resume import ClientStream
from tunnel_core.protocol.stream import Outcome, Phase
from tunnel_core.protocol.tokens import EXPIRED

if TYPE_CHECKING:
    from .tunnel import ClientLeg, ClientTunnel

# Seconds for each step of opening: a leg to the relay, the pairing (the relay lets a client
# wait 10 s for its host), the target's answer (the host-agent gives it 10 s).
OPEN_TIMEOUT: Final = 15.0
# Seconds until a stream that the relay had no room for is opened again: twice as long each time.
MIN_RETRY: Final = 0.05
MAX_RETRY: Final = 1.0
RESUMED_TIMEOUT: Final = 5.0  # seconds for the answer to `resume`; then the leg counts as dead
# Legs that one stream may ask for at once when it loses them, and the seconds until it may ask for
# one more. A network that cuts three times a second does no harm (each cut may cost the few legs that
# were ready, too), and a host that ends every leg at once neither.
LEGS_AT_ONCE: Final = 20
NEXT_LEG: Final = 0.5
STEADY: Final = 1.0  # seconds: a leg that carries for longer was worth its dial
FEW: Final = 3  # legs in a row that were not, until the stream waits its turn among others like it
# A relay that closes with these before `paired` has passed nothing on.
NOT_PASSED_ON: Final = (CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER)


class Kind(enum.Enum):
    """What leg a session asks for."""

    ANY = enum.auto()  # a pair that is free for another stream is best
    UNPAIRED = enum.auto()  # `resume` names its host, so it begins a pair
    NEW = enum.auto()  # dialed from now on: those that are ready may be at the relay that is to be left


class Session:
    """Opens the stream, moves it when its leg is lost or to be left, and ends it.

    `leg` carries the stream now; `candidate` is the next, whose `resume` is not answered.
    """

    def __init__(self, tunnel: ClientTunnel) -> None:
        self._tunnel = tunnel
        self.tunnel = tunnel.name
        self._agent = tunnel.agent
        self.tcp = TcpConnection(self._agent.memory, self._start)
        self.leg: ClientLeg | None = None
        self.candidate: ClientLeg | None = None
        self._begun = time.monotonic()
        self._retries = 0  # how often the relay had no room
        self._pace = Pace(LEGS_AT_ONCE, NEXT_LEG)
        self._attached_at = self._begun  # when it came to its leg
        self._short_lived = 0  # legs in a row that carried for less than a moment, or not at all
        self._lost_at: float | None = None  # when it lost its leg, while it has none
        self._step: asyncio.TimerHandle | None = None  # of an answer that is awaited
        self._window: asyncio.TimerHandle | None = None  # of the resume window
        self._live = False
        self.stream: ClientStream | RawStream = ClientStream(
            self.tcp,
            window=self._agent.settings.window,
            memory=self._agent.memory,
            owner=tunnel.name,
            clock=self._agent.clock.add,
            closed=self._closed,
        )
        self._log = tunnel.stream_log
        self.tcp.carrier = self.stream

    # What metrics count.

    @property
    def sent(self) -> int:
        return self.stream.sent

    @property
    def received(self) -> int:
        return self.stream.received

    @property
    def attached(self) -> bool:
        return self.leg is not None

    @property
    def has_deadline(self) -> bool:
        """Whether a timer ends the stream unless a leg is found. Always so while it is not attached."""
        return self._window is not None or self._step is not None

    # Opening and moving: the tunnel gives a leg whenever one is asked for.

    def _start(self) -> None:
        self._log = self._log.bind(client=self.tcp.peer)
        if self._agent.is_full:
            self._give_up(f"no descriptors for over {self._agent.max_streams} streams: raise the limit (ulimit -n)")
            return
        self._ask_for_first_leg()

    def _ask_for_first_leg(self) -> None:
        if not self._tunnel.want_leg(self, Kind.ANY):
            self._arm(self._left_to_open, lambda: self._give_up("no leg to the relay in time"))

    @property
    def _left_to_open(self) -> float:
        """Seconds in which the relay must have taken the stream."""
        return max(0.0, self._begun + OPEN_TIMEOUT - time.monotonic())

    def take(self, leg: ClientLeg) -> None:
        """Use `leg`: to open the stream, or to resume it."""
        stream = self.stream
        assert isinstance(stream, ClientStream), "raw streams do not move"
        leg.session = self
        if stream.instance:
            self.candidate = leg
            self._arm(RESUMED_TIMEOUT, lambda: leg.lost(f"no answer to resume within {RESUMED_TIMEOUT:g} s"))
            stream.resume(leg, leg.id)
        else:
            self._open_on(leg)

    def on_message(self, leg: ClientLeg, message: ToClient) -> None:
        stream = self.stream
        if isinstance(message, Goaway):
            leg.leaving = True
            self._move_if_leaving()
        elif leg is self.candidate:
            if not isinstance(message, Paired):
                self._on_answer(leg, message)
        elif leg is not self.leg or not isinstance(stream, ClientStream):
            return
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
            stream.on_message(message)
            if isinstance(message, Accepted) and not self._live and stream.phase is Phase.LIVE:
                self._opened()

    def leg_ended(self, leg: ClientLeg, code: int, reason: str) -> None:
        """`leg` brings nothing more: the raw peer has closed, or the leg is lost."""
        stream = self.stream
        if isinstance(stream, RawStream):
            stream.link_closed(code, reason)
            return
        leg.detach()
        leg.session = None
        if leg is self.candidate:
            self.candidate = None
            self._arm(None)
            stream.candidate_lost()
            self._short_lived += 1
            self._log.info("resume failed", stream=self._id, reason=reason, code=code)
        elif leg is self.leg:
            self.leg = None
            stream.link_lost()
            steady = time.monotonic() - self._attached_at > STEADY
            self._short_lived = 0 if steady else self._short_lived + 1
        # A leg that is left on purpose is lost only if there is none to go to.
        if self.leg is None and self._lost_at is None and not (leg.leaving and self.candidate is not None):
            self._lost(code, reason)
        if not stream.instance and not (
            code != CloseCode.POLICY_VIOLATION and stream.lost_unpaired(leg.id, told=code in NOT_PASSED_ON)
        ):
            stream.expire(f"the leg was lost before there was a host: {reason}")
        elif self.candidate is None and (self.leg is None or self.leg.leaving):
            self._ask_for_leg(Kind.UNPAIRED if self.leg is None else Kind.NEW)

    def leg_gone(self) -> None:
        """The socket of a raw stream's leg is closed."""
        if isinstance(self.stream, RawStream) and self.leg is not None:
            self.leg.detach()
            self.leg = None
            self.stream.link_lost()
            self._set_window("the raw peer is gone, and the application did not end within")

    def _attach(self, leg: ClientLeg) -> None:
        self.leg = leg
        self._attached_at = time.monotonic()
        leg.carrying = True
        leg.attach(self.stream, self.tcp)

    def _lost(self, code: int, reason: str) -> None:
        self._lost_at = time.monotonic()
        self._set_window("no resume within")
        if self._live:
            self._log.info("leg lost", stream=self._id, reason=reason, code=code)

    def _set_window(self, missed: str) -> None:
        window = self._agent.settings.resume_window
        self._window = asyncio.get_running_loop().call_later(window, self._give_up, f"{missed} {window:g} s")

    def _move_if_leaving(self) -> None:
        """Find another leg while this one, which has to go, still carries. A raw stream cannot move."""
        moves = self._live and isinstance(self.stream, ClientStream)
        if moves and self.leg is not None and self.leg.leaving and self.candidate is None:
            self._ask_for_leg(Kind.NEW)

    def _ask_for_leg(self, kind: Kind) -> None:
        """Have a leg to move to, as soon as that is due."""
        now = time.monotonic()
        wait = self._pace.take(now)
        if self._short_lived >= FEW:
            wait = max(wait, self._agent.pace.take(now))
        if wait:
            self._arm(wait, functools.partial(self._tunnel.want_leg, self, kind))
        else:
            self._arm(None)
            self._tunnel.want_leg(self, kind)

    def _on_answer(self, leg: ClientLeg, message: ToClient) -> None:
        stream = self.stream
        assert isinstance(stream, ClientStream), "only such a stream has a candidate"
        self._arm(None)
        old, replayed = self.leg, stream.replayed
        if isinstance(message, Resumed) and not message.done:
            self.candidate = None
            if old is not None:
                old.detach()
                old.session = None
                old.close(CloseCode.MOVED)
            self._attach(leg)
        if not stream.on_answer(message):
            leg.violated(CloseCode.POLICY_VIOLATION, "no answer to resume from the stream's host")
        elif stream.phase in (Phase.OPENING, Phase.LIVE) and not stream.instance:
            # The `open` never arrived there. The pair is free, so it may now.
            self.candidate = None
            self._open_on(leg)
        elif stream.phase is not Phase.CLOSED:
            self._resumed(stream.replayed - replayed)

    def _open_on(self, leg: ClientLeg) -> None:
        stream = self.stream
        assert isinstance(stream, ClientStream), "raw streams are open"
        self._attach(leg)
        self._arm(OPEN_TIMEOUT, lambda: leg.lost(f"no answer to open within {OPEN_TIMEOUT:g} s"))
        stream.open(leg)
        stream.instance = leg.instance

    def _turned_away(self, leg: ClientLeg, message: Refused) -> None:
        """The relay has passed nothing on, for lack of room or as a token is over: open it again a little later."""
        stream = self.stream
        assert isinstance(stream, ClientStream), "raw streams are open"
        wait = min(MAX_RETRY, MIN_RETRY * 2**self._retries) * random.uniform(0.5, 1)
        self._retries += 1
        hopeless = EXPIRED in message.reason and not self._agent.may_show_another(leg.token)
        if not stream.turned_away() or hopeless or wait > self._left_to_open:
            stream.on_message(message)
            return
        self.leg = None
        stream.link_lost()
        leg.detach()
        leg.session = None
        leg.close(CloseCode.NORMAL)
        self._arm(wait, self._retry)

    def _retry(self) -> None:
        if isinstance(self.stream, ClientStream) and self.stream.phase is Phase.OPENING:
            self._ask_for_first_leg()
        else:
            self._give_up("")  # the local connection broke meanwhile

    def _opened(self) -> None:
        self._live = True
        self._back()
        seconds = time.monotonic() - self._begun
        self._agent.metrics.opened(self.tunnel, seconds)
        self._log.info("stream opened", stream=self._id, milliseconds=round(seconds * 1000, 1))
        self._move_if_leaving()

    def _resumed(self, replayed: int) -> None:
        paused = self._back()
        self._agent.metrics.resumed(self.tunnel, "moved" if paused is None else "resumed", paused, replayed)
        self._log.info(
            "stream resumed", stream=self._id, paused_ms=round((paused or 0) * 1000), replayed_bytes=replayed
        )
        self._move_if_leaving()

    def _back(self) -> float | None:
        """The stream has a leg that answered. Returns for how long it had none, if it had none."""
        self._arm(None)
        if self._window is not None:
            self._window.cancel()
            self._window = None
        paused = time.monotonic() - self._lost_at if self._lost_at is not None else None
        self._lost_at = None
        return paused

    def _become_raw(self, leg: ClientLeg) -> None:
        stream = self.stream
        assert isinstance(stream, ClientStream), "told once"
        if stream.phase is not Phase.OPENING:
            stream.expire("")  # the local connection broke meanwhile
            return
        self.stream = stream.become_raw(leg, self._closed)
        self.tcp.carrier = self.stream
        leg.echo_close = False
        leg.attach(self.stream, self.tcp)
        self._opened()

    # The end.

    def stop(self) -> None:
        """Reset the stream: this agent stops."""
        self.stream.local_broken("the client-agent stopped", Outcome.STOPPED)
        if isinstance(self.stream, ClientStream) and self.leg is None:
            self.stream.expire("")

    def _give_up(self, reason: str) -> None:
        self.stream.expire(reason)

    def _closed(self, outcome: Outcome, reason: str) -> None:
        self._arm(None)
        if self._window is not None:
            self._window.cancel()
        for leg in (self.leg, self.candidate):
            if leg is not None:
                leg.detach()
                leg.session = None
                if outcome is Outcome.VIOLATION:
                    leg.violated(CloseCode.POLICY_VIOLATION, reason)
                elif outcome is Outcome.FINISHED and leg is self.leg and isinstance(self.stream, ClientStream):
                    self._tunnel.free(leg)
                else:
                    leg.close(CloseCode.NORMAL)
        self.leg = self.candidate = None
        self._agent.metrics.ended(self, outcome)
        if outcome is Outcome.LOST and self._live:
            self._agent.metrics.resumed(self.tunnel, "lost", None, 0)
        self._tunnel.session_over(self)
        log = self._log.info if outcome is not Outcome.REFUSED else self._log.warning
        log(
            "stream closed",
            stream=self._id,
            outcome=outcome.value,
            reason=reason,
            sent=self.sent,
            received=self.received,
            seconds=round(time.monotonic() - self._begun, 3),
        )

    @property
    def _id(self) -> str:
        return self.stream.id if isinstance(self.stream, ClientStream) else "raw"

    def _arm(self, seconds: float | None, expired: Callable[[], object] = lambda: None) -> None:
        """Await the next answer for so long, or none."""
        if self._step is not None:
            self._step.cancel()
            self._step = None
        if seconds is not None:
            self._step = asyncio.get_running_loop().call_later(seconds, self._step_over, expired)

    def _step_over(self, expired: Callable[[], object]) -> None:
        self._step = None
        expired()
