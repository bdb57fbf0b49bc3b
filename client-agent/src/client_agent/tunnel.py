"""One tunnel at the client: the legs and pairs kept ready, and the streams on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from tunnel_core.agent.context import AgentContext
from tunnel_core.agent.pool import LegPool
from tunnel_core.errors import TunnelError
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol.control import Goaway, Paired, ToClient, Unknown
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.seal.tls import ClientTls

from .leg import ClientLeg
from .session import ClientSession, Kind, Load
from .settings import ClientSettings

# Free pairs kept for later streams. More than the few that are ready from the start: an application that
# opens dozens of connections at once will do so again, and making a pair costs a millisecond of CPU.
MOST_FREE: Final = 32
ASK_AGAIN: Final = 15.0  # seconds to assume that an absent host is still away; then one visitor waits for it again
IDLE_PAIR: Final = 30.0  # seconds to keep a free pair: it occupies a leg of the host


class ClientTunnel:
    """Gives each new stream a leg, and a new leg to each that lost its own (the LegOwner of its legs)."""

    def __init__(
        self,
        context: AgentContext[ClientSettings],
        load: Load,
        name: str,
        tls: ClientTls | None,
        *,
        on_demand: bool = False,
    ) -> None:
        self._context = context
        self._warm = 0 if on_demand else context.settings.warm
        self._load = load
        self.name = name
        self.stream_log = context.stream_log.bind(tunnel=name)
        self._tls = tls  # of a sealed tunnel
        self._free: list[ClientLeg] = []  # pairs whose stream has ended cleanly, the latest last
        self._away_since: float | None = None  # when a stream was first refused because the host was away
        self._refused_at: float | None = None  # and when last
        self._waiting: dict[ClientSession, Kind] = {}  # sessions that want a leg, oldest first
        self.pool: LegPool[ClientLeg] = LegPool(
            context.dialer,
            name,
            make_leg=lambda dialed: ClientLeg(context.monitor, self, dialed),
            wanted=self._wanted,
            on_ready=self._on_ready,
            denied=self._denied if on_demand else context.fail,
            log=context.log.bind(tunnel=name),
        )
        context.metrics.count_ready(name, lambda: self.pool.ready + len(self._free), sealed=tls is not None)

    def new_connection(self) -> TcpConnection:
        """The protocol for a local connection that is being accepted; it is carried from then on."""
        session = ClientSession(self._context, self, self._load, self._tls)
        self._load.sessions.add(session)
        return session.tcp

    def adopt(self, tcp: TcpConnection, said: bytes, source: str, asleep: Callable[[bytes], bool]) -> None:
        """Carry the connection of a visitor from `source`, who has `said` something already.

        If the stream is refused, `asleep` is asked whether it answers all that he said; else the connection is reset.
        """
        session = ClientSession(self._context, self, self._load, self._tls, tcp=tcp, source=source, asleep=asleep)
        self._load.sessions.add(session)
        session.begin(said)

    @property
    def surely_away(self) -> bool:
        """Whether the host was away a moment ago."""
        return self._refused_at is not None and time.monotonic() - self._refused_at < ASK_AGAIN

    @property
    def away_for(self) -> float | None:
        """Seconds since a stream was first refused, as the host was away; None if it is not known to be."""
        return None if self._away_since is None else time.monotonic() - self._away_since

    @property
    def idle(self) -> bool:
        """Whether nobody uses it."""
        used = any(session.tunnel == self.name for session in self._load.sessions)
        return not (used or self._waiting or self._free or self.pool.ready)

    def _denied(self, error: TunnelError) -> None:
        """Of a tunnel that a stranger has named: others are none the worse."""
        for session in tuple(self._waiting):
            session.stream.expire(error.reason)

    # session.Tunnel

    def host_is(self, *, there: bool) -> None:
        self._refused_at = None if there else time.monotonic()
        self._away_since = None if there else self._away_since or self._refused_at

    def want_leg(self, session: ClientSession, kind: Kind) -> bool:
        if session in self._waiting:
            return False
        self._context.monitor.look()  # after a wake-up, trust no leg
        self._let_go_of_expired()
        leg = self._newest_pair() if kind is Kind.ANY else None
        if leg is None and kind is not Kind.NEW:
            leg = self.pool.newest()
        if leg is not None:
            session.take(leg)
            return True
        self._waiting[session] = kind
        self.pool.top_up()
        return False

    def free(self, leg: ClientLeg) -> None:
        if leg.open and not leg.leaving and len(self._free) < max(self._warm, MOST_FREE):
            leg.free_since = time.monotonic()
            self._free.append(leg)
        else:
            leg.close(CloseCode.NORMAL)

    def session_over(self, session: ClientSession) -> None:
        self._load.sessions.discard(session)
        self._waiting.pop(session, None)

    # The legs kept ready.

    def _newest_pair(self) -> ClientLeg | None:
        """Take the most recently freed pair that is neither closing nor suspected to be dead, if any."""
        for leg in reversed(self._free):
            if leg.open and not leg.suspected:
                self._unfree(leg)
                return leg
        return None

    def _unfree(self, leg: ClientLeg) -> None:
        if leg in self._free:
            self._free.remove(leg)
            self.pool.top_up()

    def tick(self) -> None:
        """Close pairs that were free for long, and legs beyond those wanted."""
        now = time.monotonic()
        while self._free and now - self._free[0].free_since > IDLE_PAIR:
            self._free.pop(0).close(CloseCode.NORMAL)
        self._let_go_of_expired()
        self._serve_those_who_wait()
        self.pool.top_up()
        self.pool.trim()

    def _serve_those_who_wait(self) -> None:
        """By ready legs that were suspected, and are alive, where no dial came to anything."""
        for session, kind in tuple(self._waiting.items()):
            leg = self.pool.newest() if kind is not Kind.NEW else None
            if leg is not None:
                del self._waiting[session]
                session.take(leg)

    def _let_go_of_expired(self) -> None:
        """Close the ready legs and free pairs whose token is over: fresh ones come with a fresh token."""
        now = time.monotonic()
        for leg in tuple(self._free):
            if leg.good_until < now:
                self._unfree(leg)
                leg.close(CloseCode.NORMAL)
        self.pool.let_go(lambda leg: leg.good_until < now)

    def _wanted(self) -> int:
        return len(self._waiting) + max(0, self._warm - len(self._free))

    def _on_ready(self, leg: ClientLeg) -> None:
        if self._waiting:
            session = next(iter(self._waiting))
            del self._waiting[session]
            self.pool.remove(leg)
            session.take(leg)

    # LegOwner

    def on_message(self, leg: ClientLeg, message: ToClient | Unknown) -> None:
        if isinstance(message, Unknown):
            self._context.metrics.unknown_messages.inc()
            return
        if isinstance(message, Paired):
            if leg.paired:
                leg.violated(CloseCode.POLICY_VIOLATION, "paired twice")
                return
            leg.paired = True
            leg.instance = message.instance
        if leg.session is not None:
            leg.session.on_message(leg, message)
        elif isinstance(message, Goaway):
            leg.leaving = True
            self._unfree(leg)
            self.pool.remove(leg)
            leg.close(CloseCode.NORMAL)

    def on_leg_end(self, leg: ClientLeg, code: int, reason: str) -> None:
        if leg.silent:
            self.pool.distrust()
            for free in self._free:
                free.abort()
        self._unfree(leg)
        self.pool.lost(leg, reason)
