"""Tokens: who may use which tunnel in which role, until when (PROTOCOL.md, "Access").

JWTs signed with HS256 by the relay's secret. Pure: the caller brings the time.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import jwt
import msgspec
from msgspec import Meta, Struct

from ..errors import AccessDenied, UsageError
from .endpoints import Role, is_tunnel, new_id

ALGORITHM: Final = "HS256"  # the only one accepted, whatever a token's header says
MIN_SECRET: Final = 32  # bytes: as long as the hash (RFC 7518 section 3.2)
NOT_VALID: Final = "the token is not valid"
EXPIRED: Final = "the token has expired"
ASK_FOR_ONE: Final = "this is not a token: ask whoever runs the relay for one"
LEEWAY: Final = 30.0  # seconds of clock skew
MAX_TOKEN: Final = 4096  # characters: some ten times a real one

# What surrounds tokens and secrets when they are pasted from mail, chat, .env files or shells.
_BLANK: Final = " \t\r\n\v\f\0\xa0\xad\u200b\u2060\ufeff" + "\udcff\udcfe\udcef\udcbb\udcbf"  # a byte order mark
_QUOTES: Final = ('""', "''", "``", "“”", "„“", "‘’", "«»", "<>")
_LABEL: Final = re.compile(
    r"(?:export\s+)?\w*(?:token|secret)\s*[=:]\s*|(?:authorization\s*:\s*)?bearer\s+", re.IGNORECASE
)
_TOKEN: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]{43}", re.ASCII)  # the signature is 32 bytes in base64url

ANY_TUNNEL: Final = "*"  # instead of names, in the token of a gateway
TokenRole = Literal["host", "client", "gateway"]  # a gateway dials legs as a client does
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def leg_role(role: TokenRole) -> Role:
    """The role of the legs that the holder of such a token may dial."""
    return "host" if role == "host" else "client"


class Grant(Struct, frozen=True, rename={"subject": "sub", "expires": "exp", "id": "jti", "networks": "net"}):
    """The claims of a token. The renamed fields are the JWT's registered claims (RFC 7519 section 4.1)."""

    subject: Annotated[str, Meta(min_length=1, max_length=200)]
    role: TokenRole
    tunnels: Annotated[tuple[Annotated[str, Meta(max_length=63)], ...], Meta(min_length=1, max_length=50)]
    expires: float  # seconds since the epoch
    id: Annotated[str, Meta(min_length=1, max_length=64)]
    streams: Annotated[int, Meta(ge=1)] | None = None  # at once
    networks: Annotated[tuple[str, ...], Meta(max_length=50)] = ()  # where its legs may come from; empty: anywhere

    @property
    def leg_role(self) -> Role:
        """The role of the legs that it may dial."""
        return leg_role(self.role)

    @property
    def may_name_visitors(self) -> bool:
        """Whether its `open.source` is trusted."""
        return self.role == "gateway"

    def is_for(self, tunnel: str) -> bool:
        """Whether it is for this tunnel."""
        return tunnel in self.tunnels or self.tunnels == (ANY_TUNNEL,)

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


def _unwrapped(text: str) -> str:
    """`text` without quotes, `Bearer`, `TOKEN=` and the like around it."""
    while True:
        before = text
        text = text.strip(_BLANK)
        if text[:1] + text[1:][-1:] in _QUOTES and not {text[0], text[-1]} & set(text[1:-1]):
            text = text[1:-1]
        label = _LABEL.match(text)
        if label is not None:
            text = text[label.end() :]
        if text == before:
            return text


def clean(text: str) -> str:
    """The one token in `text`, however it was pasted: quoted, wrapped, after `Bearer`, among other words.

    Raises AccessDenied, whose message never quotes the text.
    """
    text = _unwrapped(text)
    words = [_unwrapped(word) for word in text.split()]
    whole = "".join(words)
    found = [whole] if _TOKEN.fullmatch(whole) else [word for word in words if _TOKEN.fullmatch(word)]
    if len(found) == 1:
        return found[0]
    if found:
        raise AccessDenied(f"there are {len(found)} tokens: give one")
    if whole.startswith("eyJ"):
        raise AccessDenied("the token is not whole: copy all of it, from eyJ on")
    raise AccessDenied(ASK_FOR_ONE)


class TokenGiven(UsageError):
    """A token stands where a secret ought to."""


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The secrets in `text`, separated by white space. The first one signs; all are accepted.

    Raises UsageError if there is none or if one is shorter than 32 bytes, and TokenGiven if one is a token.
    """
    words = [_unwrapped(word) for word in _unwrapped(text).split()]
    if any(map(_TOKEN.fullmatch, words)):
        raise TokenGiven("this is a token, not the secret that signs tokens")
    secrets = tuple(word.encode(errors="surrogateescape") for word in words if word)
    if not secrets:
        raise UsageError("the secret is empty")
    if any(len(secret) < MIN_SECRET for secret in secrets):
        raise UsageError(f"a secret must have {MIN_SECRET} bytes or more, and no spaces")
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
    role: TokenRole,
    tunnels: Sequence[str],
    subject: str,
    expires: float,
    streams: int | None = None,
    networks: Sequence[str] = (),
) -> str:
    """A signed token that expires at `expires`, in seconds since the epoch.

    Raises UsageError if no relay would accept it: an invalid tunnel name, or a field that is too long.
    """
    grant = Grant(subject, role, tuple(tunnels), int(expires), new_id(), streams, tuple(networks))
    claims = msgspec.to_builtins(grant)
    token = jwt.encode({k: v for k, v in claims.items() if v not in (None, ())}, secret, algorithm=ALGORITHM)
    try:
        verify(token, [secret], expires)
    except AccessDenied as exc:
        raise UsageError("the token would be too long") from exc
    return token


def read(token: str) -> Grant:
    """A token's claims, *unverified*: to show to its owner, never to decide on.

    Raises AccessDenied if it is not one of our tokens.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return msgspec.convert(claims, Grant, strict=True)
    except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError) as exc:
        raise AccessDenied(ASK_FOR_ONE) from exc


def verify(token: str, secrets: Sequence[bytes], now: float) -> Grant:
    """Verify a token's signature, form and expiry, and return its grant.

    Raises AccessDenied with a reason that is safe to show to the sender.
    """
    if len(token) > MAX_TOKEN:
        raise AccessDenied(NOT_VALID)
    grant = _signed(token, tuple(secrets))
    if not now <= grant.expires + LEEWAY:  # so written, NaN is expired
        raise AccessDenied(f"{EXPIRED}: ask for a new one")
    return grant


# An agent uses one token for all its legs, and verifying it would be a quarter of the cost of a
# handshake. Rejected tokens are not cached.
@functools.lru_cache(maxsize=256)
def _signed(token: str, secrets: tuple[bytes, ...]) -> Grant:
    """The grant of a token, checking only signature and form. Raises AccessDenied."""
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
            raise AccessDenied(NOT_VALID) from exc
        try:
            grant = msgspec.convert(claims, Grant, strict=True)
            for network in grant.networks:
                ipaddress.ip_network(network)
        except ValueError as exc:  # msgspec.ValidationError is one
            raise AccessDenied(NOT_VALID) from exc
        anywhere = grant.role == "gateway" and grant.tunnels == (ANY_TUNNEL,)
        if not anywhere and not all(is_tunnel(name) for name in grant.tunnels):
            raise AccessDenied(NOT_VALID)
        return grant
    raise AccessDenied(NOT_VALID)
