"""DNS lookups in which one hanging name does not delay the others.

`getaddrinfo` blocks its thread, for half a minute and more if a name server is dead, and cannot be
interrupted. Event loops have few threads for it (libuv has four), which a single bad name can block, and
asyncio waits for its own when the process exits. Here each name has a thread of its own, concurrent
lookups of a name are shared, and the threads end with the process.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

MOST: Final = 64  # concurrent lookups, a thread each: far more than an agent has names
MOST_SLOW: Final = 32  # of these, for names that were slow last time, so that others find a thread
SLOW: Final = 1.0  # seconds that make a lookup slow; resolvers first retry after 5 s

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]  # as returned by `socket.getaddrinfo`


def look_up(host: str) -> list[AddressInfo]:
    """Ask the system's resolver, which may take long. Raises OSError."""
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)  # type: ignore[return-value]  # its addresses are tuples


class Resolver:
    """Shares and bounds lookups. Threads call `look_up`, which may block."""

    def __init__(self, look_up: Callable[[str], list[AddressInfo]]) -> None:
        self._look_up = look_up
        self._lock = threading.Lock()
        self._wanted: dict[str, concurrent.futures.Future[list[AddressInfo]]] = {}  # running, or waiting for a thread
        self._running: set[str] = set()
        self._slow: set[str] = set()  # names whose last lookup was slow

    async def resolve(self, host: str, port: int) -> list[AddressInfo]:
        """The addresses of `host`, each with `port`. Joins a lookup of the name that is already running.

        Raises OSError. Cancelling one caller does not cancel a shared lookup.
        """
        with self._lock:
            found = self._wanted.get(host)
            if found is None:
                found = self._wanted[host] = concurrent.futures.Future()
                found.set_running_or_notify_cancel()  # no waiter can cancel it for the others
                self._start_what_may()
        infos = await asyncio.wrap_future(found)
        return [(*info[:4], (info[4][0], port, *info[4][2:])) for info in infos]

    def _start_what_may(self) -> None:
        """Start threads for waiting lookups, within the bounds."""
        for host in tuple(self._wanted):
            if host in self._running or len(self._running) >= MOST:
                continue
            if host in self._slow and len(self._running & self._slow) >= MOST_SLOW:
                continue
            self._running.add(host)
            try:
                threading.Thread(target=self._run, args=(host,), name=f"lookup of {host}", daemon=True).start()
            except RuntimeError:
                self._running.discard(host)
                failure = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))  # out of threads
                self._wanted.pop(host).set_exception(failure)

    def _run(self, host: str) -> None:
        begun = time.monotonic()
        infos, failure = [], None
        try:
            infos = self._look_up(host)
        except Exception as exc:  # noqa: BLE001  (it is raised in the callers)
            failure = exc
        with self._lock:
            if time.monotonic() - begun > SLOW:
                self._slow.add(host)
            else:
                self._slow.discard(host)
            self._running.discard(host)
            found = self._wanted.pop(host)
            self._start_what_may()
        if failure is not None:
            found.set_exception(failure)
        else:
            found.set_result(infos)


_resolver: Final = Resolver(lambda host: look_up(host))  # noqa: PLW0108  (found anew each time: tests replace it)


async def resolve(host: str, port: int) -> list[AddressInfo]:
    """The addresses of `host`, each with `port`, from the process-wide resolver. Raises OSError."""
    return await _resolver.resolve(host, port)
