"""Who has which key of a sealed tunnel (PROTOCOL.md, "Keys").

The owner has a secret; a friend has the key that follows from it for one tunnel and the id of one token. The
host derives each anew, so it stores nothing of a friend. Names of secrets and keys are public, and reveal neither.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ...errors import UsageError

_SECRET_ID: Final = b"tcp-ws-tunnel.v1 e2e secret\0"
_KEY: Final = b"tcp-ws-tunnel.v1 e2e key\0"
_ID_SIZE: Final = 8  # bytes that name a secret
_PSK_SIZE: Final = 32
KEY_SIZE: Final = _ID_SIZE + _PSK_SIZE  # bytes of a key as it is handed out

_TOKEN_ID: Final = re.compile(r"[!-~]{1,64}")  # what a TLS identity can hold of all ids that a token may have
_IDENTITY: Final = re.compile(r"([0-9a-f]{16})\.([!-~]{1,64})")


class Identity(NamedTuple):
    """Which key a client shows: TLS's PSK identity. It crosses the relay in clear."""

    secret: str  # its id
    token: str  # its id

    def __str__(self) -> str:
        return f"{self.secret}.{self.token}"


@dataclass(frozen=True)
class Key:
    """The key of one tunnel and token. `secret` is the id of the secret that it follows from."""

    secret: str
    token: str
    psk: bytes = field(repr=False)

    @property
    def identity(self) -> str:
        return str(Identity(self.secret, self.token))

    @property
    def encoded(self) -> bytes:
        """As an invite holds it, beside the token."""
        return bytes.fromhex(self.secret) + self.psk

    def __str__(self) -> str:
        """The key as text, for a file; the token's id is not part of it."""
        return base64.urlsafe_b64encode(self.encoded).decode().rstrip("=")


def secret_id(secret: bytes) -> str:
    """The public name of a secret: the first 8 bytes of a MAC, as hexadecimal digits."""
    return hmac.digest(secret, _SECRET_ID, hashlib.sha256)[:_ID_SIZE].hex()


def derive(secret: bytes, tunnel: str, token: str) -> Key:
    """The key of `tunnel` for the token with the id `token`. Raises UsageError for an id that no identity can hold."""
    if not _TOKEN_ID.fullmatch(token):
        raise UsageError("the token's id has characters that a sealed tunnel cannot name: take one of 'relay token'")
    psk = hmac.digest(secret, _KEY + tunnel.encode() + b"\0" + token.encode(), hashlib.sha256)
    return Key(secret_id(secret), token, psk)


def decode(encoded: bytes, token: str) -> Key:
    """The key that an invite holds, for the token beside it. Raises UsageError."""
    if len(encoded) != KEY_SIZE or not _TOKEN_ID.fullmatch(token):
        raise UsageError("the key of the sealed tunnel is not whole: ask for it again")
    return Key(encoded[:_ID_SIZE].hex(), token, encoded[_ID_SIZE:])


def parse(text: str, token: str) -> Key:
    """The key that a file holds, for the token with the id `token`. Raises UsageError, which shows none of it."""
    text = text.strip()
    try:
        encoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise UsageError("this is not the key of a sealed tunnel: ask for what 'host-agent e2e-key' prints") from exc
    return decode(encoded, token)


class Keyring:
    """The keys of one tunnel: each follows from one of the owner's `secrets`."""

    def __init__(self, secrets: Sequence[bytes], tunnel: str) -> None:
        self._tunnel = tunnel
        self.use(secrets)

    def use(self, secrets: Sequence[bytes]) -> None:
        """Take these secrets for those of before. Streams that are sealed go on."""
        self._secrets = {secret_id(secret): secret for secret in secrets}

    def find(self, identity: Identity) -> Key | None:
        """The key that `identity` names; None if its secret is not (any more) one of these."""
        secret = self._secrets.get(identity.secret)
        return derive(secret, self._tunnel, identity.token) if secret is not None else None


def parse_identity(text: str | None) -> Identity | None:
    """The identity that a ClientHello shows; None if it is none of ours."""
    found = _IDENTITY.fullmatch(text or "")
    return Identity(found[1], found[2]) if found else None
