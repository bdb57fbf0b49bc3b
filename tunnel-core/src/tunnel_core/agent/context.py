"""What all streams of an agent share: made once, and passed down to whoever needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import TunnelError
from ..net.dialer import Dialer
from ..net.liveness import LegMonitor
from ..protocol.stream import StreamContext
from ..service.logs import Logger, Throttle
from .credentials import Credentials
from .metrics import AgentMetrics
from .settings import AgentSettings

S_co = TypeVar("S_co", bound=AgentSettings, covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentContext(Generic[S_co]):
    settings: S_co
    log: Logger
    stream_log: Throttle  # for what streams write: peers and applications decide how many there are
    streams: StreamContext
    monitor: LegMonitor
    credentials: Credentials
    dialer: Dialer
    metrics: AgentMetrics
    fail: Callable[[TunnelError], None]  # ends the agent: it cannot go on
