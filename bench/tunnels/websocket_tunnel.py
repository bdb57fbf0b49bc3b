"""PyPI's websocket-tunnel: one WebSocket that all streams share, to a port that the relay itself opens."""

from __future__ import annotations

from ..installs import virtualenv
from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel

PINS = ("websocket-tunnel==0.3.2",)
SERVER = """\
listen = "{listen}:{middle}"
token = "bench"
allow_peer_backends = ["127.0.0.1/32"]

[[proxies]]
name = "bench"
listen = "127.0.0.1:{port}"
listen_side = "local"
backend = "127.0.0.1:{target}"
backend_side = "peer"
"""
CLIENT = """\
server = "{far}:{middle}"
token = "bench"
allow_peer_backends = ["127.0.0.1/32"]
"""


class WebsocketTunnel(Tunnel):
    name = "websocket-tunnel"
    shape = "public port, multiplexed, 2 processes"
    crosses_link = True

    def prepare(self) -> str:
        virtualenv("websocket-tunnel", PINS)
        return PINS[0].partition("==")[2]

    def start(self, stage: Stage, target: int) -> Address:
        command = virtualenv("websocket-tunnel", PINS) / "wtunnel"
        middle, port = free_port(), free_port()
        server, client = stage.folder / "server.toml", stage.folder / "client.toml"
        server.write_text(SERVER.format(listen=stage.listen, middle=middle, port=port, target=target))
        client.write_text(CLIENT.format(far=stage.far, middle=middle))
        stage.run("server", command, "server", "-c", server)
        stage.wait_listening(middle)
        stage.run("client", command, "client", "-c", client)
        return LOOPBACK, port
