"""The relays that are measured alone, with legs that speak WebSocket themselves."""

from __future__ import annotations

from ..subject import Relay
from .of_sockets import RelayOfSockets
from .of_tasks import RelayOfTasks
from .ours import OurRelay

RELAY_REFERENCE = "relay-of-tasks"

RELAYS: tuple[Relay, ...] = (OurRelay(), RelayOfTasks(), RelayOfSockets())
