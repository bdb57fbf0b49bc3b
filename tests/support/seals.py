"""Keys and TLS ends of a sealed tunnel."""

from __future__ import annotations

from tunnel_core.protocol.seal import keys
from tunnel_core.protocol.seal.keys import Key, Keyring
from tunnel_core.protocol.seal.tls import ClientTls, HostTls

SEAL_SECRET = "the-owner's-secret-which-no-relay-has"
TOKEN_ID = "000102030405060708090a0b0c0d0e0f"


def key(*, secret: str = SEAL_SECRET, tunnel: str = "mc", token: str = TOKEN_ID) -> Key:
    """What a friend is given."""
    return keys.derive(secret.encode(), tunnel, token)


def host_tls(*secrets: str, revoked: frozenset[str] = frozenset()) -> HostTls:
    """The host's end of the tunnel `mc`."""
    ring = Keyring([secret.encode() for secret in secrets or (SEAL_SECRET,)], "mc")
    return HostTls(ring, revoked.__contains__)


def seals() -> tuple[ClientTls, HostTls]:
    """Both ends of a tunnel, with the right key."""
    return ClientTls(key()), host_tls()
