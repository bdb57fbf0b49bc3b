"""The dialer that an agent's settings describe, for the agent and for its doctor."""

from __future__ import annotations

from collections.abc import Callable

from ..net.dialer import Dialed, Dialer
from ..protocol.endpoints import Role
from ..protocol.tokens import TokenRole
from .credentials import Credentials, RelayClock
from .settings import AgentSettings


def credentials(settings: AgentSettings, role: TokenRole, clock: RelayClock) -> Credentials:
    """Where this agent's tokens come from. Over ws:// a date can be forged: tokens are then made by our own clock."""
    return Credentials(role, settings.token, settings.secret, clock, trusted=not settings.sends_token_in_clear)


def dialer(
    settings: AgentSettings,
    role: Role,
    tokens: Credentials,
    *,
    timeout: float,
    instance_key: str | None = None,
    on_failure: Callable[[str], None] = lambda _: None,
    on_success: Callable[[Dialed], None] = lambda _: None,
) -> Dialer:
    """What opens this agent's legs. Raises UsageError for a CA that cannot be used."""
    return Dialer(
        settings.relay,
        role,
        timeout=timeout,
        instance_key=instance_key,
        tokens=tokens,
        ca_file=settings.ca_file or None,
        host=settings.relay_host,
        headers=settings.headers,
        on_failure=on_failure,
        on_success=on_success,
    )
