"""Who is who, proven without showing a secret to whoever listens (PROTOCOL.md, "Identity").

A host-agent shows its instance key to the relay alone; what others learn is the instance, a
hash of it. A client shows a stream's key once, in `open`; later both ends prove that they
have it by a MAC over what they say and over the leg they say it on, so that a proof is worth
nothing on any other leg.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

_INSTANCE: Final = b"tcp-ws-tunnel.v1 instance\0"
_RESUME: Final = b"tcp-ws-tunnel.v1 resume\0"
_RESUMED: Final = b"tcp-ws-tunnel.v1 resumed\0"
_SIZE: Final = 16  # bytes of an id, a key, a proof: 128 bits


def instance_of(instance_key: str) -> str:
    """The instance of the host-agent that has this key: the first half of a SHA-256."""
    return hashlib.sha256(_INSTANCE + bytes.fromhex(instance_key)).digest()[:_SIZE].hex()


def resume_proof(key: str, *, stream: str, leg: str, attempt: int, received: int) -> str:
    """The client's proof in `resume`, for the client leg `leg`."""
    return _proof(key, _RESUME, stream, leg, struct.pack("!QQ", attempt, received))


def resumed_proof(key: str, *, stream: str, leg: str, received: int, done: bool) -> str:
    """The host's proof in `resumed`, for the client leg `leg`."""
    return _proof(key, _RESUMED, stream, leg, struct.pack("!QB", received, done))


def _proof(key: str, label: bytes, stream: str, leg: str, fields: bytes) -> str:
    message = label + bytes.fromhex(stream) + bytes.fromhex(leg) + fields
    return hmac.digest(bytes.fromhex(key), message, hashlib.sha256)[:_SIZE].hex()
