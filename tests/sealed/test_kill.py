"""Sealed streams of real processes whose relay is killed, while the owner changes the secret."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from support.apps import CHUNK, block, close, connect, serve, until
from support.faults import at_rest, metric
from support.seals import SEAL_SECRET

from demo.processes import Process, Tunnel

pytestmark = [pytest.mark.sealed, pytest.mark.timeout(600)]

NO_UVLOOP = Path(__file__).parent.parent / "support" / "no_uvloop"
MIB = 1 << 20
KILLS = 3
PATIENCE = 120.0  # seconds for four processes on a machine that has much else to do
PART = 2 * MIB  # of what each end sends, between two kills
OLDER = "an-older-secret-of-the-same-owner's"


class End:
    """An application: sends a part each time it may, and hashes what it sends and what it reads."""

    def __init__(self, seed: int) -> None:
        self._unit = block(CHUNK, seed)
        self.may_send = asyncio.Semaphore(0)
        self.sent, self.got = hashlib.sha256(), hashlib.sha256()
        self.count = 0  # bytes read
        self.over = asyncio.Event()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(writer))
            group.create_task(self._read(reader))
        self.over.set()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        for _ in range(KILLS + 1):
            await self.may_send.acquire()
            for _ in range(PART // CHUNK):
                self._unit = self._unit[1:] + self._unit[:1]  # no two blocks alike
                self.sent.update(self._unit)
                writer.write(self._unit)
                await writer.drain()
        writer.write_eof()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK):
            self.got.update(data)
            self.count += len(data)


async def rotate(host: Process, file: Path, secrets: str, times: int) -> None:
    """Change the host-agent's secrets, and wait until it has read them, for the `times`-th time."""
    await asyncio.to_thread(file.write_text, secrets)
    await until(lambda: len(host.events("e2e secrets read")) == times, PATIENCE)


async def is_reset(port: int) -> bool:
    """Whether a new connection is reset, and brings nothing."""
    reader, writer = await connect(port)
    try:
        return await reader.read() is None
    except ConnectionResetError:
        return True
    finally:
        await close(writer)


def test_a_transfer_survives_kills_of_the_relay_and_a_rotation(tmp_path: Path) -> None:
    """Both ways at once, kill -9 in the midst of each part: equal SHA-256 at both ends, though the secret goes.

    One agent runs with uvloop, the other without.
    """
    asyncio.run(transfer_with_kills(tmp_path))


async def transfer_with_kills(tmp_path: Path) -> None:
    near, far = End(1), End(2)
    (mine := tmp_path / "client").write_text(OLDER)
    (theirs := tmp_path / "host").write_text(OLDER)
    async with serve(far.run) as target:
        tunnel = Tunnel(target=target)
        paths = f"{NO_UVLOOP}{os.pathsep}{tunnel.environ['PYTHONPATH']}"
        tunnel.host.environ = tunnel.environ | {"HOST_AGENT_E2E_SECRET_FILE": str(theirs), "PYTHONPATH": paths}
        tunnel.client.environ = tunnel.environ | {"CLIENT_AGENT_E2E_SECRET_FILE": str(mine)}
        try:
            await asyncio.to_thread(tunnel.__enter__)
            reader, writer = await connect(tunnel.port)
            transfer = asyncio.create_task(near.run(reader, writer))
            for kill in range(KILLS):
                for end in (near, far):
                    end.may_send.release()
                await until(lambda kill=kill: min(near.count, far.count) > kill * PART + MIB // 2, PATIENCE)  # type: ignore[misc]
                tunnel.relay.kill()
                tunnel.relay.start()
                if kill == 0:
                    await rotate(tunnel.host, theirs, f"{SEAL_SECRET}\n{OLDER}\n", 1)
                elif kill == 1:
                    await rotate(tunnel.host, theirs, SEAL_SECRET, 2)
            assert not transfer.done()
            for end in (near, far):
                end.may_send.release()
            await transfer
            await far.over.wait()
            await close(writer)
            assert near.count == far.count == (KILLS + 1) * PART
            assert near.sent.digest() == far.got.digest()
            assert far.sent.digest() == near.got.digest()
            assert len(tunnel.client.events("stream resumed")) >= KILLS
            assert await is_reset(tunnel.port)  # its secret is good for no new stream
            assert metric(tunnel.host, "tunnel_agent_streams_opened_total", sealed="yes") == 1
            await asyncio.to_thread(at_rest, tunnel, PATIENCE)
        finally:
            await asyncio.to_thread(tunnel.stop)
