"""What a tunnel leads to."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import Final

from tunnel_core.net import sockets
from tunnel_core.net.address import Address
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.service.logs import Throttle

REASONS: Final = (
    (TimeoutError, "the target did not answer in time"),
    (socket.gaierror, "the target's name was not found"),
    (ConnectionRefusedError, "the target refused the connection"),
)


class Target:
    """Connects each stream of a tunnel to `address`, which may take `patience` seconds to answer."""

    def __init__(self, address: Address, patience: float) -> None:
        self.address = address
        self._patience = patience

    def connect(
        self, tcp: TcpConnection, log: Throttle, opened: Callable[..., None], refused: Callable[[str], None]
    ) -> None:
        """Connect `tcp`, and call `opened` with fields for its log line, or `refused` with the reason.

        Neither is called if `tcp` is closed before.
        """
        name = str(self.address)

        def failed(exc: OSError) -> None:
            # The client is told what happened, the log also where.
            log.warning("target refused", target=name, error=sockets.why(exc))
            refused(next((reason for kind, reason in REASONS if isinstance(exc, kind)), "the target cannot be reached"))

        tcp.dial(self.address, self._patience, functools.partial(opened, target=name), failed)
