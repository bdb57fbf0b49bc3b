"""Control messages (PROTOCOL.md, "Messages"): JSON in text frames of at most 4 KiB.

The types define the fields and their bounds. The decoders at the end define which message may
travel in which direction. A message of an unknown type decodes to Unknown: relays pass it on,
agents ignore it (PROTOCOL.md, "Compatibility").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Generic, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from ..errors import ProtocolViolation
from .frames import CloseCode

MAX_MESSAGE: Final = 4096  # bytes of JSON: the largest real message is a tenth of it
EARLY_DATA: Final = 64 * 1024  # bytes that may follow `open` before `accepted`; the relay may have to hold them
PROBE_BYTES: Final = 8 * 1024 * 1024  # that a probe may send: a second at 64 Mbit/s
MAX_REPLACED: Final = 8  # legs that one `open` may replace: a stream that loses more of them is reset
MIN_WINDOW: Final = EARLY_DATA
MAX_WINDOW: Final = 64 * 1024 * 1024  # ten times what 1 Gbit/s needs at 50 ms

Id = Annotated[str, Meta(pattern="^[0-9a-f]{32}\\Z")]
OptionalId = Annotated[str, Meta(pattern="^([0-9a-f]{32})?\\Z")]
Offset = Annotated[int, Meta(ge=0, lt=2**62)]
Window = Annotated[int, Meta(ge=MIN_WINDOW, le=MAX_WINDOW)]
Adaptive = Annotated[int, Meta(ge=0, le=MAX_WINDOW)]
Count = Annotated[int, Meta(ge=0, lt=2**31)]
Text = Annotated[str, Meta(max_length=500)]
Source = Annotated[str, Meta(max_length=60)]  # ADDRESS:PORT; the longest, of IPv6 with IPv4 in it, has 53


class _Message(Struct, tag_field="type", tag=str.lower, omit_defaults=True, gc=False):
    """Base of all messages: `{"type": "<class name in lower case>", …}`. Unknown fields are ignored."""


class Open(_Message):
    """client → host: carry a new stream. Up to 64 KiB of its data may follow at once.

    `replaces`: the legs on which the same stream was opened before, and which were lost before `paired` came.
    `source`: the visitor's address, from a gateway alone.
    `e2e`: the stream is sealed, and its first data is a ClientHello.
    `most`: the largest window this end gives to a peer that adapts; `window` is for others.
    """

    stream: Id
    key: Id
    window: Window
    replaces: Annotated[tuple[Id, ...], Meta(max_length=MAX_REPLACED)] = ()
    source: Source = ""
    e2e: bool = False
    most: Adaptive = 0


class Paired(_Message):
    """relay → both: this leg is joined to another. `raw`: the peer is a raw leg.

    A host leg hears `peer`, `subject`, `leg` (the client leg's id) and `waiting`, a client leg `instance`.
    """

    peer: Text = ""
    subject: Text = ""
    leg: OptionalId = ""
    instance: OptionalId = ""
    raw: bool = False
    waiting: Count = 0


class Accepted(_Message):
    """host → client: the target answered; or, of a sealed stream (`e2e`): the ClientHello was taken.

    `most`: as in `open`.
    """

    stream: Id
    window: Window
    e2e: bool = False
    most: Adaptive = 0


class Refused(_Message):
    """host or relay → client: the stream cannot be opened.

    From the relay alone, which then has passed nothing on: `instance`, because a leg that it
    `replaces` has brought it to that host; `retry`, because there is no room for it now.
    """

    stream: Id
    reason: Text
    instance: OptionalId = ""
    retry: bool = False


class Ack(_Message):
    """both ways: all bytes below this offset left for the far TCP socket.

    `window`: bytes that the peer may have unacknowledged; if less than before, a request for `use`.
    `use`: bytes that this end will have unacknowledged at most; the rest of its window is given back.
    """

    stream: Id
    received: Offset
    window: Adaptive = 0
    use: Adaptive = 0


class Fin(_Message):
    """both ways: half-close after `sent` bytes. Takes one offset itself."""

    stream: Id
    sent: Offset


class Reset(_Message):
    """both ways: the TCP connection broke. Answered by `reset`."""

    stream: Id
    reason: Text


class Resume(_Message):
    """client → host: continue a live stream on this new leg, from offset `received`.

    `instance` names the host-agent that has the stream, since the relay does not remember it. `proof`:
    identity.resume_proof.
    """

    stream: Id
    proof: Id
    instance: Id
    attempt: Count
    received: Offset


class Resumed(_Message):
    """host → client: continue from offset `received`; or `done`: everything was delivered and acknowledged.

    `proof`: identity.resumed_proof.
    """

    stream: Id
    proof: Id
    received: Offset = 0
    done: bool = False


class Gone(_Message):
    """host → client: there is no such stream any more. `unknown`: the host remembers none."""

    stream: Id
    reason: Text
    unknown: bool = False


class Goaway(_Message):
    """relay → both: no new streams on this leg; move what is on it within `grace` seconds."""

    grace: Annotated[float, Meta(ge=0)] = 0


class Probed(_Message):
    """relay → a doctor: how many host legs wait in the tunnel, how many clients, and how many host-agents offer it."""

    hosts: Count = 0
    waiting: Count = 0
    instances: Count = 0


class Unknown(Struct, gc=False):
    """A message of a type that this version does not know."""

    type: Annotated[str, Meta(min_length=1, max_length=40)]


FromClient = Open | Resume | Ack | Fin | Reset
FromHost = Accepted | Refused | Ack | Fin | Reset | Resumed | Gone
ToClient = FromHost | Paired | Goaway
ToHost = FromClient | Paired | Goaway
Message = FromClient | FromHost | Paired | Goaway | Probed

_KNOWN: Final = frozenset(kind.__struct_config__.tag for kind in get_args(Message))
_decode_unknown: Final = msgspec.json.Decoder(Unknown).decode
_M = TypeVar("_M")
# The message as the payload of a text frame.
encode: Final[Callable[[Message], bytes]] = msgspec.json.Encoder().encode


def without_source(payload: bytes) -> bytes:
    """An `open` that names no visitor; else as it was, with fields that this version does not know."""
    fields = msgspec.json.decode(payload)
    del fields["source"]
    return msgspec.json.encode(fields)


class Decoder(Generic[_M]):
    """Decodes the messages that may travel in one direction."""

    def __init__(self, kinds: object) -> None:
        self._decode = msgspec.json.Decoder(kinds).decode

    def __call__(self, payload: bytes) -> _M | Unknown:
        """Decode a text frame's payload.

        Raises ProtocolViolation with code 1008 if it is not JSON, not a message, has a field out of
        bounds, or is a known message that may not travel in this direction.
        """
        try:
            message: _M = self._decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            try:
                unknown = _decode_unknown(payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if unknown.type not in _KNOWN:
                    return unknown
            raise ProtocolViolation(CloseCode.POLICY_VIOLATION, f"control message: {exc}"[:120]) from exc
        return message


from_client: Final = Decoder[FromClient](FromClient)
from_host: Final = Decoder[FromHost](FromHost)
to_client: Final = Decoder[ToClient](ToClient)
to_host: Final = Decoder[ToHost](ToHost)
to_doctor: Final = Decoder[Probed](Probed)
