"""Tokens: who may use which tunnel in which role, until when (PROTOCOL.md, "Access").

JWTs signed with HS256 by the relay's secret. Pure: the caller brings the time.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from typing import Annotated, Final

import jwt
import msgspec
from msgspec import Meta, Struct

from ..errors import AccessDenied, UsageError
from .endpoints import Role, is_tunnel, new_id

ALGORITHM: Final = "HS256"  # the only one, whatever a token's header says
MIN_SECRET: Final = 32  # bytes: as long as the hash (RFC 7518 section 3.2)
LEEWAY: Final = 30.0  # seconds that clocks may differ
MAX_TOKEN: Final = 4096  # characters: some ten times a real one

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Grant(Struct, frozen=True, rename={"subject": "sub", "expires": "exp", "id": "jti", "networks": "net"}):
    """What a token says. The renamed fields are the JWT's registered claims (RFC 7519 section 4.1)."""

    subject: Annotated[str, Meta(min_length=1, max_length=200)]
    role: Role
    tunnels: Annotated[tuple[Annotated[str, Meta(max_length=63)], ...], Meta(min_length=1, max_length=50)]
    expires: float  # seconds since the epoch
    id: Annotated[str, Meta(min_length=1, max_length=64)]
    streams: Annotated[int, Meta(ge=1)] | None = None  # at once
    networks: Annotated[tuple[str, ...], Meta(max_length=50)] = ()  # where its legs may come from; empty: anywhere

    def admits_address(self, address: str) -> bool:
        """Whether a leg may come from this IP address."""
        if not self.networks:
            return True
        try:
            source = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(source, ipaddress.IPv6Address) and source.ipv4_mapped is not None:
            source = source.ipv4_mapped
        return any(source in ipaddress.ip_network(network) for network in self.networks)


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The secrets in `text`, separated by white space: the first signs, all are accepted.

    Raises UsageError for none, or for one under 32 bytes.
    """
    secrets = tuple(word.encode() for word in text.split())
    if not secrets:
        raise UsageError("the secret is empty: make one with 'relay secret'")
    if any(len(secret) < MIN_SECRET for secret in secrets):
        raise UsageError(f"a secret must have {MIN_SECRET} bytes or more, and no spaces: make one with 'relay secret'")
    return secrets


def parse_network(text: str) -> str:
    """A network in CIDR notation. Raises UsageError."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as exc:
        raise UsageError(f"'{text}' is not a network: write one like 192.0.2.0/24") from exc


def issue(
    secret: bytes,
    *,
    role: Role,
    tunnels: Sequence[str],
    subject: str,
    expires: float,
    streams: int | None = None,
    networks: Sequence[str] = (),
) -> str:
    """A signed token that is good until `expires`, in seconds since the epoch."""
    grant = Grant(subject, role, tuple(tunnels), int(expires), new_id(), streams, tuple(networks))
    claims = msgspec.to_builtins(grant)
    return jwt.encode({k: v for k, v in claims.items() if v not in (None, ())}, secret, algorithm=ALGORITHM)


def read(token: str) -> Grant:
    """What a token says, *not verified*: for telling its owner, never for deciding.

    Raises AccessDenied if it is no token of ours.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return msgspec.convert(claims, Grant, strict=True)
    except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError) as exc:
        raise AccessDenied("this is not a token: ask for one made with 'relay token'") from exc


def verify(token: str, secrets: Sequence[bytes], now: float) -> Grant:
    """Verify a token's signature, form and expiry, and return what it grants.

    Raises AccessDenied, with a reason that may be shown to whoever sent the token.
    """
    if len(token) > MAX_TOKEN:
        raise AccessDenied("the token is not valid")
    grant = _signed(token, tuple(secrets))
    if not now <= grant.expires + LEEWAY:  # so written, NaN is expired
        raise AccessDenied("the token has expired: ask for a new one")
    return grant


# An agent opens leg after leg with one token, and a quarter of what a handshake costs would be
# its verification. A token that was refused is not remembered.
@functools.lru_cache(maxsize=256)
def _signed(token: str, secrets: tuple[bytes, ...]) -> Grant:
    """What a token grants, by its signature and form alone. Raises AccessDenied."""
    for secret in secrets:
        try:
            # Expiry is judged below, by the caller's clock.
            claims = jwt.decode(
                token,
                secret,
                algorithms=[ALGORITHM],
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.InvalidSignatureError:
            continue
        except (jwt.InvalidTokenError, ValueError, RecursionError) as exc:
            raise AccessDenied("the token is not valid") from exc
        try:
            grant = msgspec.convert(claims, Grant, strict=True)
            for network in grant.networks:
                ipaddress.ip_network(network)
        except ValueError as exc:  # msgspec.ValidationError is one
            raise AccessDenied("the token is not valid") from exc
        if not all(is_tunnel(name) for name in grant.tunnels):
            raise AccessDenied("the token is not valid")
        return grant
    raise AccessDenied("the token is not valid")
