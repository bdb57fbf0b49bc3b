"""A leg of an agent: control messages on top of bytes, in the face of a stream's link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from ..errors import ProtocolViolation
from ..net.leg import MOST_UNSENT, Leg
from ..net.liveness import LegMonitor
from ..net.tcp import TcpConnection
from ..protocol.control import MAX_MESSAGE, Decoder, Message, Unknown, encode
from ..protocol.frames import CloseCode
from ..protocol.raw import RawStream
from ..protocol.stream import HOLD_LINK, Stream

M_contra = TypeVar("M_contra", contravariant=True)
M = TypeVar("M")
L_contra = TypeVar("L_contra", contravariant=True)


class LegOwner(Protocol[L_contra, M_contra]):
    """Whoever acts on what a leg brings, apart from the bytes of its stream."""

    def on_message(self, leg: L_contra, message: M_contra | Unknown) -> None: ...
    def on_leg_end(self, leg: L_contra, code: int, reason: str) -> None:
        """Nothing more will come: the peer's close code, or 1006."""


class AgentLeg(Leg, Generic[M]):
    """One leg of an agent.

    While it carries, its bytes go straight to `stream`, and it holds the local socket `tcp`
    while the network does not take more.
    """

    def __init__(self, monitor: LegMonitor, decode: Decoder[M], owner: LegOwner[AgentLeg[M], M]) -> None:
        super().__init__(monitor, client=True, text_limit=MAX_MESSAGE)
        self._decode = decode
        self.owner = owner
        self.stream: Stream | RawStream | None = None
        self.tcp: TcpConnection | None = None
        self.paired = False
        self.leaving = False  # `goaway` came: nothing new goes on it

    @property
    def idle(self) -> bool:
        return self.stream is None

    @property
    def expendable(self) -> bool:
        return not isinstance(self.stream, RawStream)

    def attach(self, stream: Stream | RawStream, tcp: TcpConnection) -> None:
        """Carry `stream` from now on."""
        self.stream = stream
        self.tcp = tcp
        # A resume sends all that is unacknowledged at once.
        self.most_unsent = MOST_UNSENT + (stream.window if isinstance(stream, Stream) else 0)
        if self.congested:
            tcp.hold(HOLD_LINK)

    def detach(self) -> None:
        """Carry nothing."""
        if self.tcp is not None:
            self.tcp.release(HOLD_LINK)
        self.stream = self.tcp = None

    def send_message(self, message: Message, *, linger: bool = False) -> None:
        self.send_text(encode(message), linger=linger)

    # net.leg.Leg

    def on_data(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        if self.stream is not None:
            self.stream.link_data(pieces, size)
        elif self.open:
            self.violated(CloseCode.POLICY_VIOLATION, "data without a stream")

    def on_text(self, payload: bytes) -> None:
        if not self.open:
            return  # the leg is being closed: it takes no new stream, and the one it had is off it
        try:
            message = self._decode(payload)
        except ProtocolViolation as exc:
            self.violated(exc.code, exc.reason)
            return
        self.owner.on_message(self, message)

    def on_end(self, code: int, reason: str) -> None:
        self.owner.on_leg_end(self, code, reason)

    def on_writable(self, writable: bool) -> None:
        if self.tcp is not None:
            if writable:
                self.tcp.release(HOLD_LINK)
            else:
                self.tcp.hold(HOLD_LINK)
