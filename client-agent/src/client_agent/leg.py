"""A leg from the client's side: ready, then with a stream, then perhaps free for the next."""

from __future__ import annotations

import time

from tunnel_core.agent.credentials import good_for
from tunnel_core.agent.leg import AgentLeg, LegOwner
from tunnel_core.net.dialer import Dialed
from tunnel_core.net.leg import Monitor
from tunnel_core.protocol.control import ToClient, to_client


class ClientLeg(AgentLeg[ToClient]):
    def __init__(self, monitor: Monitor, owner: LegOwner[ClientLeg, ToClient], dialed: Dialed) -> None:
        super().__init__(monitor, to_client, owner)
        self.id = dialed.leg
        self.token = dialed.token
        self.instance = ""  # the host-agent at the other end, once paired
        self.free_since = 0.0
        # Monotonic: when its token is over. The relay lets no stream begin on it any more, half a minute later.
        self.good_until = time.monotonic() + good_for(dialed.token, dialed.date)
