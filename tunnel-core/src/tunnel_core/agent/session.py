"""One end of a stream, joined to a local connection: what the sessions of both agents have in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from ..net.tcp import TcpConnection
from ..protocol.raw import AnyStream, RawStream
from ..protocol.seal.errors import Fault, SealError
from ..protocol.stream import Outcome
from ..service.logs import Throttle
from .context import AgentContext
from .leg import AgentLeg
from .settings import AgentSettings

S = TypeVar("S", bound=AnyStream)
HANDSHAKE: Final = 10.0  # seconds for a seal's handshake, one round trip: as long as the relay allows for its own


class Session(Generic[S]):
    """Counts and logs what happens to `stream`, and ends it if it has no leg for too long.

    The leg that carries it is `stream.link`.
    """

    stream: S

    def __init__(
        self, context: AgentContext[AgentSettings], tunnel: str, log: Throttle, begun: float | None = None
    ) -> None:
        self.tunnel = tunnel
        self._context = context
        self._log = log
        self._begun = begun or time.monotonic()
        self._detached_since: float | None = None
        self._deadline: asyncio.TimerHandle | None = None  # of a stream that has no leg
        self._sealing: asyncio.TimerHandle | None = None  # of a seal whose handshake is not over

    def stop(self, reason: str) -> None:
        """Reset the stream: this agent stops."""
        self.stream.local_broken(reason, Outcome.STOPPED)

    def leg_gone(self, leg: AgentLeg[Any]) -> None:
        """The socket of its leg is closed. All but raw streams left the leg when it ended."""

    def opened(self, **fields: object) -> None:
        """The target answered."""
        seconds = time.monotonic() - self._begun
        self._context.metrics.opened(self.tunnel, seconds)
        self._log.info("stream opened", milliseconds=round(seconds * 1000, 1), **fields)

    # For sealed streams.

    def _begin_sealing(self) -> None:
        """Start the handshake's deadline."""
        self._sealing = asyncio.get_running_loop().call_later(HANDSHAKE, self._sealing_is_late)

    def _sealing_is_late(self) -> None:
        if self.stream.link is not None:
            self._seal_failed(SealError(Fault.TIMEOUT))
        else:
            self._begin_sealing()  # without a leg it has another deadline

    def _end_sealing(self) -> None:
        """The handshake is over, or no longer awaited."""
        if self._sealing is not None:
            self._sealing.cancel()
            self._sealing = None

    def _seal_failed(self, error: SealError) -> None:
        """The received bytes are not what the other end sealed, or the other end's key is not accepted."""
        self._context.metrics.seal_failed(error.fault)
        self.stream.local_broken(error.reason, Outcome.SEAL_BROKEN)

    def _detached(self, missed: str) -> None:
        """The stream has no leg. It is given up if none is found within the resume window, which `missed` names."""
        self._detached_since = time.monotonic()
        patience = self._context.settings.resume_window
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(patience, self.stream.expire, f"{missed} within {patience:g} s")

    def _reattached(self) -> float | None:
        """The stream has a leg. Returns the seconds it had none, or None if it always had one."""
        since, self._detached_since = self._detached_since, None
        self._forget_deadline()
        return None if since is None else time.monotonic() - since

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _resumed(self, paused: float | None, replayed: int, **fields: object) -> None:
        """The stream is on another leg. `paused` is the number of seconds it had none."""
        self._context.metrics.resumed(self.tunnel, "moved" if paused is None else "resumed", paused, replayed)
        self._log.info("stream resumed", paused_ms=round((paused or 0) * 1000), replayed_bytes=replayed, **fields)

    def _ended(
        self, outcome: Outcome, reason: str, *, was_paired: bool = True, warn: bool = False, **fields: object
    ) -> None:
        """The stream is over: count and log it. Only a stream that `was_paired` can be lost."""
        self._forget_deadline()
        self._end_sealing()
        self._context.metrics.ended(self.tunnel, self.stream, outcome)
        if outcome is Outcome.LOST and was_paired:
            self._context.metrics.resumed(self.tunnel, "lost", None, 0)
        log = self._log.warning if warn else self._log.info
        log(
            "stream closed",
            outcome=outcome.value,
            reason=reason,
            sent=self.stream.sent,
            received=self.stream.received,
            seconds=round(time.monotonic() - self._begun, 3),
            **fields,
        )


class RawSession(Session[RawStream[AgentLeg[Any]]]):
    """A stream whose other end is a raw peer, at either agent: joins `tcp` to `leg`, and ends with it.

    `over` is called at the end. `sent` bytes of `tcp` are on the leg already, and its end, if it has `ended`.
    """

    def __init__(
        self,
        context: AgentContext[AgentSettings],
        tunnel: str,
        log: Throttle,
        *,
        tcp: TcpConnection,
        leg: AgentLeg[Any],
        over: Callable[[RawSession], None],
        sent: int = 0,
        ended: bool = False,
        begun: float | None = None,
    ) -> None:
        super().__init__(context, tunnel, log, begun)
        self._over = over
        self.stream = RawStream(tcp, leg, self._closed, sent=sent, eof=ended)
        tcp.carrier = self.stream
        leg.echo_close = False  # a close frame is a FIN: answer it when the other direction has ended
        leg.attach(self, self.stream)

    # Called by its leg.

    def on_message(self, leg: AgentLeg[Any], message: object) -> None:
        """Ignore it: raw peers send no messages, and the relay's are for streams that can move."""

    def leg_ended(self, leg: AgentLeg[Any], code: int, reason: str) -> None:
        self.stream.link_closed(code, reason)

    def leg_gone(self, leg: AgentLeg[Any]) -> None:
        leg.detach()
        self.stream.link_lost()
        self._detached("the raw peer is gone, and the local connection did not end")

    def _closed(self, outcome: Outcome, reason: str) -> None:
        if self.stream.link is not None:
            self.stream.link.detach()
        self._ended(outcome, reason)
        self._over(self)
