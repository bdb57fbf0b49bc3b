"""The relay's secrets, as a command is given them."""

from __future__ import annotations

from ..errors import UsageError
from ..protocol import tokens
from .settings import Secret


def signing_secrets(given: Secret) -> tuple[bytes, ...]:
    """The secrets that sign tokens: the first signs, all are accepted. Raises UsageError, with what to do."""
    text = given.read()
    try:
        return tokens.parse_secrets(text)
    except tokens.TokenGiven as exc:
        raise UsageError(exc.reason, "an agent takes it with --token-file") from exc
    except UsageError as exc:
        raise UsageError(exc.reason, "make one with 'relay secret'") from exc
