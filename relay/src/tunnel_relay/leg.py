"""A leg at the relay, and the pump: what one leg of a pair brings, the other sends.

Payload goes through as it arrives, as frames of the relay's own; control messages go
through whole and in order. When a leg's socket takes no more, the other leg is not read:
that is all the flow control there is here, and TCP carries it on to the sender.

Where one leg of the pair is raw, control messages stop here: `fin` and `reset` become the
close codes that a raw leg understands, and what a raw leg ends with becomes a close of
the v1 leg, which knows from `paired` that it talks to a raw one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from tunnel_core.errors import ProtocolViolation
from tunnel_core.net.leg import PEACEFUL, Leg, Monitor
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
)
from tunnel_core.protocol.endpoints import Role
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.tokens import Grant

from .limits import HELD_ITEM, owner


class Matchmaker(Protocol):
    """Whoever pairs legs, as a leg sees it."""

    def add(self, leg: RelayLeg) -> None:
        """A leg has come in."""

    def begin(self, leg: RelayLeg, message: Open | Resume) -> bool:
        """Begin a stream on a client leg, or let it go on there. False: the leg was refused."""

    def seek(self, leg: RelayLeg, message: Open | Resume) -> None:
        """A v1 client leg wants its host."""

    def hold(self, leg: RelayLeg, size: int) -> bool:
        """Count `size` bytes more that wait with `leg`. False: the leg was refused."""

    def let_go(self, leg: RelayLeg, size: int) -> None:
        """`leg` has `size` bytes less that wait."""

    def stop_waiting(self, leg: RelayLeg) -> None:
        """`leg` is closing, or was refused: it is not to be paired any more."""

    def leg_ended(self, leg: RelayLeg, code: int, reason: str) -> None:
        """Nothing more comes from `leg`: it is not to be chosen."""

    def leg_gone(self, leg: RelayLeg) -> None:
        """The socket of `leg` is closed."""


class RelayLeg(Leg):
    """One leg. It is unpaired, then has a `peer`, then has lost it and is being closed."""

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
        self.id = leg_id  # of a v1 leg; told to its agent, and a client leg's also to the host
        self.instance = instance  # of a v1 host leg
        self.host: str | None = None  # the instance of the host that a client leg was paired with
        self.address = address
        self.grant = grant
        self.subject = subject
        self.owner = owner(grant, address)  # under whom its lines, and what it holds, are counted
        self.peer: RelayLeg | None = None
        self.sought = False  # a client that has asked for a host: it counts as a stream
        self.deserted = False  # the peer's socket is closed: nobody takes what this leg brings
        self.stream_bytes = 0  # that this leg brought
        self.asked: Open | Resume | None = None  # what a v1 client leg asked for last
        self._held: list[bytes | bytearray] = []  # what came before the pairing; text marked by _Text
        self._held_size = 0

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
            # Unmasked, they are pieces of their own: nothing is read into them again.
            peer.send(pieces, size)
        elif self.deserted:
            self.lost("nobody takes what it brings")
        elif not self.open:
            return  # it was on its way when the leg's peer was lost
        elif self.v1 and self.asked is None:
            self.violated(CloseCode.POLICY_VIOLATION, "data before a stream was opened")
        else:
            self._hold(b"".join(pieces), text=False)

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
        if isinstance(message, Open | Resume):
            if not self._pairing.begin(self, message):
                return
            if self.asked is None:
                self.asked = message
                self._held.append(_Text(payload))
                self._pairing.seek(self, message)
                self._waits_with(len(payload) + HELD_ITEM)
                return
        if self.peer is not None:
            self._pass_on(payload, message)
        elif self.asked is not None:
            self._hold(payload, text=True)
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
            peer.half_close()  # what the peer has still to say goes on
        elif code == CloseCode.ABNORMAL:
            self._part(CloseCode.PEER_LOST, "the other leg is gone")
        else:
            self._part(CloseCode.RESET, reason)

    def on_gone(self) -> None:
        self._pairing.leg_gone(self)
        peer, self.peer = self.peer, None
        if peer is not None:
            # This leg closed in peace, and then its socket. As with TCP the peer may end in
            # peace, too, in its own time; what it still says is answered with a reset.
            peer.peer = None
            peer.deserted = True
            peer.resume_reading()

    def on_writable(self, writable: bool) -> None:
        if self.peer is not None:
            if writable:
                self.peer.resume_reading()
            else:
                self.peer.pause_reading()

    # Pairing.

    def pair(self, peer: RelayLeg, waiting: int) -> None:
        """Join this client leg to the host leg `peer`, and pass on what either brought too early."""
        self.host = peer.instance
        for leg, other in ((self, peer), (peer, self)):
            leg.peer = other
            leg.carrying = True
            leg.echo_close = leg.v1 and other.v1
        if peer.v1:
            told = Paired(self.address, self.subject, leg=self.id, raw=not self.v1, waiting=waiting)
            peer.send_text(encode(told))
        if self.v1:
            self.send_text(encode(Paired(instance=peer.instance, raw=not peer.v1)))
        for leg in (self, peer):
            leg.pass_on_held()

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
        """This leg is of no use to its peer any more: close that, once it has what was for it."""
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.peer = None
            peer.close(code, reason)
            self.close(CloseCode.NORMAL)

    def _hold(self, payload: bytes, *, text: bool) -> None:
        if not text and self._held and isinstance(self._held[-1], bytearray):
            self._held[-1] += payload  # bytes that came one by one would take forty times their size
            self._waits_with(len(payload))
        else:
            self._held.append(_Text(payload) if text else bytearray(payload))
            self._waits_with(len(payload) + HELD_ITEM)

    def _waits_with(self, size: int) -> None:
        """`size` bytes more are held, unless the leg was paired or turned away meanwhile."""
        if self.peer is not None or not self.open or not self._pairing.hold(self, size):
            return
        self._held_size += size
        if self._held_size > EARLY_DATA:
            self.pause_reading()

    def _let_go(self) -> list[bytes | bytearray]:
        """Hold nothing any more. Returns what was held."""
        self._pairing.let_go(self, self._held_size)
        held, self._held, self._held_size = self._held, [], 0
        return held

    def pass_on_held(self) -> None:
        """Give the peer what came before there was one."""
        for payload in self._let_go():
            if not isinstance(payload, _Text):
                self.on_data((bytes(payload),), len(payload))
            elif self.peer is not None:
                self._pass_on(payload, from_client(payload))
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


class _Text(bytes):
    """A held control message, among held data."""
