"""Announces tunnels as LAN worlds of Minecraft (Java Edition), to this machine only.

The game listens at 224.0.2.60:4445 for `[MOTD]name[/MOTD][AD]port[/AD]`, and dials that port at the address the
datagram came from. Datagrams from 127.0.0.1 do not reach it, so announced tunnels also listen on the default
interface's own address, and accept only connections from that same address there (docs/decisions/032).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from tunnel_core.errors import TunnelError
from tunnel_core.net import ports, sockets
from tunnel_core.net.address import Address, is_loopback
from tunnel_core.net.route import source_address
from tunnel_core.service.logs import Logger

GROUP: Final = ("224.0.2.60", 4445)
INTERVAL: Final = 1.5  # seconds between announcements, as in the game itself
LOOK: Final = 5.0  # seconds between checks of the default interface
ALL_ADDRESSES: Final = ("0.0.0.0", "::")
ACCEPT_AGAIN: Final = 0.5  # seconds after a failed accept, mostly for lack of descriptors


def announcement(name: str, port: int) -> bytes:
    """The datagram for a world with this name. Square brackets, which would end the name, become round ones."""
    return f"[MOTD]{name.translate({91: '(', 93: ')'})}[/MOTD][AD]{port}[/AD]".encode()


def default_address() -> str:
    """The address that the system would send to the group from. Empty if there is none."""
    source = source_address(GROUP)
    return "" if source is None or is_loopback(source) else source


class LanWorld:
    """One tunnel in the list.

    The service already listens on `host` and `port`. The tunnel is announced while `ready` is true. Without
    multicast, one log line says so.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        new_connection: Callable[[], asyncio.BaseProtocol],
        *,
        ready: Callable[[], bool],
        log: Logger,
    ) -> None:
        self._datagram = announcement(name, port)
        self._host = host
        self._port = port
        self._new_connection = new_connection
        self._ready = ready
        self._log = log
        self._logged = False  # whether the log has said why it is not announced
        self._sender: socket.socket | None = None
        self._listening: list[socket.socket] = []
        self._accepting: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self.address = ""  # where the game finds it; empty while it is not announced

    def start(self) -> None:
        """Open the sockets if possible, and keep announcing."""
        self._open(default_address())
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop announcing, and close the second listener."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            self._send()
            await asyncio.sleep(INTERVAL)
            if loop.time() - looked >= LOOK:
                looked = loop.time()
                source = default_address()
                if source != self.address or not source:
                    await self._close()
                    self._open(source)

    def _open(self, source: str) -> None:
        if not source:
            self._not_announced("this machine has no network with multicast")
            return
        try:
            if self._host not in (*ALL_ADDRESSES, source):  # the service listens there already
                self._listening = ports.listen(source, self._port)
            self._sender = sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender.setblocking(False)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)  # it never leaves this machine
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
            sender.bind((source, 0))
        except (OSError, TunnelError) as exc:
            self._drop_sockets()
            self._not_announced(str(exc) if isinstance(exc, TunnelError) else sockets.why(exc))
            return
        for sock in self._listening:
            self._accepting = asyncio.get_running_loop().create_task(self._accept(sock, source))
        self.address = source
        self._logged = False
        self._log.info("announced to the LAN list", address=f"{Address(source, self._port)}")

    def _not_announced(self, reason: str) -> None:
        if not self._logged:
            self._logged = True
            self._log.info("not announced to the LAN list", reason=reason)

    def _send(self) -> None:
        if self._sender is None or not self._ready():
            return
        try:
            self._sender.sendto(self._datagram, GROUP)
        except BlockingIOError:
            pass  # the next announcement is soon
        except OSError as exc:
            self.address = ""  # the next check opens new sockets
            self._not_announced(sockets.why(exc))

    async def _accept(self, listening: socket.socket, address: str) -> None:
        """Accept connections that come from `address` itself, and reset all others."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(ACCEPT_AGAIN)
                continue
            if peer[0] != address:
                sockets.reset_on_close(sock)
                sock.close()
                continue
            try:
                await loop.connect_accepted_socket(self._new_connection, sock)
            except OSError:
                sock.close()  # the peer has left

    async def _close(self) -> None:
        self.address = ""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            self._accepting = None
        self._drop_sockets()

    def _drop_sockets(self) -> None:
        for sock in self._listening:
            sock.close()
        self._listening = []
        if self._sender is not None:
            self._sender.close()
            self._sender = None
