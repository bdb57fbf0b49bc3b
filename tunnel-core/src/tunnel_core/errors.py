"""The one hierarchy of errors. Each carries one line that tells its reader what to do."""

from __future__ import annotations


class TunnelError(Exception):
    """Anything this project raises on purpose. `exit_code` is what ends a command.

    `reason` says what is wrong; `advice`, where it is not part of that, what to do.
    """

    exit_code = 1

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"{reason}: {advice}" if advice else reason)
        self.reason = reason
        self.advice = advice


class UsageError(TunnelError):
    """A flag, variable or file that cannot be used. Nothing has been started."""

    exit_code = 2


class AccessDenied(TunnelError):
    """The relay does not accept this agent's token (HTTP 401 or 403)."""

    exit_code = 2


class RelayUnavailable(TunnelError):
    """The relay cannot be reached, or will not take a leg now. Worth another try.

    `retry_after` is the relay's own wish in seconds, where it stated one.
    """

    def __init__(self, reason: str, advice: str = "", retry_after: float | None = None) -> None:
        super().__init__(reason, advice)
        self.retry_after = retry_after


class ProtocolViolation(TunnelError):
    """The peer broke the protocol: `code` is the close code its leg ends with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class BadProxyHeader(TunnelError):
    """A connection that ought to begin with a PROXY header does not."""


class InvalidTransition(TunnelError):
    """A bug of ours: something happened to a stream that cannot happen in its phase."""
