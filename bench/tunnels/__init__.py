"""The tunnels that are measured. A new one is a file here, and a line below."""

from __future__ import annotations

from ..subject import Tunnel
from . import direct, forward, haproxy, libwsrx, naive, ours, socat, ssh, websocket_tunnel, websockify, wstunnel

REFERENCE = "haproxy3"  # what ratios are made to
FLOOR = "naive"

TUNNELS: tuple[Tunnel, ...] = (
    *ours.VARIANTS,
    haproxy.Haproxy(),
    forward.LANGUAGE,
    forward.LOOP,
    naive.Naive(compression=False),
    naive.Naive(compression=True),
    direct.Direct(),
    socat.Socat(),
    ssh.Ssh(),
    websockify.Websockify(),
    libwsrx.Libwsrx(),
    websocket_tunnel.WebsocketTunnel(),
    wstunnel.Wstunnel(),
)
