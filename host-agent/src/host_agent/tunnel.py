"""One offered tunnel: its warm legs, and the streams that came over them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from tunnel_core.agent.context import AgentContext
from tunnel_core.agent.pool import LegPool
from tunnel_core.agent.session import RawSession
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol.control import Goaway, Open, Paired, Refused, Resume, ToHost, Unknown
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.resume import HostStream, HostStreams, Refusal
from tunnel_core.protocol.seal.errors import Fault
from tunnel_core.protocol.seal.tls import HostTls
from tunnel_core.protocol.stream import Outcome
from tunnel_core.service.revoked import Revoked

from .leg import HostLeg
from .session import HostSession
from .settings import HostSettings, Offer
from .target import Caller, Target

MOST_WARM: Final = 64  # warm legs of one tunnel, unless more are configured: 11 KiB each at the relay

STOPS: Final = "the host-agent stops"


class HostTunnel:
    """Keeps warm legs at the relay and acts on what comes over them (the LegOwner of its legs)."""

    def __init__(self, context: AgentContext[HostSettings], offer: Offer, tls: HostTls | None) -> None:
        self._context = context
        self.name = offer.tunnel
        self.stream_log = context.stream_log.bind(tunnel=offer.tunnel)
        settings = context.settings
        self.target = Target(offer.target, settings.target_timeout, tells=offer.tunnel in settings.proxy_protocol)
        self._sessions: dict[HostStream[HostLeg], HostSession] = {}
        self._tls = tls  # of a sealed tunnel
        self._raw_sessions: set[RawSession] = set()
        self._streams: HostStreams[HostLeg] = HostStreams(remember=context.settings.resume_window)
        self.stopping = False  # accepts nothing new: it would end with the process, in a false FIN
        self._waiting = 0  # clients that wait at the relay, as the last `paired` said
        self._paired = 0  # pairings since the last tick: the current demand
        self._demand = 0.0
        self.pool: LegPool[HostLeg] = LegPool(
            context.dialer,
            self.name,
            make_leg=lambda _: HostLeg(context.monitor, self),
            wanted=self._wanted,
            on_ready=lambda leg: None,
            denied=context.fail,
            log=context.log.bind(tunnel=self.name),
        )
        context.metrics.count_ready(self.name, lambda: self.pool.ready, sealed=tls is not None)

    def sessions(self) -> Iterable[HostSession | RawSession]:
        """The current streams."""
        yield from self._sessions.values()
        yield from self._raw_sessions

    def _wanted(self) -> int:
        """How many warm legs: the usual few, more while streams come fast, one for each that is on the move."""
        moving = sum(1 for session in self._sessions.values() if session.moves)
        usual = max(self._context.settings.warm, round(self._demand))
        return min(usual + self._waiting + moving, max(self._context.settings.warm, MOST_WARM))

    def tick(self) -> None:
        """Once a second: remember how fast streams came, and forget it by half every few seconds."""
        self._demand = max(float(self._paired), self._demand * 0.9)
        self._paired = 0
        self.pool.trim()

    # LegOwner

    def on_message(self, leg: HostLeg, message: ToHost | Unknown) -> None:
        match message:
            case Paired():
                self._on_paired(leg, message)
            case Unknown():
                self._context.metrics.unknown_messages.inc()
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
                if leg.session is not None:
                    leg.session.on_message(leg, message)

    def on_leg_end(self, leg: HostLeg, code: int, reason: str) -> None:
        self.pool.lost(leg, reason)

    def _on_paired(self, leg: HostLeg, message: Paired) -> None:
        if leg.paired:
            leg.violated(CloseCode.POLICY_VIOLATION, "paired twice")
            return
        leg.pair(message)
        self._paired += 1
        self._waiting = message.waiting
        self.pool.remove(leg)
        self.pool.top_up()
        if message.raw and self._tls is not None:
            self._context.metrics.seal_failed(Fault.UNSEALED_CLIENT)
            leg.close(CloseCode.RESET, Fault.UNSEALED_CLIENT.line)
        elif message.raw and self.stopping:
            leg.close(CloseCode.RESET, STOPS)
        elif message.raw:
            self._begin_raw(leg)

    def _begin_raw(self, leg: HostLeg) -> None:
        context, tcp = self._context, TcpConnection(self._context.streams.memory)
        log = self.stream_log.by(leg.subject).bind(client=leg.peer, subject=leg.subject)
        session = RawSession(context, self.name, log, tcp=tcp, leg=leg, over=self._raw_sessions.discard)
        self._raw_sessions.add(session)
        self.target.connect(tcp, Caller(leg.peer, leg.subject), log, session.opened, session.stream.refuse)

    def _on_open(self, leg: HostLeg, message: Open) -> None:
        self._streams.forget(leg.last)  # a client that opens the next stream has seen the last one's end
        if self.stopping:
            leg.send_message(Refused(message.stream, STOPS))
            return
        if self._streams.knows(message.stream):
            leg.send_message(Refused(message.stream, "this stream is known already"))
            return
        if not self._context.streams.memory.admits(leg.subject):
            leg.send_message(Refused(message.stream, "the host-agent has no memory for more streams of this token"))
            return
        if message.e2e is not (self._tls is not None):
            fault = Fault.UNSEALED_HOST if message.e2e else Fault.UNSEALED_CLIENT
            self._context.metrics.seal_failed(fault)
            leg.send_message(Refused(message.stream, fault.line))
            return
        session = HostSession(self._context, self, leg, message, self._tls)
        self._sessions[session.stream] = session
        self._streams.add(session.stream)

    def end_revoked(self, revoked: Revoked) -> None:
        """Reset the sealed streams whose tokens are `revoked`."""
        for session in tuple(self._sessions.values()):
            if session.token in revoked:
                session.revoke()

    def _on_resume(self, leg: HostLeg, message: Resume) -> None:
        found = self._streams.find(message, leg.client_leg, leg.subject, time.monotonic())
        if isinstance(found, HostStream):
            self._sessions[found].resume(leg, message)
        elif isinstance(found, Refusal):
            leg.close(CloseCode.STALE_ATTEMPT, found.value)
        else:
            leg.send_message(found)

    # session.Tunnel

    def leg_wanted(self) -> None:
        self.pool.top_up()

    def session_over(self, session: HostSession, outcome: Outcome, reason: str) -> None:
        del self._sessions[session.stream]
        self._streams.end(session.stream, session.subject, outcome, reason, time.monotonic())
