"""Opening, moving and resuming a stream (PROTOCOL.md, "Resume"), without I/O.

The client acts, the host answers. A client stream without a link is MOVING: it sends
`resume` on a new leg, its *candidate*, and changes over when `resumed` comes back. After a
`goaway` it does the same while the old leg still carries it (make before break); what the
old leg brought meanwhile then comes twice, and is dropped by its offset.

A host stream changes over in one step, when `resume` comes: only after the old leg has
been detached does it read off what it received. `HostStreams` finds the stream that an
`open` or a `resume` means, and remembers for the resume window how a stream ended, so that
a late question gets the right answer and no target is ever connected to twice for one
stream.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Callable
from typing import Final, Generic, NamedTuple

from .control import (
    MAX_REPLACED,
    Accepted,
    Gone,
    Message,
    Open,
    Paired,
    Refused,
    Reset,
    Resume,
    Resumed,
)
from .endpoints import new_id
from .identity import resume_proof, resumed_proof
from .local import HOLD_MEMORY, HOLD_WINDOW, Local
from .remembered import Remembered
from .stream import L, Outcome, Phase, Stream, StreamContext, Trigger

MAX_REMEMBERED: Final = 16384  # ended streams that a host remembers: about 8 MB


class ClientStream(Stream[L]):
    """The client's end, which opens and resumes the stream."""

    def __init__(
        self,
        local: Local,
        *,
        context: StreamContext,
        owner: str,
        closed: Callable[[Outcome, str], None],
        e2e: bool = False,
        source: str = "",
    ) -> None:
        super().__init__(new_id(), new_id(), local, None, context=context, owner=owner, closed=closed)
        self.e2e = e2e  # it is sealed: both ends must say so
        self.candidate: L | None = None  # the leg whose `resume` is not answered yet
        self.instance = ""  # the host-agent that has the stream; "" until it is paired
        self._source = source  # at a gateway: the visitor's address
        self._opened = False
        self._unsettled: tuple[str, ...] = ()  # legs on which it was opened: the relay may have passed it on
        self._attempt = 0
        self._asked = 0  # bytes received when `resume` was sent
        self._asked_on = ""  # the id of the leg that it was sent on

    def open(self, link: L, instance: str = "") -> None:
        """Open the stream on `link`, with what was read so far. `instance` is the host-agent, if `link` is paired.

        A stream that was opened before keeps its id if the relay still has to say whether it was
        passed on (see `lost_unpaired`), and gets a new one otherwise.
        """
        if self._opened and not self._unsettled:
            self.id, self.key = new_id(), new_id()
        self._opened = True
        self._attempt = 0
        self.instance = instance
        self.link = link
        opening = Open(self.id, self.key, self.offer, self._unsettled, self._source, e2e=self.e2e, most=self.window)
        self._say(opening)
        self._carry_on(0)

    def lost_unpaired(self, leg: str, *, passed_nothing: bool) -> bool:
        """The leg on which the stream was opened was lost before `paired` came.

        `passed_nothing`: the relay said that it passed nothing on. Returns False if the stream cannot
        be opened again: too many legs were lost, or its local socket broke.
        """
        if not passed_nothing and (self.replay.end or self._eof):
            self._unsettled += (leg,)
        return self.phase is Phase.OPENING and len(self._unsettled) <= MAX_REPLACED

    def turned_away(self) -> bool:
        """The relay said that nothing of the stream was passed on, by this leg or any before it.

        Returns False if the stream cannot be opened again because its local socket broke.
        """
        self.instance = ""
        self._unsettled = ()
        return self.phase is Phase.OPENING

    def passed_on(self, instance: str) -> None:
        """The relay has passed the stream on to this host-agent."""
        self.instance = instance
        self._unsettled = ()

    def resume(self, link: L, leg: str) -> None:
        """Ask the host to continue on the new leg with id `leg`."""
        self.candidate = link
        self._attempt += 1
        self._asked = self.received
        self._asked_on = leg
        received = self.received + self._peer_fin
        proof = resume_proof(self.key, stream=self.id, leg=leg, attempt=self._attempt, received=received)
        link.send_message(Resume(self.id, proof, self.instance, self._attempt, received))

    def become_raw(self) -> tuple[int, bool]:
        """The peer turned out to be raw: end this stream silently, so that a RawStream takes over its local socket.

        Returns how many of the local socket's bytes were sent on the leg, and whether it reached EOF.
        """
        self._transition(Trigger.END)
        self.link = None
        self.replay.clear()
        self.share.close()
        self.local.release(HOLD_WINDOW | HOLD_MEMORY)
        return self.replay.end, self._eof

    def candidate_lost(self) -> None:
        """The candidate leg was lost or did not answer in time."""
        self.candidate = None

    def local_broken(self, reason: str, outcome: Outcome = Outcome.RESET_LOCAL) -> None:
        if self._opened:
            super().local_broken(reason, outcome)
        else:
            self._end(outcome, reason)  # no host knows the stream

    def on_message(self, message: Message) -> None:
        match message:
            case Accepted(stream=self.id):
                self._on_accepted(message)
            case Refused(stream=self.id):
                self._end(Outcome.REFUSED, message.reason)
            case Paired():
                self.passed_on(message.instance)
            case _:
                super().on_message(message)

    def on_answer(self, message: Message) -> bool:
        """Act on the candidate's first message. Returns False if it is not an answer from the stream's host.

        After it the stream is attached to the candidate, or over; or, where the `open` never
        reached the host, without a link and to be opened anew.
        """
        match message:
            case Resumed(stream=self.id) if self._is_proven(message):
                self._on_resumed(message)
            case Gone(stream=self.id, unknown=True) if self.phase is Phase.OPENING:
                self.link = self.candidate = None
                self.instance = ""
            case Gone(stream=self.id):
                self._end(*(self.broken or (Outcome.RESET_PEER, message.reason)))
            case _:
                return False
        return True

    def _is_proven(self, message: Resumed) -> bool:
        """Whether the answer was made with the stream's key, for the candidate leg."""
        proof = resumed_proof(
            self.key, stream=self.id, leg=self._asked_on, received=message.received, done=message.done
        )
        return hmac.compare_digest(proof, message.proof)

    def _on_accepted(self, message: Accepted) -> None:
        if self.phase is Phase.OPENING:
            self._transition(Trigger.ACCEPT)
            self._agree(message.window, message.most)

    def _on_resumed(self, message: Resumed) -> None:
        if message.done:
            # Done means that both FINs were acknowledged: only an ack can have been lost.
            if self._eof and self._peer_fin:
                self._end(Outcome.FINISHED, "")
            else:
                self._violated("done before both ends had ended")
            return
        self.link, self.candidate = self.candidate, None
        if not self.replay.start <= message.received <= self.replay.end + self._eof:
            self._violated("resume at an offset out of range")
            return
        if self.broken is not None:
            self._say(Reset(self.id, self.broken[1]))
            self._tick_later()
            return
        self._skip = self.received - self._asked
        self._replay(message.received)

    def _acks_wait(self) -> bool:
        # The host will carry on from what `resume` asked for: it must not forget that meanwhile.
        return self.candidate is not None

    def _takes_data(self) -> bool:
        if self.phase is Phase.OPENING:
            self._violated("data before accepted")
        return self.phase is Phase.LIVE


class HostStream(Stream[L]):
    """The host's end, which accepts the stream and answers resumes."""

    def __init__(
        self,
        message: Open,
        local: Local,
        link: L,
        *,
        context: StreamContext,
        owner: str,
        closed: Callable[[Outcome, str], None],
    ) -> None:
        super().__init__(message.stream, message.key, local, link, context=context, owner=owner, closed=closed)
        self.attempt = 0
        self.e2e = message.e2e
        self._agree(message.window, message.most)

    def accept(self) -> None:
        """The target answered, or, on a sealed stream, the ClientHello was accepted."""
        self._transition(Trigger.ACCEPT)
        # The target usually answers the data that came with `open` at once.
        self._say(Accepted(self.id, self.offer, e2e=self.e2e, most=self.window), linger=bool(self.received))
        self._tick_later()

    def refuse(self, reason: str, outcome: Outcome = Outcome.REFUSED) -> None:
        """The target refused. A stream already accepted, as a sealed one is, is reset with `outcome`."""
        if self.phase is Phase.OPENING:
            self._say(Refused(self.id, reason))
            self._end(Outcome.REFUSED, reason)
        else:
            self.local_broken(reason, outcome)

    def local_broken(self, reason: str, outcome: Outcome = Outcome.RESET_LOCAL) -> None:
        super().local_broken(reason, outcome)
        self._end_if_mute()

    def link_lost(self) -> None:
        super().link_lost()
        self._end_if_mute()

    def _end_if_mute(self) -> None:
        # There is no leg to send the `reset` on: it answers the next `resume`.
        if self.phase is Phase.RESETTING and self.link is None:
            self.expire("")

    def resume(self, link: L, message: Resume, leg: str) -> None:
        """Continue on `link`. `leg` is the id of the client's leg. The caller has closed the previous leg."""
        self.attempt = message.attempt
        self.link = link
        link.send_message(_resumed(self.id, self.key, leg, self.received + self._peer_fin))
        if message.received > self.replay.end + self._eof:
            self._violated("resume at an offset out of range")
            return
        if self.phase is Phase.LIVE:
            self._say(Accepted(self.id, self.offer, e2e=self.e2e, most=self.window))  # the first may have been lost
        self._replay(message.received)

    def _takes_data(self) -> bool:
        return self.phase in (Phase.LIVE, Phase.OPENING)


class Refusal(enum.Enum):
    """Why a host closes the leg instead of answering a `resume`."""

    STALE = "the attempt is out of date"


class _Ended(NamedTuple):
    """How a stream ended. A stream that was never here has no key."""

    key: str | None
    finished: bool
    reason: str


class HostStreams(Generic[L]):
    """The streams of one tunnel at a host-agent, and how recent ones ended."""

    def __init__(self, *, remember: float) -> None:
        self._streams: dict[str, HostStream[L]] = {}
        # By stream id. Entries are bounded per subject, so that nobody's flood evicts another's.
        self._ended: Remembered[_Ended] = Remembered(remember, MAX_REMEMBERED)

    def __len__(self) -> int:
        return len(self._streams)

    def knows(self, stream_id: str) -> bool:
        """Whether a stream with this id is or was here: a late `open` must not connect again."""
        return stream_id in self._streams or stream_id in self._ended

    def add(self, stream: HostStream[L]) -> None:
        self._streams[stream.id] = stream

    def end(self, stream: HostStream[L], subject: str, outcome: Outcome, reason: str, now: float) -> None:
        """Remember how a stream of `subject` ended, for the resume window."""
        del self._streams[stream.id]
        self._ended.put(stream.id, subject, _Ended(stream.key, outcome is Outcome.FINISHED, reason), now)

    def forget(self, stream_id: str) -> None:
        """Forget how this stream ended: the client has shown that it knows."""
        self._ended.forget(stream_id)

    def find(self, message: Resume, leg: str, subject: str, now: float) -> HostStream[L] | Resumed | Gone | Refusal:
        """The stream to resume, or the answer to a `resume` that came from the client leg `leg` of `subject`.

        An id without a proof of its key is as good as none.
        """
        stream = self._streams.get(message.stream)
        if stream is not None and _is_proven(message, stream.key, leg):
            if stream.broken is not None:
                return Gone(stream.id, stream.broken[1])
            # A client that has acknowledged past this offset has abandoned the attempt.
            stale = message.attempt <= stream.attempt or message.received < stream.replay.start
            return Refusal.STALE if stale else stream
        ended = self._ended.get(message.stream, now)
        if ended is not None and ended.key is not None and _is_proven(message, ended.key, leg):
            if ended.finished:
                return _resumed(message.stream, ended.key, leg, 0, done=True)
            return Gone(message.stream, ended.reason)
        if stream is None and ended is None:
            # The client will open again, under another id. Its first `open` may still be on its way here,
            # on the leg that was lost: it must not connect as well.
            self._ended.put(message.stream, subject, _Ended(None, False, ""), now)
        return Gone(message.stream, "no such stream", unknown=True)


def _is_proven(message: Resume, key: str, leg: str) -> bool:
    """Whether `message` was made with the stream's key, for this leg."""
    proof = resume_proof(key, stream=message.stream, leg=leg, attempt=message.attempt, received=message.received)
    return hmac.compare_digest(proof, message.proof)


def _resumed(stream: str, key: str, leg: str, received: int, *, done: bool = False) -> Resumed:
    proof = resumed_proof(key, stream=stream, leg=leg, received=received, done=done)
    return Resumed(stream, proof, received, done)
