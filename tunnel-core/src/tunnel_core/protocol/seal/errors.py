"""How a seal can fail, each with a message for whoever can fix it."""

from __future__ import annotations

import enum

from ...errors import TunnelError


class Fault(enum.Enum):
    """Why a sealed stream failed: the label of its metric, and the line for logs and the other end."""

    CHANGED = "changed", "the bytes were changed on the way"
    TRUNCATED = "truncated", "the stream was cut off on the way: the other end had not ended"
    FALSE_HOST = "false-host", "whoever answered does not have the tunnel's key: the relay may be listening"
    WRONG_KEY = "wrong-key", "the key is not this tunnel's: ask for a new link"
    OLD_KEY = "old-key", "this invite is for an older key: ask for a new link"
    REVOKED = "revoked", "this invite was revoked: ask for a new link"
    UNSEALED_CLIENT = "unsealed-client", "the tunnel is sealed, and no key was given: ask for a new link"
    UNSEALED_HOST = "unsealed-host", "the host does not seal this tunnel: tell its owner, and do not go without"
    TIMEOUT = "timeout", "the handshake was not finished in time"

    def __init__(self, label: str, line: str) -> None:
        self.label = label
        self.line = line


class SealError(TunnelError):
    """A sealed stream failed. It affects that stream only."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.line)
        self.fault = fault


class SealUnavailable(TunnelError):
    """This Python cannot seal."""
