"""One end of a stream (PROTOCOL.md, "Streams"), without I/O.

Theory of operation. A stream end stands between a *local* TCP socket and a *link*, the
leg it is attached to right now. Each direction is a sequence of offsets: every byte takes
one, and the FIN takes the last.

    local socket ── local_data, local_eof ──▶ replay buffer ──▶ link ──▶ the other end
    local socket ◀── write, write_eof ──────────────────────── link ◀── the other end

What came from the local socket stays in the replay buffer until the other end acknowledges
it; no more than `limit` bytes may wait there, so the buffer is the window, too. What comes
from the link goes to the local socket at once, however slow that is: the window bounds
what can pile up there, and pausing the leg instead would hold up the acknowledgements of
the other direction behind it, a deadlock. Acknowledged is what *left* for the local
socket: all that was received, less what still waits in the socket's write buffer.

Whether a link is attached is a fact of its own, independent of the phase. A stream
without one (the client's is MOVING, the host's DETACHED) goes on reading its local socket
up to the window, keeps everything, and says nothing. Once a new link is attached, it
sends again from the offset that the other end names: resume.py. TRANSITIONS has the phases,
and docs/architecture.md draws them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from ..errors import InvalidTransition
from .control import EARLY_DATA, MIN_WINDOW, Ack, Fin, Message, Reset
from .local import HOLD_LINK, HOLD_MEMORY, HOLD_WINDOW, Local, Payload
from .replay import ReplayBuffer, ReplayMemory
from .window import LEAST, Window, ack_step


class Phase(enum.Enum):
    OPENING = "opening"
    LIVE = "live"
    RESETTING = "resetting"
    CLOSED = "closed"


class Trigger(enum.Enum):
    """What moves a stream from one phase to the next."""

    ACCEPT = "accept"
    BREAK = "break"
    FINISH = "finish"
    END = "end"


# (phase, trigger) → phase
TRANSITIONS: Final = {
    (Phase.OPENING, Trigger.ACCEPT): Phase.LIVE,  # the target answered (host); `accepted` came (client)
    (Phase.OPENING, Trigger.BREAK): Phase.RESETTING,  # the local socket broke: the peer is owed a `reset`
    (Phase.OPENING, Trigger.END): Phase.CLOSED,  # refused, gone, reset by the peer, out of time
    (Phase.LIVE, Trigger.BREAK): Phase.RESETTING,  # as above
    (Phase.LIVE, Trigger.FINISH): Phase.CLOSED,  # both FINs are acknowledged: the pair is free again
    (Phase.LIVE, Trigger.END): Phase.CLOSED,  # gone, reset by the peer, out of time
    (Phase.RESETTING, Trigger.END): Phase.CLOSED,  # the peer answered the `reset`, or will not any more
}


class Outcome(enum.Enum):
    """How a stream ended: the label of its metric and a word in its log line."""

    FINISHED = "finished"
    RESET_LOCAL = "reset-local"  # the TCP connection at this end broke
    RESET_PEER = "reset-peer"  # the one at the other end broke
    REFUSED = "refused"  # by the relay, the host-agent or its target
    LOST = "lost"  # not resumed within the resume window
    VIOLATION = "violation"  # the other end broke the protocol
    SEAL_BROKEN = "seal-broken"  # the received bytes are not what the other end sealed
    STOPPED = "stopped"  # this agent stops


class Link(Protocol):
    """The leg, as a stream sees it."""

    def send(self, pieces: Sequence[Payload], size: int) -> None:
        """Send `size` bytes of the stream. They are valid only until the call returns."""

    def send_message(self, message: Message, *, linger: bool = False) -> None:
        """Send a control message, in order with the data around it. With `linger` it may wait for what follows."""


MIN_READ: Final = 4096
# Unacknowledged bytes every stream may have, however short memory is. So each stream progresses as long as
# its far end reads: it waits only for its own acks, never for another stream's.
ALWAYS: Final = LEAST
RESET_PATIENCE: Final = 10  # ticks to wait for the answer to a `reset`: 5 s

L = TypeVar("L", bound=Link)


class StreamContext(NamedTuple):
    """What all streams of an agent share."""

    window: int  # bytes that each stream can hold, each way
    memory: ReplayMemory
    clock: Callable[[Stream[Any]], None]  # calls the stream's `tick` every half second until that returns False


class Stream(Generic[L]):
    """What both ends have in common; ClientStream and HostStream open and resume it.

    `owner` is whose share of the memory it takes. `closed` is called once, when the stream is
    over, with the outcome and the reason, if there is one.
    """

    resumable = True  # it outlives its legs

    def __init__(
        self,
        stream_id: str,
        key: str,
        local: Local,
        link: L | None,
        *,
        context: StreamContext,
        owner: str,
        closed: Callable[[Outcome, str], None],
    ) -> None:
        self.id = stream_id
        self.key = key
        self.local = local
        self.link = link
        self.phase = Phase.OPENING
        self.window = context.window
        self.limit = EARLY_DATA  # bytes that may be unacknowledged: what both ends will hold
        self.share = context.memory.share(owner)
        # What this end gives to a peer that does not adapt, once and for all.
        self.offer = max(MIN_WINDOW, min(context.window, self.share.room))
        self.inbound = Window(self.share)
        self._given = 0  # the `use` that was said, until the other end has confirmed it
        self._to_give = False  # to give back what is beyond `limit`, as soon as that is not in use
        self.replay = ReplayBuffer(context.memory, self.share)
        self.received = 0  # offset below which everything came in
        self.replayed = 0  # bytes that resumes sent again
        self._sent_before = 0  # offset up to which bytes were sent on the links that are gone
        self._acked = 0  # offset up to which that was acknowledged; one more for the FIN
        self._ack_step = ack_step(EARLY_DATA)
        self._skip = 0  # bytes that come a second time, after a planned move
        self._eof = False  # the local socket ended: its FIN stands at replay.end
        self._fin_acked = False
        self._peer_fin = False
        self._ticking = False  # the clock calls
        self._patience = RESET_PATIENCE
        self.broken: tuple[Outcome, str] | None = None  # why it is RESETTING
        self._clock = context.clock
        self._closed = closed

    # From the local socket.

    @property
    def credit(self) -> int:
        """Bytes that may be read from the local socket now.

        At least a little while the socket is not held: it is held after a read, not before.
        """
        replay = self.replay
        window = self.limit - (replay.end - replay.start)
        room = self.share.room
        return window if window <= room else min(window, max(room, MIN_READ))

    @property
    def sent(self) -> int:
        """Bytes that came from the local socket so far."""
        return self.replay.end

    def local_data(self, data: Payload) -> None:
        """Carry what the local socket read: at most `credit` bytes."""
        replay = self.replay
        if self.link is not None:
            self.link.send((data,), len(data))
        replay.append(data)
        unacknowledged = replay.end - replay.start
        # Below a sixteenth it is better to wait for an ack than to read crumbs.
        if self.limit - unacknowledged < self.limit >> 4:
            self.local.hold(HOLD_WINDOW)
        if self.share.room <= 0 and unacknowledged >= ALWAYS:
            self.share.starve(True)
            self.local.hold(HOLD_MEMORY)
            if unacknowledged <= self.limit >> 2 and self.inbound.adapts and self.phase is Phase.LIVE:
                self._give_back(unacknowledged)  # so that acks come in time

    def local_eof(self) -> None:
        """The local socket ended its direction."""
        if not self._eof and self.phase in (Phase.OPENING, Phase.LIVE):
            self._eof = True
            self._say(Fin(self.id, self.replay.end))
            if self._peer_fin:
                self._ack(1)

    def local_broken(self, reason: str, outcome: Outcome = Outcome.RESET_LOCAL) -> None:
        """The local socket broke, or is to break: the far one shall break too."""
        if self.phase in (Phase.OPENING, Phase.LIVE):
            self._transition(Trigger.BREAK)
            self.broken = (outcome, reason)
            self.local.abort()
            self.replay.clear()
            self._say(Reset(self.id, reason))
            self._tick_later()

    def local_drained(self) -> None:
        """Much or all of what waited in the local socket's write buffer has left."""
        self._ack(self._ack_step)

    # From the clock.

    def tick(self) -> bool:
        """Say what is due. False once nothing is, and the clock may forget the stream."""
        if self.link is None:
            self._ticking = False  # nobody to tell; the next leg starts the clock again
            return False
        if self.phase is Phase.RESETTING:
            self._patience -= 1
            if not self._patience:
                self.expire("")
        else:
            self._ack(1)
        owes_ack = self.phase is Phase.LIVE and self.received + self._peer_fin > self._acked
        if self.phase is Phase.LIVE and not owes_ack:
            window = self.inbound.tick(self.received)
            if window and not self._acks_wait():
                self._say(Ack(self.id, self._acked, window=window))
        self._ticking = owes_ack or self.phase is Phase.RESETTING or (self.inbound.ticks and not self._peer_fin)
        return self._ticking

    def _tick_later(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._clock(self)

    def expire(self, reason: str) -> None:
        """Give the stream up: no resume, or no answer, came in time."""
        if self.broken is not None:
            self._end(*self.broken)
        elif self._eof and self._peer_fin and not self.local.pending:
            # Both applications have said all they will, and ours has heard it all.
            self._end(Outcome.FINISHED, "the last acknowledgement did not come")
        else:
            self._say(Reset(self.id, reason))
            self._end(Outcome.LOST, reason)

    # From the link.

    def link_data(self, pieces: Sequence[Payload], size: int) -> None:
        """Take the next `size` bytes that the link brought."""
        if self._skip:
            pieces, size = self._without_known(pieces, size)
        if not size or (self.phase is not Phase.LIVE and not self._takes_data()):
            return
        self.received += size
        if self.received > self.inbound.edge or self._peer_fin:
            self._violated("data after fin" if self._peer_fin else "more data than the window allows")
            return
        self.local.write(pieces)
        if self.received - self._acked >= self._ack_step:
            self._ack(self._ack_step)
        if not self._ticking:
            self._tick_later()

    def link_lost(self) -> None:
        """The attached leg is gone. Nothing of the stream is."""
        self.link = None
        self._sent_before = self.replay.end
        self.local.release(HOLD_LINK)

    def on_message(self, message: Message) -> None:
        """Act on a control message from the attached link. Those of other streams are ignored."""
        match message:
            case Ack(stream=self.id):
                self._on_ack(message)
            case Fin(stream=self.id):
                self._on_fin(message.sent)
            case Reset(stream=self.id):
                self._on_reset(message.reason)

    def _on_ack(self, message: Ack) -> None:
        replay, received = self.replay, message.received
        if self.phase is not Phase.LIVE:
            return
        if received > replay.end + self._eof:
            self._violated("ack of bytes that were never sent")
            return
        if received > replay.end:
            self._fin_acked = True
            received = replay.end
        if message.window:
            self._on_window(message.window)
        if message.use:
            self._on_use(message.use)
        if received > replay.start:
            replay.release(received)
            if self._to_give and replay.end - received <= self.limit:
                self._give_back(self.limit)
            if self.limit - (replay.end - replay.start) >= self.limit >> 3:
                self.local.release(HOLD_WINDOW)
            if self.share.starved and (self.share.room >= ALWAYS or replay.end - received < ALWAYS):
                self.share.starve(False)
                self.local.release(HOLD_MEMORY)
        self._finish_if_done()

    def _on_window(self, window: int) -> None:
        """The other end grants this window, or asks for what is beyond it."""
        if self._given:
            if window == self._given:
                self._given = 0
            return  # what it granted before it knew is void
        self._to_give = window < self.limit
        self.limit = limit = min(window, self.window)
        unacknowledged = self.replay.end - self.replay.start
        if limit - unacknowledged >= limit >> 3:
            self.local.release(HOLD_WINDOW)
        elif limit - unacknowledged < limit >> 4:
            self.local.hold(HOLD_WINDOW)
        if self._to_give and unacknowledged <= limit:
            self._give_back(limit)

    def _give_back(self, use: int) -> None:
        """Have at most `use` bytes unacknowledged, until the other end grants more."""
        self._to_give = False
        self.limit = self._given = use
        if use - (self.replay.end - self.replay.start) < use >> 4:
            self.local.hold(HOLD_WINDOW)
        self._say(Ack(self.id, self._acked, use=use))

    def _on_use(self, use: int) -> None:
        """The other end gives back what is beyond `use`."""
        acked = min(self._acked, self.received)
        if self.inbound.given_back(use, acked, self.local.pending):
            if self.received > self.inbound.edge:
                self._violated("less window used than sent")
                return
            self._set_ack_step()
            self._say(Ack(self.id, self._acked, window=use))
            self._ack(self._ack_step)

    def _set_ack_step(self) -> None:
        self._ack_step = ack_step(self.inbound.size)
        self.local.set_window(self.inbound.size)

    def _on_fin(self, sent: int) -> None:
        if not self._takes_data():
            return
        if sent != self.received or self._skip:
            self._violated("fin at an offset that is not the next")
        elif self._peer_fin:
            self._ack(1, again=True)  # sent again by a resume: the ack may have been lost, too
        else:
            self._peer_fin = True
            self.local.write_eof()
            if self._eof:
                self._ack(1)  # otherwise it goes with the FIN of this end, which mostly follows at once
            self._tick_later()

    def _on_reset(self, reason: str) -> None:
        if self.broken is not None:
            self._end(*self.broken)
        elif self.phase is not Phase.CLOSED:
            self._say(Reset(self.id, reason))
            self._end(Outcome.RESET_PEER, reason)

    # What the above is made of.

    def _takes_data(self) -> bool:
        """Whether data and FIN may come from the link now. What comes to a broken stream is dropped."""
        return self.phase is Phase.LIVE

    def _acks_wait(self) -> bool:
        """Whether acks are not to be sent now."""
        return False

    def _say(self, message: Message, *, linger: bool = False) -> None:
        if self.link is not None:
            self.link.send_message(message, linger=linger)

    def _ack(self, step: int, *, again: bool = False) -> None:
        """Acknowledge, if that tells the peer at least `step` offsets more."""
        if self.link is None or self.phase is not Phase.LIVE or self._acks_wait():
            return
        waiting = self.local.pending
        delivered = self.received - waiting
        if self._peer_fin and delivered == self.received:
            delivered += 1
        elif self._peer_fin:
            step = 1  # the peer's half is over: it waits for this ack, and no more will follow
        inbound = self.inbound
        if delivered - self._acked >= step or (again and (delivered or inbound.adapts)):
            due = delivered - self._acked >= self._ack_step and not self._peer_fin
            self._acked = delivered
            size = inbound.size
            window = inbound.acknowledge(min(delivered, self.received), waiting, due=due)
            if inbound.size != size:
                self._set_ack_step()
            elif again and inbound.adapts:
                window = size  # what was said of it may have been lost
            # The last one keeps nobody waiting but the pair, which the next stream can use soon enough.
            self._say(Ack(self.id, delivered, window), linger=delivered > self.received)
            self._finish_if_done()
        elif waiting:
            inbound.charge(waiting)

    def _carry_on(self, offset: int) -> None:
        """Send again, on the link just attached, what the other end did not receive."""
        self._given, self._to_give = 0, False  # it says its window anew
        if self.link is not None:
            for data in self.replay.since(min(offset, self.replay.end)):
                self.link.send((data,), len(data))
        if self._eof:
            self._say(Fin(self.id, self.replay.end))
        self._ack(1, again=True)
        self._tick_later()

    def _replay(self, offset: int) -> None:
        """Carry on after a resume: the other end received everything below `offset`."""
        self.replayed += max(0, self._sent_before - offset)
        self._carry_on(offset)

    def _without_known(self, pieces: Sequence[Payload], size: int) -> tuple[Sequence[Payload], int]:
        """Drop what was received before on the leg that a planned move left."""
        rest = []
        for piece in pieces:
            known = min(self._skip, len(piece))
            self._skip -= known
            size -= known
            if known < len(piece):
                rest.append(piece[known:])
        return rest, size

    def _agree(self, window: int, most: int) -> None:
        """The other end's window is known, and the `most` that it gives if it adapts: the smaller of both counts."""
        if most:
            self.inbound.agree(min(self.window, most))
        else:
            self.limit = min(self.window, window)
            self.inbound.fix(min(self.offer, window))
        self._set_ack_step()
        if self.replay.end - self.replay.start < self.limit:
            self.local.release(HOLD_WINDOW)

    def _finish_if_done(self) -> None:
        if self._fin_acked and self._peer_fin and self._acked > self.received:
            self._transition(Trigger.FINISH)
            self._over(Outcome.FINISHED, "")

    def _violated(self, reason: str) -> None:
        reason = f"protocol: {reason}"
        self._say(Reset(self.id, reason))
        self._end(Outcome.VIOLATION, reason)

    def _end(self, outcome: Outcome, reason: str) -> None:
        if self.phase is not Phase.CLOSED:
            self._transition(Trigger.END)
            self._over(outcome, reason)

    def _over(self, outcome: Outcome, reason: str) -> None:
        if outcome is Outcome.FINISHED:
            self.local.close()
        else:
            self.local.abort()
        self.replay.clear()
        self.share.close()
        self._closed(outcome, reason)

    def _transition(self, trigger: Trigger) -> None:
        phase = TRANSITIONS.get((self.phase, trigger))
        if phase is None:
            raise InvalidTransition(f"a stream that is {self.phase.value} has no transition for '{trigger.value}'")
        self.phase = phase
