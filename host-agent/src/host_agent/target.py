"""The target of a tunnel."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, NamedTuple

from tunnel_core.net import sockets
from tunnel_core.net.address import Address
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol import proxy_header
from tunnel_core.service.logs import Throttle

REASONS: Final = (
    (TimeoutError, "the target did not answer in time"),
    (socket.gaierror, "the target's name was not found"),
    (ConnectionRefusedError, "the target refused the connection"),
)


class Caller(NamedTuple):
    """The source of a stream: the address (and port, if known) of the visitor, else of the client-agent."""

    address: str
    subject: str
    stream: str = ""  # its id; a raw peer's has none


class Target:
    """Connects each stream of a tunnel to `address`, which may take `patience` seconds to answer.

    `tells` it who calls, by a PROXY header before all else.
    """

    def __init__(self, address: Address, patience: float, *, tells: bool = False) -> None:
        self.address = address
        self._patience = patience
        self._tells = tells

    def connect(
        self,
        tcp: TcpConnection,
        caller: Caller,
        log: Throttle,
        opened: Callable[..., None],
        refused: Callable[[str], None],
    ) -> None:
        """Connect `tcp`, and call `opened` with fields for its log line, or `refused` with the reason.

        Neither is called if `tcp` is closed before.
        """
        name = str(self.address)

        def failed(exc: OSError) -> None:
            # The client learns what happened; only the log says where.
            log.warning("target refused", target=name, error=sockets.why(exc))
            refused(next((reason for kind, reason in REASONS if isinstance(exc, kind)), "the target cannot be reached"))

        def connected() -> None:
            if self._tells:
                header = proxy_header.encode(caller.address, tcp.peer, stream=caller.stream, subject=caller.subject)
                tcp.write_first(header)
            opened(target=name)

        tcp.dial(self.address, self._patience, connected, failed)
