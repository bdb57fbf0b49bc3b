"""The one hierarchy of errors. Each carries one line that tells its reader what to do."""

from __future__ import annotations


class TunnelError(Exception):
    """Anything this project raises on purpose. `exit_code` is what ends a command."""

    exit_code = 1


class UsageError(TunnelError):
    """A flag, variable or file that cannot be used. Nothing has been started."""

    exit_code = 2


class AccessDenied(TunnelError):
    """The relay does not accept this agent's token (HTTP 401 or 403). `date`: the relay's clock, if it told that."""

    exit_code = 2
    date = ""


class RelayUnavailable(TunnelError):
    """The relay cannot be reached, or will not take a leg now. Worth another try.

    `retry_after` is the relay's own wish in seconds, where it stated one; `date` its clock.
    """

    date = ""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ProtocolViolation(TunnelError):
    """The peer broke the protocol: `code` is the close code its leg ends with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
