"""Looks names up so that one whose name server does not answer holds up no other.

`getaddrinfo` blocks its thread, for half a minute and more if a name server is dead, and nothing can
interrupt it. An event loop has few threads for that (libuv: four in all), which are soon all stuck at
the same name, and asyncio waits for its own at the end of the process. Here each name has a thread of
its own, concurrent look-ups of one name are one, and the threads end with the process.
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

MOST: Final = 64  # look-ups at once, a thread each: far more than an agent has names
MOST_SLOW: Final = 32  # of them, of names that were slow the last time: the others must find a thread
SLOW: Final = 1.0  # seconds from which on a look-up is slow: the first retry of a resolver comes after 5 s

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]  # as `socket.getaddrinfo` has it


def look_up(host: str) -> list[AddressInfo]:
    """Ask the system, which may take long. Raises OSError."""
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)  # type: ignore[return-value]  # its addresses are tuples


class Resolver:
    """Shares and bounds look-ups. `look_up` is the blocking call; it is used in threads."""

    def __init__(self, look_up: Callable[[str], list[AddressInfo]]) -> None:
        self._look_up = look_up
        self._lock = threading.Lock()
        self._wanted: dict[str, concurrent.futures.Future[list[AddressInfo]]] = {}  # under way, or waiting for a thread
        self._running: set[str] = set()
        self._slow: set[str] = set()  # names whose last look-up was

    async def resolve(self, host: str, port: int) -> list[AddressInfo]:
        """The addresses of a name, each with `port`; looked up now, or shared with whoever asks already.

        Raises OSError. Who is cancelled leaves the look-up to the others.
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
        """Start a thread for each look-up that waits for one, as far as the bounds allow."""
        for host in tuple(self._wanted):
            if host in self._running or len(self._running) >= MOST:
                continue
            if host in self._slow and len(self._running & self._slow) >= MOST_SLOW:
                continue
            self._running.add(host)
            try:
                threading.Thread(target=self._run, args=(host,), name=f"look-up of {host}", daemon=True).start()
            except RuntimeError:
                self._running.discard(host)
                failure = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))  # no thread to be had
                self._wanted.pop(host).set_exception(failure)

    def _run(self, host: str) -> None:
        begun = time.monotonic()
        infos, failure = [], None
        try:
            infos = self._look_up(host)
        except Exception as exc:  # noqa: BLE001  (whoever waits is to have it)
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
    """The addresses of `host`, each with `port`, as this process' one resolver finds them. Raises OSError."""
    return await _resolver.resolve(host, port)
