"""Three TCP proxies in C, one behind the other: what three hops cost at best."""

from __future__ import annotations

import subprocess

from ..installs import program
from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel

# The defaults of Debian's package, and timeouts that no figure reaches.
CONFIGURATION = """\
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen hop
    bind 127.0.0.1:{port}
    server next 127.0.0.1:{target}
"""


class Haproxy(Tunnel):
    name = "haproxy3"
    shape = "3 TCP proxies in C"

    def prepare(self) -> str:
        words = subprocess.check_output([program("haproxy", "haproxy"), "-v"], text=True).split()
        return words[words.index("version") + 1]

    def start(self, stage: Stage, target: int) -> Address:
        for hop in ("host", "middle", "client"):
            port = free_port()
            configuration = stage.folder / f"{hop}.cfg"
            configuration.write_text(CONFIGURATION.format(port=port, target=target))
            stage.run(hop, program("haproxy", "haproxy"), "-db", "-f", configuration)
            target = port
        return LOOPBACK, target
