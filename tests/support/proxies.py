"""A small HTTP proxy and a small SOCKS proxy. `asked` lists where they were told to go."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from support.apps import Handler, serve
from support.tls import join


@dataclass
class Proxy:
    """A proxy that runs; `login` is what it wants to hear, if anything."""

    port: int = 0
    login: str = ""
    asked: list[str] = field(default_factory=list)
    refused: int = 0
    leads_to: int = 0  # a port of 127.0.0.1 that every name leads to, if not 0

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        self.asked.append(f"{host}:{port}")
        await join(reader, writer, self.leads_to or port)

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """RFC 9110 section 9.3.6."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split()
        assert method == "CONNECT"
        wanted = "Proxy-Authorization: Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and wanted not in head:
            self.refused += 1
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        host, _, port = target.rpartition(":")
        await self._join(reader, writer, host, int(port))

    async def socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """RFC 1928, and RFC 1929 where there is a login."""
        _, count = await reader.readexactly(2)
        offered = await reader.readexactly(count)
        method = 2 if self.login else 0
        if method not in offered:
            self.refused += 1
            writer.write(b"\x05\xff")
            return
        writer.write(bytes((5, method)))
        if self.login:
            _, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            (length,) = await reader.readexactly(1)
            right = user + b":" + await reader.readexactly(length) == self.login.encode()
            writer.write(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                self.refused += 1
                return
        _, _, _, kind = await reader.readexactly(4)
        if kind == 1:
            host = socket.inet_ntop(socket.AF_INET, await reader.readexactly(4))
        elif kind == 4:
            host = socket.inet_ntop(socket.AF_INET6, await reader.readexactly(16))
        else:
            (length,) = await reader.readexactly(1)
            host = (await reader.readexactly(length)).decode()
        port = int.from_bytes(await reader.readexactly(2), "big")
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await self._join(reader, writer, host, port)


@contextlib.asynccontextmanager
async def proxy(kind: str, *, login: str = "", leads_to: int = 0) -> AsyncIterator[Proxy]:
    """Run a proxy: `http` or `socks`."""
    made = Proxy(login=login, leads_to=leads_to)
    handler: Handler = made.http if kind == "http" else made.socks
    async with serve(handler) as port:
        made.port = port
        yield made
