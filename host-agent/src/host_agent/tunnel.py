"""One offered tunnel: its warm legs, and the streams that came over them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tunnel_core.agent.leg import AgentLeg
from tunnel_core.agent.pool import LegPool
from tunnel_core.protocol.control import Goaway, Open, Paired, Refused, Resume, ToHost, Unknown, to_host
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.raw import RawStream
from tunnel_core.protocol.resume import HostStream, HostStreams, Refusal
from tunnel_core.protocol.stream import Outcome, Stream

from .session import Session
from .settings import Offer

if TYPE_CHECKING:
    from .service import HostAgent

MOST_WARM: Final = 64  # legs kept ready for one tunnel, unless more are asked for: 11 KiB each at the relay

STOPS: Final = "the host-agent stops"


class HostLeg(AgentLeg[ToHost]):
    """A leg from the host's side: warm, then paired, then with one stream after the other."""

    def __init__(self, tunnel: HostTunnel) -> None:
        super().__init__(tunnel.agent.monitor, to_host, tunnel)
        self._tunnel = tunnel
        self.session: Session | None = None
        self.peer = ""  # the client-agent's address
        self.subject = ""  # and who it is, by its token
        self.client_leg = ""  # the id of the client's leg
        self.last = ""  # the stream that finished on it
        self.spent = False  # a stream on it was refused or reset: it is about to be closed

    @property
    def takes_stream(self) -> bool:
        """Whether the client may open or resume a stream on it now."""
        return self.paired and self.session is None and not self.spent

    def on_gone(self) -> None:
        if self.session is not None:
            self.session.leg_gone()


class HostTunnel:
    """Keeps warm legs at the relay and acts on what comes over them (the LegOwner of its legs)."""

    def __init__(self, agent: HostAgent, offer: Offer) -> None:
        self.agent = agent
        self.name = offer.tunnel
        self.target = offer.target
        self.log = agent.log.bind(tunnel=offer.tunnel)
        self.stream_log = agent.stream_log.bind(tunnel=offer.tunnel)
        self.sessions: dict[HostStream | RawStream, Session] = {}
        self._streams = HostStreams(remember=agent.settings.resume_window)
        self.stopping = False  # nothing new is let in: it would end with the process, in a false FIN
        self._waiting = 0  # clients that wait at the relay, as the last `paired` told
        self._paired = 0  # pairings since the last tick: the demand of the moment
        self._demand = 0.0
        self.pool: LegPool[HostLeg] = LegPool(
            agent.dialer,
            self.name,
            make_leg=lambda _: HostLeg(self),
            wanted=self._wanted,
            on_ready=lambda leg: None,
            denied=agent.fail,
            log=self.log,
        )
        agent.metrics.count_ready(self.name, lambda: self.pool.ready)

    def _wanted(self) -> int:
        """How many warm legs: the usual few, more while streams come fast, one for each that is on the move."""
        moving = sum(1 for session in self.sessions.values() if session.moves)
        usual = max(self.agent.settings.warm, round(self._demand))
        return min(usual + self._waiting + moving, max(self.agent.settings.warm, MOST_WARM))

    def demand_changed(self) -> None:
        self.pool.top_up()

    def tick(self) -> None:
        """Once a second: remember how fast streams came, and forget it by half every few seconds."""
        self._demand = max(float(self._paired), self._demand * 0.9)
        self._paired = 0
        self.pool.trim()

    # LegOwner

    def on_message(self, leg: AgentLeg[ToHost], message: ToHost | Unknown) -> None:
        assert isinstance(leg, HostLeg), "only such legs are made"
        match message:
            case Paired():
                self._on_paired(leg, message)
            case Unknown():
                self.agent.metrics.unknown_messages.inc()
            case Goaway():
                leg.leaving = True
                if not leg.paired:
                    self.pool.remove(leg)
                    leg.close(CloseCode.NORMAL)
                self.pool.top_up()
            case Open() if leg.takes_stream:
                self._on_open(leg, message)
            case Resume() if leg.takes_stream:
                self._on_resume(leg, message)
            case Open() | Resume():
                leg.violated(CloseCode.POLICY_VIOLATION, "a stream on a leg that takes none")
            case _:
                if leg.session is not None and isinstance(leg.stream, Stream):
                    leg.stream.on_message(message)

    def on_leg_end(self, leg: AgentLeg[ToHost], code: int, reason: str) -> None:
        assert isinstance(leg, HostLeg), "only such legs are made"
        self.pool.lost(leg, reason)
        if leg.session is not None:
            leg.session.leg_ended(code, reason)

    def _on_paired(self, leg: HostLeg, message: Paired) -> None:
        if leg.paired:
            leg.violated(CloseCode.POLICY_VIOLATION, "paired twice")
            return
        leg.paired = leg.carrying = True
        leg.peer, leg.subject, leg.client_leg = message.peer, message.subject, message.leg
        self._paired += 1
        self._waiting = message.waiting
        self.pool.remove(leg)
        self.pool.top_up()
        if message.raw and self.stopping:
            leg.close(CloseCode.RESET, STOPS)
        elif message.raw:
            leg.echo_close = False
            session = Session(self, leg, None)
            self.sessions[session.stream] = session

    def _on_open(self, leg: HostLeg, message: Open) -> None:
        self._streams.forget(leg.last)  # who opens the next has seen the end of the last
        if self.stopping:
            leg.send_message(Refused(message.stream, STOPS))
            return
        if self._streams.knows(message.stream):
            leg.send_message(Refused(message.stream, "this stream is known already"))
            return
        session = Session(self, leg, message)
        self.sessions[session.stream] = session
        if isinstance(session.stream, HostStream):
            self._streams.add(session.stream)

    def _on_resume(self, leg: HostLeg, message: Resume) -> None:
        found = self._streams.find(message, leg.client_leg, leg.subject, time.monotonic())
        if isinstance(found, HostStream):
            self.sessions[found].resume(leg, message)
        elif isinstance(found, Refusal):
            leg.close(CloseCode.STALE_ATTEMPT, found.value)
        else:
            leg.send_message(found)

    def session_over(self, session: Session, outcome: Outcome, reason: str) -> None:
        """The stream of `session` has ended."""
        del self.sessions[session.stream]
        if isinstance(session.stream, HostStream):
            self._streams.end(session.stream, session.subject, outcome, reason, time.monotonic())
