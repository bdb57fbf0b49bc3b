"""One stream at the host: its connection to the target and the leg that carries it."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from tunnel_core.agent.context import AgentContext
from tunnel_core.agent.session import Session
from tunnel_core.net.buffers import FRAME_SIZE
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol.control import Open, Resume, ToHost
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.resume import HostStream
from tunnel_core.protocol.seal.errors import Fault, SealError
from tunnel_core.protocol.seal.local import SealedLocal
from tunnel_core.protocol.seal.tls import HostTls
from tunnel_core.protocol.stream import Outcome, Phase
from tunnel_core.service.logs import Throttle

from .leg import HostLeg
from .settings import HostSettings
from .target import Caller, Target

CLOSE_PATIENCE: Final = 5.0  # seconds for the client to close a pair that cannot be reused


class Tunnel(Protocol):
    """What a session needs of its tunnel."""

    name: str
    target: Target
    stream_log: Throttle

    def leg_wanted(self) -> None:
        """The session has lost its leg: the client will want another for it."""

    def session_over(self, session: HostSession, outcome: Outcome, reason: str) -> None:
        """The stream of `session` has ended."""


class HostSession(Session[HostStream[HostLeg]]):
    """Joins a stream to its target, and resumes it on the legs that the client names.

    With `tls` it is sealed, and the target is not connected before the client has shown its key.
    """

    def __init__(
        self, context: AgentContext[HostSettings], tunnel: Tunnel, leg: HostLeg, message: Open, tls: HostTls | None
    ) -> None:
        log = tunnel.stream_log.by(leg.subject)
        self._caller = caller = Caller(message.source or leg.peer, leg.subject, message.stream)
        log = log.bind(client=caller.address, subject=leg.subject, stream=message.stream)
        super().__init__(context, tunnel.name, log)
        self._tunnel = tunnel
        self.subject = leg.subject  # of the client's token
        self._tcp = tcp = TcpConnection(context.streams.memory)
        self._seal: SealedLocal | None = None
        if tls is not None:
            self._seal = SealedLocal(
                tls,
                tcp,
                largest=FRAME_SIZE,
                failed=self._seal_failed,
                sealed=self._sealed,
                answers=self._accept,
            )
        self.stream = HostStream(
            message, self._seal or tcp, leg, context=context.streams, owner=leg.subject, closed=self._closed
        )
        tcp.carrier = self._seal or self.stream
        leg.attach(self, self.stream)
        if self._seal is None:
            self._connect()
        else:
            self._seal.carrier = self.stream
            self._begin_sealing()

    @property
    def moves(self) -> bool:
        """Whether it needs another leg: it has none, or has been asked to leave it."""
        return self.stream.link is None or self.stream.link.leaving

    def _connect(self) -> None:
        self._tunnel.target.connect(self._tcp, self._caller, self._log, self.opened, self.stream.refuse)

    def _accept(self) -> None:
        self.stream.accept()

    def opened(self, **fields: object) -> None:
        if self._seal is None:
            self._accept()
        super().opened(**fields)

    # For sealed streams.

    @property
    def token(self) -> str:
        """The id of the token whose key the client has shown; empty until then."""
        return "" if self._seal is None or self._seal.identity is None else self._seal.identity.token

    def _sealed(self) -> None:
        self._end_sealing()
        self._connect()

    def _seal_failed(self, error: SealError) -> None:
        self._context.metrics.seal_failed(error.fault)
        self.stream.refuse(error.reason, Outcome.SEAL_BROKEN)

    def revoke(self) -> None:
        """The client's token was revoked."""
        self._seal_failed(SealError(Fault.REVOKED))

    # Called by its leg.

    def on_message(self, leg: HostLeg, message: ToHost) -> None:
        self.stream.on_message(message)

    def leg_ended(self, leg: HostLeg, code: int, reason: str) -> None:
        leg.detach()
        self.stream.link_lost()
        if self.stream.phase is not Phase.CLOSED:
            self._detached("no resume")
            self._log.info("stream detached", reason=reason, code=code)
            self._tunnel.leg_wanted()

    def resume(self, leg: HostLeg, message: Resume) -> None:
        """Continue on `leg`."""
        stream, old = self.stream, self.stream.link
        if old is not None:
            old.detach()
            old.close(CloseCode.MOVED)
            stream.link_lost()
        paused = self._reattached()
        leg.attach(self, stream)
        before = stream.replayed
        stream.resume(leg, message, leg.client_leg)
        if stream.phase is not Phase.CLOSED:
            self._resumed(paused, stream.replayed - before, attempt=message.attempt)

    def _closed(self, outcome: Outcome, reason: str) -> None:
        leg = self.stream.link
        if leg is not None:
            leg.detach()
            if outcome is Outcome.VIOLATION:
                leg.violated(CloseCode.POLICY_VIOLATION, reason)
            elif outcome is Outcome.FINISHED:
                leg.last = self.stream.id
            else:
                # The client closes the pair; if it does not, it is closed here.
                leg.spent = True
                asyncio.get_running_loop().call_later(CLOSE_PATIENCE, leg.close, CloseCode.NORMAL)
        self._ended(outcome, reason)
        self._tunnel.session_over(self, outcome, reason)
