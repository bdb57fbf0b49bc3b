"""A leg from the host's side: warm, then paired, then with one stream after the other."""

from __future__ import annotations

from tunnel_core.agent.leg import AgentLeg, LegOwner
from tunnel_core.net.leg import Monitor
from tunnel_core.protocol.control import Paired, ToHost, to_host


class HostLeg(AgentLeg[ToHost]):
    def __init__(self, monitor: Monitor, owner: LegOwner[HostLeg, ToHost]) -> None:
        super().__init__(monitor, to_host, owner)
        self.peer = ""  # the client-agent's address
        self.subject = ""  # and who it is, by its token
        self.client_leg = ""  # the id of the client's leg
        self.last = ""  # the stream that finished on it
        self.spent = False  # a stream on it was refused or reset: it is about to be closed

    def pair(self, message: Paired) -> None:
        """The relay has joined it to a client's leg."""
        self.paired = self.carrying = True
        self.peer, self.subject, self.client_leg = message.peer, message.subject, message.leg

    @property
    def takes_stream(self) -> bool:
        """Whether the client may open or resume a stream on it now."""
        return self.paired and self.session is None and not self.spent
