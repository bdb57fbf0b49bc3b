"""A leg at the relay, and the pump: whatever one leg of a pair receives, the other sends.

Payload goes through as it arrives, as frames of the relay's own; control messages go
through whole and in order. While a leg is congested, the other is not read. That is the only
flow control here; TCP passes it on to the sender.

Where one leg of the pair is raw, control messages stop here: `fin` and `reset` become the
close codes that a raw leg understands, and the end of a raw leg becomes a close of the v1
leg, which knows from `paired` that its peer is raw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from tunnel_core.errors import ProtocolViolation
from tunnel_core.net.leg import Leg, Monitor
from tunnel_core.net.outgoing import PEACEFUL
from tunnel_core.protocol.control import (
    EARLY_DATA,
    Fin,
    Open,
    Paired,
    Refused,
    Reset,
    Resume,
    Unknown,
    encode,
    from_client,
    from_host,
    without_source,
)
from tunnel_core.protocol.endpoints import Role
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.tokens import Grant

from .early import Early, EarlyMessage
from .limits import owner


class Matchmaker(Protocol):
    """What a leg needs of pairing."""

    def add(self, leg: RelayLeg) -> None:
        """A leg was opened."""

    def begin(self, leg: RelayLeg, message: Open | Resume) -> bool:
        """Start or resume a stream on a client leg. Returns False if the leg was refused."""

    def seek(self, leg: RelayLeg, message: Open | Resume) -> None:
        """A v1 client leg wants its host."""

    def hold(self, leg: RelayLeg, size: int) -> bool:
        """Count `size` more bytes held for `leg`. Returns False if the leg was refused."""

    def let_go(self, leg: RelayLeg, size: int) -> None:
        """`size` fewer bytes are held for `leg`."""

    def stop_waiting(self, leg: RelayLeg) -> None:
        """`leg` is closing or was refused: do not pair it."""

    def leg_ended(self, leg: RelayLeg, code: int, reason: str) -> None:
        """`leg` brings no more input: do not choose it."""

    def leg_gone(self, leg: RelayLeg) -> None:
        """The socket of `leg` is closed."""


class Party(Protocol):
    """What a leg needs of its peer in a pair."""

    v1: bool

    @property
    def congested(self) -> bool:
        """Whether to stop sending to it for now."""

    def send(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        """Send one binary message: `size` bytes in pieces that must not change."""

    def send_text(self, payload: bytes) -> None:
        """Send one control message."""

    def half_close(self) -> None:
        """End this direction after everything sent so far."""

    def close(self, code: int, reason: str = "") -> None:
        """Close both directions after everything sent so far."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def unpair(self, *, deserted: bool = False) -> None:
        """It has lost its peer. `deserted`: nobody takes what it brings from now on."""


class RelayLeg(Leg):
    """One leg: first unpaired, then with a `peer`, then without it and closing."""

    must_read = True

    def __init__(
        self,
        pairing: Matchmaker,
        monitor: Monitor,
        *,
        max_message: int,
        max_rate: int,
        role: Role,
        tunnel: str,
        v1: bool,
        leg_id: str,
        instance: str,
        address: str,
        grant: Grant | None,
        subject: str,
    ) -> None:
        super().__init__(monitor, client=False, text_limit=max_message if v1 else None)
        self.max_rate = max_rate
        self._pairing = pairing
        self.role: Role = role
        self.tunnel = tunnel
        self.v1 = v1
        self.pings = not v1  # agents ping for themselves
        self.id = leg_id  # of a v1 leg; its agent knows it, and the host knows a client leg's
        self.instance = instance  # of a v1 host leg
        self.host: str | None = None  # the instance of the host that a client leg was paired with
        self.address = address
        self.client = address  # for logs: whom a gateway names, else who dialed
        self.grant = grant
        self.subject = subject
        self.owner = owner(grant, address)  # whose log lines and held bytes its own count towards
        self.peer: Party | None = None
        self.sought = False  # a client that asked for a host: it counts as a stream
        self.deserted = False  # the peer's socket is closed: nobody takes this leg's bytes
        self.stream_bytes = 0  # payload that this leg brought
        self.asked: Open | Resume | None = None  # what a v1 client leg asked for last
        self._early: Early | None = None  # what came before the pairing

    @property
    def paired(self) -> bool:
        return self.peer is not None

    # net.leg.Leg

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._pairing.add(self)

    def on_data(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        peer = self.peer
        if peer is not None:
            self.stream_bytes += size
            # Unmasking copied them out of the read buffer, so the peer may keep them.
            peer.send(pieces, size)
        elif self.deserted:
            self.lost("nobody takes what it brings")
        elif not self.open:
            return  # it was in transit when the peer was lost
        elif self.v1 and self.asked is None:
            self.violated(CloseCode.POLICY_VIOLATION, "data before a stream was opened")
        else:
            self._waits_with(self._hold().add_data(pieces, size))

    def on_text(self, payload: bytes) -> None:
        if not self.open or self.deserted:
            return
        try:
            message = from_client(payload) if self.role == "client" else from_host(payload)
        except ProtocolViolation as exc:
            self.violated(exc.code, exc.reason)
            return
        if isinstance(message, Refused) and (message.retry or message.instance):
            self.violated(CloseCode.POLICY_VIOLATION, "only a relay knows whether something was passed on")
            return
        if isinstance(message, Open) and message.source:
            if self.grant is not None and self.grant.may_name_visitors:
                self.client = message.source
            else:
                message.source = ""
                payload = without_source(payload)
        if isinstance(message, Open | Resume):
            if not self._pairing.begin(self, message):
                return
            if self.asked is None:
                self.asked = message
                size = self._hold().add_message(payload, message)
                self._pairing.seek(self, message)
                self._waits_with(size)
                return
        if self.peer is not None:
            self._pass_on(payload, message)
        elif self.asked is not None:
            self._waits_with(self._hold().add_message(payload, message))
        elif not isinstance(message, Unknown):
            self.violated(CloseCode.POLICY_VIOLATION, "a message before the leg was paired")

    def close(self, code: int, reason: str = "") -> None:
        self._pairing.stop_waiting(self)
        super().close(code, reason)

    def on_end(self, code: int, reason: str) -> None:
        self._let_go()
        peer = self.peer
        self._pairing.leg_ended(self, code, reason)
        if peer is None:
            return
        if self.v1 and peer.v1:
            self._part(CloseCode.PEER_LOST, "the other leg is gone")
        elif code in PEACEFUL:
            peer.half_close()  # the peer may keep sending
        elif code == CloseCode.ABNORMAL:
            self._part(CloseCode.PEER_LOST, "the other leg is gone")
        else:
            self._part(CloseCode.RESET, reason)

    def on_gone(self) -> None:
        self._pairing.leg_gone(self)
        peer, self.peer = self.peer, None
        if peer is not None:
            # This leg closed cleanly, then its socket did. As with TCP, the peer may still
            # end cleanly in its own time; anything it sends until then gets a reset.
            peer.unpair(deserted=True)

    def on_writable(self, writable: bool) -> None:
        if self.peer is not None:
            if writable:
                self.peer.resume_reading()
            else:
                self.peer.pause_reading()

    # Pairing.

    def pair(self, peer: RelayLeg, waiting: int) -> None:
        """Join this client leg to the host leg `peer`, and pass on what either sent before."""
        self.host = peer.instance
        self._begin_pair(peer)
        peer._begin_pair(self)
        if peer.v1:
            paired = Paired(self.address, self.subject, leg=self.id, raw=not self.v1, waiting=waiting)
            peer.send_text(encode(paired))
        if self.v1:
            self.send_text(encode(Paired(instance=peer.instance, raw=not peer.v1)))
        self._pass_on_early()
        peer._pass_on_early()

    def _begin_pair(self, peer: Party) -> None:
        self.peer = peer
        self.carrying = True
        self.echo_close = self.v1 and peer.v1

    def unpair(self, *, deserted: bool = False) -> None:
        self.peer = None
        if deserted:
            self.deserted = True
            self.resume_reading()

    def refuse(self, reason: str, code: int, *, instance: str = "", retry: bool = False) -> None:
        """Turn this client away, with what it asked for; `instance` is where it may find that."""
        self._let_go()
        if isinstance(self.asked, Open):
            self.send_text(encode(Refused(self.asked.stream, reason, instance, retry)))
        if self.peer is None:
            self.close(code, reason)
        else:
            self._part(CloseCode.PEER_LOST, reason)

    def _part(self, code: int, reason: str) -> None:
        """This leg is lost: close its peer, after everything sent to it."""
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.unpair()
            peer.close(code, reason)
            self.close(CloseCode.NORMAL)

    def _hold(self) -> Early:
        if self._early is None:
            self._early = Early()
        return self._early

    def _waits_with(self, size: int) -> None:
        """Count `size` more held bytes, unless the leg was paired or refused meanwhile."""
        early = self._early
        if self.peer is not None or early is None or not self.open or not self._pairing.hold(self, size):
            return
        early.size += size
        if early.size > EARLY_DATA:
            self.pause_reading()

    def _let_go(self) -> Sequence[bytearray | EarlyMessage]:
        """Release and return what was held."""
        early, self._early = self._early, None
        if early is None:
            return ()
        self._pairing.let_go(self, early.size)
        return early.items

    def _pass_on_early(self) -> None:
        """Send the peer what came before it was there."""
        for item in self._let_go():
            if isinstance(item, bytearray):
                self.on_data((bytes(item),), len(item))
            elif self.peer is not None:
                self._pass_on(*item)
        if self.peer is not None and not self.peer.congested:
            self.resume_reading()

    def _pass_on(self, payload: bytes, message: object) -> None:
        peer = self.peer
        assert peer is not None, "only a paired leg passes on"
        if peer.v1:
            if self.v1:
                peer.send_text(payload)
        elif isinstance(message, Fin):
            peer.half_close()
        elif isinstance(message, Reset):
            self._part(CloseCode.RESET, message.reason)
