"""Where an agent's tokens come from."""

from __future__ import annotations

import email.utils
import platform
import re
import time
from typing import Final

from ..errors import AccessDenied, UsageError
from ..protocol import tokens
from ..protocol.endpoints import Role
from ..protocol.tokens import Grant
from ..service.settings import Secret

LIFETIME: Final = 300.0  # seconds of a token the agent makes for itself: a dial needs one for a moment
FILE_NAME: Final = re.compile(r"[^\s]*[/\\][^\s]*|[^\s]{1,100}\.(token|txt|jwt)", re.IGNORECASE)
RENEW: Final = 60.0  # seconds before its end at which the next one is made


def good_for(token: str | None, relay_date: str) -> float:
    """Seconds from `relay_date`, the `Date` of a relay that has just taken `token`, until it is over.

    By the relay's clock, since that decides, and this machine's may be wrong. Infinite where
    nothing is known: without a token, without a date, and if that contradicts the relay's judgement.
    """
    try:
        expires = tokens.read(token or "").expires
        left = expires - email.utils.parsedate_to_datetime(relay_date).timestamp()
    except (AccessDenied, ValueError):
        return float("inf")
    return left if left > 0 else float("inf")


class Credentials:
    """Gives the token for a tunnel: the one the agent was given, or a fresh one of its own making.

    A given token beats a secret. With neither, none is sent.
    """

    def __init__(self, role: Role, token: Secret, secret: Secret) -> None:
        self._role: Role = role
        self._token = token
        self._secret = secret
        self._made: dict[str, tuple[float, str]] = {}

    def check(self, tunnels: list[str]) -> None:
        """Raise UsageError if what was given cannot be used, as far as one can tell without the relay."""
        if self._token:
            grant = self.grant()
            if grant.role != self._role:
                raise UsageError(f"this token is for a {grant.role}: ask for one made with --role {self._role}")
            for tunnel in tunnels:
                if tunnel not in grant.tunnels:
                    raise UsageError(f"this token is for tunnel {', '.join(grant.tunnels)}, not for {tunnel}")
        elif self._secret:
            tokens.parse_secrets(self._secret.read())

    def grant(self) -> Grant:
        """What the given token says. Raises UsageError."""
        try:
            return tokens.read(self._given())
        except AccessDenied as exc:
            raise UsageError(str(exc)) from exc

    def _given(self) -> str:
        text = self._token.read()
        try:
            return tokens.clean(text)
        except AccessDenied as exc:
            if FILE_NAME.fullmatch(text.strip()):
                raise UsageError("this is the name of a file, not a token: write --token-file FILE") from exc
            raise UsageError(str(exc)) from exc

    def __call__(self, tunnel: str) -> str | None:
        """The token to dial `tunnel` with, read or made now. Raises UsageError."""
        if self._token:
            return self._given()
        if not self._secret:
            return None
        now = time.time()
        expires, token = self._made.get(tunnel, (0.0, ""))
        if expires - RENEW < now:
            expires = now + LIFETIME
            token = tokens.issue(
                tokens.parse_secrets(self._secret.read())[0],
                role=self._role,
                tunnels=[tunnel],
                subject=f"{self._role}@{platform.node()}"[:200],
                expires=expires,
            )
            self._made[tunnel] = expires, token
        return token
