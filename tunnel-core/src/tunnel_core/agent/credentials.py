"""Where an agent's tokens come from, and the relay's clock, which decides how long they are valid."""

from __future__ import annotations

import email.utils
import platform
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from ..errors import AccessDenied, UsageError
from ..protocol import tokens
from ..protocol.tokens import LEEWAY, Grant, TokenRole, leg_role
from ..service.settings import Secret, show_duration
from ..service.signing import signing_secrets

LIFETIME: Final = 300.0  # seconds that a token made by the agent itself is valid: a dial needs it only briefly
MARGIN: Final = 60.0  # seconds before expiry at which the next one is made
SOON: Final = 3 * 86400.0  # seconds before a given token expires: time to ask for another
RENEW: Final = "ask for a new one; in the same file (--token-file) it is taken without a restart"
NOTICED: Final = 5.0  # seconds a clock must move before tokens follow it
FILE_NAME: Final = re.compile(r"[^\s]*[/\\][^\s]*|[^\s]{1,100}\.(token|txt|jwt)", re.IGNORECASE)


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


class RelayClock:
    """What the relay's responses say about its clock. `Date` has whole seconds, so it is accurate to about one.

    `moved` is called whenever the difference to this machine's clock has changed by more than the
    leeway of tokens.
    """

    def __init__(self, moved: Callable[[], None] = lambda: None) -> None:
        self._moved = moved
        self._reported = 0.0  # the difference that `moved` was last called for
        self.ahead = 0.0  # seconds that this machine's clock is ahead
        self.known = False

    def learn(self, date: str) -> None:
        """Take the `Date` of an answer into account; anything that is not a date is ignored."""
        try:
            self.ahead = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
        except (ValueError, OverflowError):
            return
        self.known = True
        if abs(self.ahead - self._reported) > LEEWAY:
            self._reported = self.ahead
            self._moved()

    @property
    def differs(self) -> bool:
        """Whether the difference is more than the leeway of tokens."""
        return abs(self.ahead) > LEEWAY

    def now(self) -> float:
        """The relay's time, in seconds since the epoch; this machine's until the relay has sent it."""
        return time.time() - self.ahead

    def __str__(self) -> str:
        return f"{show_duration(abs(self.ahead))} {'ahead of' if self.ahead > 0 else 'behind'} the relay's"


class Credentials:
    """Gives the token for a tunnel: the one the agent was given, or a fresh one of its own making.

    A given token beats a secret. With neither, none is sent. Tokens are made by the relay's `clock`
    if that is `trusted`: a forged date far in the future would make a token that hardly ever expires.
    """

    def __init__(self, role: TokenRole, token: Secret, secret: Secret, clock: RelayClock, *, trusted: bool) -> None:
        self._role: TokenRole = role
        self._token = token
        self._secret = secret
        self.clock = clock
        self._trusted = trusted
        self._ahead = 0.0  # the difference of clocks that tokens are made by
        self._made: dict[str, tuple[float, str]] = {}

    def check(self, tunnels: Sequence[str]) -> None:
        """Raise UsageError if what was given cannot be used, as far as one can tell without the relay."""
        if self._token:
            grant = self.grant()
            if grant.leg_role != leg_role(self._role):
                raise UsageError(f"this token is for a {grant.role}: ask for one made with --role {self._role}")
            for tunnel in tunnels:
                if not grant.is_for(tunnel):
                    raise UsageError(f"this token is for tunnel {', '.join(grant.tunnels)}, not for {tunnel}")
        elif self._secret:
            signing_secrets(self._secret)

    def may_use(self, tunnel: str) -> bool:
        """Whether the token is for this tunnel, as far as one can tell without the relay."""
        if not self._token:
            return True
        try:
            return self.grant().is_for(tunnel)
        except UsageError:
            return False

    @property
    def may_name_visitors(self) -> bool:
        """Whether the relay believes what is said of visitors, as far as one can tell without it."""
        try:
            return self.grant().may_name_visitors if self._token else bool(self._secret)
        except UsageError:
            return False

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

    def may_differ(self, shown: str | None) -> bool:
        """Whether the next dial may show another token than the one that was `shown`."""
        if not self._token:
            return bool(self._secret)
        try:
            return self._given() != shown
        except UsageError:
            return False

    # net.dialer.TokenSource

    def __call__(self, tunnel: str) -> str | None:
        """The token to dial `tunnel` with, read or made now. Raises UsageError."""
        if self._token:
            return self._given()
        if not self._secret:
            return None
        now = time.time() - self._ahead
        expires, token = self._made.get(tunnel, (0.0, ""))
        if expires - MARGIN < now:
            expires = now + LIFETIME
            token = tokens.issue(
                signing_secrets(self._secret)[0],
                role=self._role,
                tunnels=[tunnel],
                subject=f"{self._role}@{platform.node()}"[:200],
                expires=expires,
            )
            self._made[tunnel] = expires, token
        return token

    def learn(self, date: str) -> None:
        self.clock.learn(date)
        if self._trusted and abs(self.clock.ahead - self._ahead) > NOTICED:
            self._ahead = self.clock.ahead
            self._made.clear()

    def explain(self, denied: AccessDenied, tunnel: str) -> AccessDenied:
        reason = denied.reason
        if tokens.EXPIRED in reason:
            reason = reason.partition(": ask")[0]
            if self.clock.differs:
                advice = f"this machine's clock is {self.clock}: set it (NTP)"
                if self._token:
                    advice += ", or ask for a new token if it is right"
            else:
                advice = "ask for a new one"
        elif tokens.NOT_VALID in reason:
            advice = (
                "it was made with another secret than this relay's: ask whoever runs this relay for one"
                if self._token
                else "the secret is not this relay's"
            )
        elif "does not allow" in reason:
            advice = (
                f"ask for one made with --role {self._role} --tunnel {tunnel}, and without --network, "
                "or with this machine's"
            )
        elif "is needed" in reason:
            advice = "give one with --token-file"
        else:
            advice = ""
        return AccessDenied(reason, advice)
