"""A far link on this machine: real packets of real TCP, delayed and lost in user space.

A process that enters a link moves into a network namespace of its own, which ends with it.
There, a TUN device stands for the distance: a packet to FAR is held for the delay, and comes
back with source and destination exchanged, as if from FAR to NEAR, which is this machine
again. So whoever connects to FAR reaches what listens here, one delay away in each
direction, while loopback stays as near as ever. (The exchange keeps checksums right.)

Why not a TCP proxy that delays, and nftables that drops: TCP itself would not feel the
distance, and what a lost packet costs is a round trip of it.
"""

from __future__ import annotations

import collections
import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from .errors import BenchError, Missing
from .installs import program
from .workers import Worker

NEAR, FAR = "198.18.0.1", "198.18.0.2"  # of the range that is reserved for benchmarks
MTU = 1500
QUEUE = 10_000  # packets on their way: 15 MB, more than any window here; beyond it packets are lost, as anywhere
BATCH = 64  # packets that are taken before those are looked at whose time has come
_DEVICE = "/dev/net/tun"
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001


@dataclass(frozen=True)
class Link:
    """Seconds of delay each way; which share of packets is lost, of those that are longer than `above` bytes."""

    delay: float
    loss: float = 0.0
    above: int = 0


def check() -> None:
    """Raise Missing if something that is needed is not there."""
    if os.geteuid() != 0:
        raise Missing("a far link needs root, for a network namespace")
    if not Path(_DEVICE).exists():
        raise Missing(f"a far link needs {_DEVICE}")
    program("ip", "iproute2")


def enter(link: Link) -> Worker[NoReturn]:
    """Move this process, and what it will start, onto `link`. Returns what carries the packets."""
    check()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise BenchError(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    device = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"far", _IFF_TUN_NO_PI))
    ip = program("ip", "iproute2")
    for words in (
        "link set lo up",
        f"address add {NEAR}/24 dev far",
        f"link set far mtu {MTU} up",
        # What most machines have: how a loss is answered must not depend on this one's choice.
        f"route replace 198.18.0.0/24 dev far src {NEAR} congctl cubic",
    ):
        subprocess.run([ip, *words.split()], check=True)
    return Worker(carry, device, link)


def mirror(packet: bytes) -> bytes:
    """An IPv4 packet, its source and destination exchanged."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


def carry(device: int, link: Link) -> NoReturn:
    """Carry packets for ever."""
    on_the_way: collections.deque[tuple[float, bytes]] = collections.deque()
    poll = select.poll()
    poll.register(device, select.POLLIN)
    while True:
        ahead = on_the_way[0][0] - time.monotonic() if on_the_way else None
        poll.poll(None if ahead is None else max(0, int(ahead * 1000) + 1))
        arrival = time.monotonic() + link.delay
        try:
            for _ in range(BATCH):
                packet = os.read(device, 2 * MTU)
                lost = len(packet) > link.above and random.random() < link.loss
                if packet[0] >> 4 == 4 and not lost and len(on_the_way) < QUEUE:
                    on_the_way.append((arrival, mirror(packet)))
        except BlockingIOError:
            pass
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            os.write(device, on_the_way.popleft()[1])
