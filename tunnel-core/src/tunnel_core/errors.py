"""The hierarchy of errors. Each carries one line that tells the user what to do."""

from __future__ import annotations


class TunnelError(Exception):
    """Base of all errors that this project raises. `exit_code` is the exit code of a command that fails with it.

    `reason` says what is wrong, `advice` what to do about it, unless the reason already does.
    """

    exit_code = 1

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"{reason}: {advice}" if advice else reason)
        self.reason = reason
        self.advice = advice


class UsageError(TunnelError):
    """An unusable flag, variable or file. Nothing has been started."""

    exit_code = 2


class AccessDenied(TunnelError):
    """The relay does not accept this agent's token (HTTP 401 or 403)."""

    exit_code = 2


class RelayUnavailable(TunnelError):
    """The relay cannot be reached, or does not accept a leg right now. Worth retrying.

    `retry_after` is the relay's `Retry-After` in seconds, if it sent one.
    """

    def __init__(self, reason: str, advice: str = "", retry_after: float | None = None) -> None:
        super().__init__(reason, advice)
        self.retry_after = retry_after


class ProtocolViolation(TunnelError):
    """The peer violated the protocol. `code` is the close code for its leg."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class BadProxyHeader(TunnelError):
    """A connection lacks the PROXY header that it must begin with."""


class InvalidTransition(TunnelError):
    """A bug: a trigger that the stream's phase does not allow."""
