"""An independent peer: Debian's `openssl s_client` speaks to the host's seal, through a bridge of a few lines."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence

import pytest
from support.apps import close, serve
from support.seals import host_tls, key
from support.simulation import App
from tunnel_core.protocol.control import Open
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.protocol.local import Payload
from tunnel_core.protocol.replay import ReplayMemory
from tunnel_core.protocol.resume import HostStream
from tunnel_core.protocol.seal.errors import SealError
from tunnel_core.protocol.seal.keys import Key
from tunnel_core.protocol.seal.local import SealedLocal
from tunnel_core.protocol.stream import Outcome, StreamContext

pytestmark = [
    pytest.mark.sealed,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here"),
]

BLOCK = 128 * 1024


class Bridge:
    """A host's sealed stream whose link is a TCP connection: no frames, and no messages but FIN."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.target = App("target")
        self.connected = False
        self.failed: list[SealError] = []
        self.seal = SealedLocal(
            host_tls(),
            self.target,
            largest=BLOCK,
            failed=self.failed.append,
            sealed=self._connect,
            answers=self._answer,
        )
        self.stream: HostStream[Bridge] = HostStream(
            Open(new_id(), new_id(), 1 << 20, e2e=True),
            self.seal,
            self,
            context=StreamContext(1 << 20, ReplayMemory(1 << 30, BLOCK), lambda stream: None),
            owner="tester",
            closed=self._closed,
        )
        self.seal.carrier = self.stream

    def _answer(self) -> None:
        self.stream.accept()

    def _connect(self) -> None:
        self.connected = True

    def _closed(self, outcome: Outcome, reason: str) -> None:
        pass

    def send(self, pieces: Sequence[Payload], size: int) -> None:
        self.writer.write(b"".join(pieces))

    def send_message(self, message: object, *, linger: bool = False) -> None:
        pass


async def talk(shown: Key, says: bytes) -> tuple[Bridge, bytes, str]:
    """Have `openssl s_client` say something to a target that answers with its length, and ends."""
    bridges: list[Bridge] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bridge = Bridge(writer)
        bridges.append(bridge)
        while not bridge.failed and (data := await reader.read(65536)):
            bridge.stream.link_data((data,), len(data))
            bridge.target.reads(1 << 20)
            if len(bridge.target.read) == len(says) and not bridge.target.ended:
                bridge.target.ended = True
                bridge.seal.local_data(b"%d bytes\n" % len(says))
                bridge.seal.local_eof()
        await close(writer)

    async with serve(handle) as port:
        process = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-quiet",
            "-psk_identity", shown.identity, "-psk", shown.psk.hex(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(says)
    return bridges[0], out, err.decode()


async def test_openssl_talks_to_the_host() -> None:
    """With nothing but the vectors of PROTOCOL.md: a key of 32 bytes and an identity."""
    says = os.urandom(300_000)
    bridge, out, err = await talk(key(), says)
    assert bytes(bridge.target.read) == says, err
    assert out == b"300000 bytes\n", err
    assert bridge.connected
    assert not bridge.failed


async def test_openssl_with_a_wrong_key_is_refused() -> None:
    bridge, out, _ = await talk(key(tunnel="db"), b"hello")
    assert not bridge.connected
    assert len(bridge.failed) == 1
    assert out == b""
