"""A leg of an agent: a stream's link, with control messages besides bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, Self, TypeVar

from ..errors import ProtocolViolation
from ..net.leg import Leg, Monitor
from ..net.outgoing import HIGH_WATER, MOST_UNSENT
from ..protocol.budget import Share
from ..protocol.control import MAX_MESSAGE, Decoder, Message, Unknown, encode
from ..protocol.frames import CloseCode
from ..protocol.local import HOLD_LINK
from ..protocol.raw import AnyStream

M_contra = TypeVar("M_contra", contravariant=True)
M = TypeVar("M")
L_contra = TypeVar("L_contra", contravariant=True)


class LegOwner(Protocol[L_contra, M_contra]):
    """Acts on what a leg brings, except for the bytes of its stream."""

    def on_message(self, leg: L_contra, message: M_contra | Unknown) -> None: ...
    def on_leg_end(self, leg: L_contra, code: int, reason: str) -> None:
        """No more input follows. `code` is the peer's close code, or 1006. Called before the session is informed."""


class LegSession(Protocol[L_contra, M_contra]):
    """The session whose stream a leg carries or is about to carry."""

    def on_message(self, leg: L_contra, message: M_contra) -> None: ...
    def leg_ended(self, leg: L_contra, code: int, reason: str) -> None:
        """`leg` brings nothing more: a raw peer has closed, or the leg is lost."""

    def leg_gone(self, leg: L_contra) -> None:
        """The socket of `leg`, which still carries the stream, is closed."""


class AgentLeg(Leg, Generic[M]):
    """One leg of an agent.

    While it carries, its bytes go straight to `stream`, whose local socket it holds while the
    network does not take more.
    """

    def __init__(self, monitor: Monitor, decode: Decoder[M], owner: LegOwner[Self, M]) -> None:
        super().__init__(monitor, client=True, text_limit=MAX_MESSAGE)
        self._decode = decode
        self.owner: LegOwner[Self, M] = owner
        self.session: LegSession[Self, M] | None = None
        self.stream: AnyStream | None = None
        self.paired = False
        self.leaving = False  # `goaway` came: it gets no new stream
        self._charged: Share | None = None  # pays for the leg's unsent bytes while it is congested

    @property
    def idle(self) -> bool:
        return self.stream is None

    @property
    def expendable(self) -> bool:
        return self.stream is None or self.stream.resumable

    def attach(self, session: LegSession[Self, M], stream: AnyStream) -> None:
        """Carry `stream` of `session` from now on."""
        self.session = session
        self.stream = stream
        # A resume sends everything unacknowledged at once.
        self.most_unsent = MOST_UNSENT + stream.window
        if self.congested:
            stream.local.hold(HOLD_LINK)

    def detach(self) -> None:
        """Carry nothing."""
        if self.stream is not None:
            self.stream.local.release(HOLD_LINK)
        self._charge(None)
        self.session = self.stream = None

    def send_message(self, message: Message, *, linger: bool = False) -> None:
        self.send_text(encode(message), linger=linger)

    # net.leg.Leg

    def on_data(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        if self.stream is not None:
            self.stream.link_data(pieces, size)
        elif self.open:
            self.violated(CloseCode.POLICY_VIOLATION, "data without a stream")

    def on_text(self: Self, payload: bytes) -> None:
        if not self.open:
            return  # the leg is closing: it takes no new stream, and its last one has left it
        try:
            message = self._decode(payload)
        except ProtocolViolation as exc:
            self.violated(exc.code, exc.reason)
            return
        self.owner.on_message(self, message)

    def on_end(self: Self, code: int, reason: str) -> None:
        self.owner.on_leg_end(self, code, reason)
        if self.session is not None:
            self.session.leg_ended(self, code, reason)

    def on_gone(self: Self) -> None:
        if self.session is not None:
            self.session.leg_gone(self)

    def on_writable(self, writable: bool) -> None:
        if self.stream is not None:
            if writable:
                self.stream.local.release(HOLD_LINK)
            else:
                self.stream.local.hold(HOLD_LINK)
        self._charge(self.stream.share if self.stream is not None and not writable else None)

    def _charge(self, share: Share | None) -> None:
        """Charge this leg's unsent bytes to `share`."""
        if self._charged is not None:
            self._charged.take(-HIGH_WATER)
        self._charged = share
        if share is not None:
            share.take(HIGH_WATER)
