"""One connection to a public port: its source, its tunnel, and the answer if the server is away."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable
from typing import Final, Protocol

from tunnel_core.errors import BadProxyHeader
from tunnel_core.net.tcp import TcpConnection
from tunnel_core.protocol import asleep, proxy_header
from tunnel_core.protocol.addresses import parse_endpoint
from tunnel_core.protocol.local import Payload
from tunnel_core.protocol.replay import ReplayMemory
from tunnel_core.protocol.routes import Routes
from tunnel_core.protocol.sniff import Asked, Sniffer
from tunnel_core.protocol.sniff.reader import LIMIT
from tunnel_core.protocol.visitor_limits import Turned, VisitorLimits

from .tunnel import ClientTunnel

MOMENT: Final = 0.3  # seconds without more bytes until a possible old Minecraft ping is taken as whole
ASLEEP_PATIENCE: Final = 5.0  # seconds for answering a visitor whose server is away


class Reason(enum.Enum):
    """Why a visitor is turned away, besides limits. The value appears in metrics and logs."""

    NO_ROUTE = "no-route"  # the visitor named no known tunnel
    SILENT = "first-byte-timeout"
    LEFT = "left"  # before the tunnel was known
    PROXY_HEADER = "proxy-header"


class Host(Protocol):
    """What a visitor needs of the gateway."""

    memory: ReplayMemory
    limits: VisitorLimits
    routes: Routes
    first_byte_timeout: float

    @property
    def is_full(self) -> bool: ...

    def is_proxy(self, address: str) -> bool: ...

    def tunnel(self, name: str) -> ClientTunnel | None: ...

    def turned_away(self, visitor: Visitor, reason: Turned | Reason) -> None: ...

    def gone(self, visitor: Visitor) -> None: ...


class VisitorConnection(TcpConnection):
    """Calls `gone` once its socket is closed, whoever handled it."""

    def __init__(self, memory: ReplayMemory, connected: Callable[[], None], gone: Callable[[], None]) -> None:
        super().__init__(memory, connected)
        self._gone = gone

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone()


class Visitor:
    """Carries `tcp` until it is known where to; then a stream does. `name` is the tunnel of its port, if it has one."""

    def __init__(self, gateway: Host, name: str) -> None:
        self._gateway = gateway
        self._name = name
        self.tcp = VisitorConnection(gateway.memory, self._arrived, self._gone)
        self.tcp.carrier = self
        self._header: bytearray | None = None  # of a proxy, so far
        self._sniffer: Sniffer | None = None  # of a port that tunnels share
        self._timer: asyncio.TimerHandle | None = None
        self._address = ""
        self.source = ""  # ADDRESS:PORT
        self.asked = ""  # the name that was asked for
        self._admitted = False
        self._entered = ""  # the tunnel
        self._turned = False

    def _arrived(self) -> None:
        self._is_from(self.tcp.peer)
        if self._gateway.is_full:
            self._turn_away(Turned.CONNECTIONS)
        elif self._gateway.is_proxy(self._address):
            self._header = bytearray()
            self._wait(self._gateway.first_byte_timeout, self._silent)
        else:
            self._admit(b"")

    def _is_from(self, source: str) -> None:
        self.source = source
        end = parse_endpoint(source)
        self._address = source if end is None else str(end.ip)

    def _admit(self, said: bytes) -> None:
        """Its address is known. `said` is what it sent, after the header of a proxy."""
        turned = self._gateway.limits.admit(self._address, time.monotonic())
        if turned is not None:
            self._turn_away(turned)
            return
        self._admitted = True
        if self._name:
            self._enter(self._name, said)
            return
        self._sniffer = Sniffer()
        if self._timer is None:
            self._wait(self._gateway.first_byte_timeout, self._silent)
        if said:
            self._look(said)

    def _look(self, data: Payload) -> None:
        sniffer = self._sniffer
        assert sniffer is not None, "made when it was admitted"
        asked = sniffer.feed(data)
        if asked is not None:
            self._find(asked, bytes(sniffer.held))
        elif sniffer.may_be_whole:
            self._wait(MOMENT, lambda: self._find(sniffer.end(), bytes(sniffer.held)))

    def _find(self, asked: Asked, said: bytes) -> None:
        self.asked = asked.name
        name = self._gateway.routes.tunnel(asked.name)
        tunnel = self._gateway.tunnel(name) if name else None
        if tunnel is None:
            self._turn_away(Reason.NO_ROUTE)
        elif asked.protocol == "minecraft" and tunnel.surely_away and self._hears(tunnel, said):
            self._wait(None)
        else:
            self._enter(name, said)

    def _enter(self, name: str, said: bytes) -> None:
        self._wait(None)
        self._sniffer = None
        tunnel = self._gateway.tunnel(name)
        turned = self._gateway.limits.enter(self._address, name)
        if turned is not None:
            self._turn_away(turned)
            return
        self._entered = name
        assert tunnel is not None, "it was found, or is the port's own"
        tunnel.adopt(self.tcp, said, self.source, lambda said: self._hears(tunnel, said))

    def _hears(self, tunnel: ClientTunnel, said: bytes) -> bool:
        """Say that the server is asleep, if `said`, all that was sent, is Minecraft's. Whether it is."""
        return Farewell.begin(self.tcp, said, asleep.describe(tunnel.away_for))

    # Its end.

    def _silent(self) -> None:
        self._turn_away(Reason.SILENT)

    def _turn_away(self, reason: Turned | Reason) -> None:
        self._wait(None)
        self._turned = True
        self._gateway.turned_away(self, reason)
        self.tcp.abort()

    def _gone(self) -> None:
        self._wait(None)
        if self._admitted:
            self._gateway.limits.leave(self._address, self._entered)
        self._gateway.gone(self)

    def _wait(self, seconds: float | None, then: Callable[[], None] = lambda: None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, then)

    # protocol.local.Carrier

    @property
    def credit(self) -> int:
        if self._header is not None:
            return proxy_header.LIMIT - len(self._header)
        return self._sniffer.room if self._sniffer is not None else LIMIT

    def local_data(self, data: Payload) -> None:
        if self._turned:
            return
        if self._header is None:
            self._look(data)
            return
        self._header += data
        try:
            header = proxy_header.decode(self._header)
        except BadProxyHeader:
            self._turn_away(Reason.PROXY_HEADER)
            return
        if header is not None:
            said, self._header = bytes(self._header[header.size :]), None
            if header.source is not None:
                self._is_from(str(header.source))
            self._admit(said)

    def local_eof(self) -> None:
        if not self._turned:
            self._turn_away(Reason.LEFT)

    def local_broken(self, reason: str) -> None:
        if not self._turned:
            self._turn_away(Reason.LEFT)

    def local_drained(self) -> None:
        """Nothing was written."""


class Farewell:
    """Carries `tcp` of a visitor whose server is away, until he has heard it."""

    def __init__(self, tcp: TcpConnection, message: str) -> None:
        self._tcp = tcp
        self._message = message
        self._said = bytearray()
        self._answered = 0
        self._done = False
        self._timer = asyncio.get_running_loop().call_later(ASLEEP_PATIENCE, tcp.abort)

    @classmethod
    def begin(cls, tcp: TcpConnection, said: bytes, message: str) -> bool:
        """Answer `said`, if that is Minecraft's. Whether it is; if not, `tcp` is left as it was."""
        if asleep.reply(said, message) == asleep.Reply(b"", True):
            return False
        tcp.carrier = farewell = cls(tcp, message)
        farewell.local_data(said)
        return True

    @property
    def credit(self) -> int:
        return max(1, LIMIT - len(self._said))

    def local_data(self, data: Payload) -> None:
        if self._done:
            return
        self._said += data
        answer = asleep.reply(self._said, self._message)
        if len(answer.data) > self._answered:
            self._tcp.write((answer.data[self._answered :],))
            self._answered = len(answer.data)
        if answer.done or len(self._said) >= LIMIT:
            self._done = True
            self._tcp.write_eof()  # and wait for his: a reset could overtake what was said

    def local_eof(self) -> None:
        self._timer.cancel()
        self._tcp.close()

    def local_broken(self, reason: str) -> None:
        self._timer.cancel()

    def local_drained(self) -> None:
        """It waits for nothing."""
