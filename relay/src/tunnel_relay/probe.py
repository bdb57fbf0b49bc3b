"""The leg that a doctor connects to. It reports who is there, and echoes what it receives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from tunnel_core.net.leg import Leg
from tunnel_core.protocol.control import MAX_MESSAGE, PROBE_BYTES, Probed, encode
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.protocol.tokens import Grant

from .limits import Limits
from .pairing import Pairing

LIFETIME: Final = 30.0  # seconds: a doctor is done in five


class ProbeLeg(Leg):
    """One probe: counted as a leg, never paired, limited in bytes and time. Member of `probes` while open."""

    must_read = True

    def __init__(
        self,
        pairing: Pairing,
        limits: Limits,
        probes: set[ProbeLeg],
        *,
        tunnel: str,
        address: str,
        grant: Grant | None,
    ) -> None:
        super().__init__(pairing.monitor, client=False, text_limit=MAX_MESSAGE)
        self.max_rate = pairing.settings.max_message_rate
        self._pairing = pairing
        self._limits = limits
        self._probes = probes
        self._tunnel = tunnel
        self._address = address
        self.grant = grant
        self._left = PROBE_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._limits.add_leg(self._address, self.grant)
        self._probes.add(self)
        pairing, tunnel = self._pairing, self._tunnel
        probed = Probed(pairing.host_legs(tunnel), pairing.waiting_in_tunnel(tunnel), pairing.offers.hosts(tunnel))
        self.send_text(encode(probed))
        asyncio.get_running_loop().call_later(LIFETIME, self.close, CloseCode.NORMAL)

    def on_data(self, pieces: Sequence[memoryview | bytes], size: int) -> None:
        self._left -= size
        if self._left < 0:
            self.violated(CloseCode.POLICY_VIOLATION, "more than a probe may send")
            return
        self.send(pieces, size)

    def on_writable(self, writable: bool) -> None:
        if writable:
            self.resume_reading()
        else:
            self.pause_reading()

    def on_gone(self) -> None:
        self._probes.discard(self)
        self._limits.remove_leg(self._address, self.grant)
