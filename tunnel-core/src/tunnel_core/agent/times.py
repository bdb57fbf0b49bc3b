"""How long an agent waits, where no setting says so."""

from __future__ import annotations

from dataclasses import dataclass

from ..net.liveness import LegTimes


@dataclass(frozen=True, kw_only=True)
class AgentTimes:
    """In seconds. Tests wait for less."""

    legs: LegTimes = LegTimes()
    dial: float = 10.0  # for TCP, TLS, proxy and upgrade together
    route: float = 2.0  # between looks, of 20 µs each, at the way to the relay
