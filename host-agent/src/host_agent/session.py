"""One stream at the host: its target connection, and whatever leg carries it."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Final

from tunnel_core.net import sockets
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol.control import Open, Resume
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.raw import RawStream
from tunnel_core.protocol.resume import HostStream
from tunnel_core.protocol.stream import Outcome, Phase

if TYPE_CHECKING:
    from .tunnel import HostLeg, HostTunnel

CLOSE_PATIENCE: Final = 5.0  # seconds in which the client is to close a pair that cannot be used again


class Session:
    """Joins a stream to its target. `leg` is None while the stream is detached."""

    def __init__(self, tunnel: HostTunnel, leg: HostLeg, message: Open | None) -> None:
        self._tunnel = tunnel
        self.tunnel = tunnel.name
        self.subject = leg.subject  # whose stream it is
        self._agent = tunnel.agent
        self._tcp = TcpConnection(self._agent.memory, self._connected)
        self.leg: HostLeg | None = leg
        named = {} if message is None else {"stream": message.stream}
        self._log = tunnel.stream_log.by(leg.subject).bind(client=leg.peer, subject=leg.subject, **named)
        self._begun = time.monotonic()
        self._lost_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.stream: HostStream | RawStream
        if message is None:
            self.stream = RawStream(self._tcp, leg, self._closed)
        else:
            self.stream = HostStream(
                message,
                self._tcp,
                window=self._agent.settings.window,
                memory=self._agent.memory,
                owner=leg.subject,
                clock=self._agent.clock.add,
                closed=self._closed,
            )
            self.stream.link = leg
        self._tcp.carrier = self.stream
        leg.session = self
        leg.attach(self.stream, self._tcp)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

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
    def moves(self) -> bool:
        """Whether it needs another leg: it has none, or has been asked to leave it. Raw streams cannot move."""
        return isinstance(self.stream, HostStream) and (self.leg is None or self.leg.leaving)

    @property
    def has_deadline(self) -> bool:
        """Whether a timer ends the stream unless a leg is found. Always so while it is not attached."""
        return self._timer is not None

    # The target.

    async def _connect(self) -> None:
        try:
            await self._tcp.dial(self._tunnel.target, self._agent.settings.target_timeout)
        except OSError as exc:
            self._refused(exc)

    def _connected(self) -> None:
        if isinstance(self.stream, HostStream):
            self.stream.accept()
        self._agent.metrics.opened(self.tunnel, time.monotonic() - self._begun)
        self._log.info("stream opened", target=str(self._tunnel.target))

    def _refused(self, exc: OSError) -> None:
        # The client is told what happened, the log also where.
        if isinstance(exc, TimeoutError):
            reason = "the target did not answer in time"
        elif isinstance(exc, socket.gaierror):
            reason = "the target's name was not found"
        elif isinstance(exc, ConnectionRefusedError):
            reason = "the target refused the connection"
        else:
            reason = "the target cannot be reached"
        self._log.warning("target refused", target=str(self._tunnel.target), error=sockets.why(exc))
        if isinstance(self.stream, HostStream):
            self.stream.refuse(reason)
        else:
            self.stream.local_broken(reason, Outcome.REFUSED)

    # The legs.

    def leg_ended(self, code: int, reason: str) -> None:
        """The leg brings nothing more: a raw peer has closed, or the leg is lost."""
        leg, stream = self.leg, self.stream
        assert leg is not None, "only an attached leg ends"
        if isinstance(stream, RawStream):
            stream.link_closed(code, reason)
            return
        leg.detach()
        leg.session = self.leg = None
        stream.link_lost()
        if stream.phase is Phase.CLOSED:
            return
        self._lost_at = time.monotonic()
        self._set_window("no resume within")
        self._log.info("stream detached", reason=reason, code=code)
        self._tunnel.demand_changed()

    def leg_gone(self) -> None:
        """The socket of a raw stream's leg is closed."""
        if isinstance(self.stream, RawStream) and self.leg is not None:
            self.leg.detach()
            self.leg = None
            self.stream.link_lost()
            self._set_window("the raw peer is gone, and the target did not end within")

    def resume(self, leg: HostLeg, message: Resume) -> None:
        """Carry on on `leg`."""
        stream = self.stream
        assert isinstance(stream, HostStream), "raw streams are not in the registry"
        old, paused = self.leg, None
        if old is not None:
            old.detach()
            old.session = None
            old.close(CloseCode.MOVED)
            stream.link_lost()
        else:
            paused = time.monotonic() - self._lost_at
            self._stop_timer()
        self.leg = leg
        leg.session = self
        leg.attach(stream, self._tcp)
        before = stream.replayed
        stream.resume(leg, message, leg.client_leg)
        if stream.phase is not Phase.CLOSED:
            replayed = stream.replayed - before
            self._agent.metrics.resumed(self.tunnel, "moved" if paused is None else "resumed", paused, replayed)
            self._log.info(
                "stream resumed",
                paused_ms=round((paused or 0) * 1000),
                replayed_bytes=replayed,
                attempt=message.attempt,
            )

    # The end.

    def stop(self) -> None:
        """Reset the stream: this agent stops."""
        self.stream.local_broken("the host-agent stopped", Outcome.STOPPED)

    def _closed(self, outcome: Outcome, reason: str) -> None:
        self._connecting.cancel()
        self._stop_timer()
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.detach()
            leg.session = None
            if outcome is Outcome.VIOLATION:
                leg.violated(CloseCode.POLICY_VIOLATION, reason)
            elif outcome is Outcome.FINISHED:
                leg.last = self.stream.id if isinstance(self.stream, HostStream) else ""
            else:
                # The client closes the pair; if it does not, it is closed here.
                leg.spent = True
                asyncio.get_running_loop().call_later(CLOSE_PATIENCE, leg.close, CloseCode.NORMAL)
        self._agent.metrics.ended(self, outcome)
        if outcome is Outcome.LOST:
            self._agent.metrics.resumed(self.tunnel, "lost", None, 0)
        self._tunnel.session_over(self, outcome, reason)
        self._log.info(
            "stream closed",
            outcome=outcome.value,
            reason=reason,
            sent=self.sent,
            received=self.received,
            seconds=round(time.monotonic() - self._begun, 3),
        )

    def _set_window(self, missed: str) -> None:
        window = self._agent.settings.resume_window
        self._timer = asyncio.get_running_loop().call_later(window, self.stream.expire, f"{missed} {window:g} s")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
