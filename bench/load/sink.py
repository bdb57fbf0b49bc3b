"""The application behind a tunnel. The first byte of a connection says what it wants.

| byte | it gets |
| --- | --- |
| ECHO | everything back, that byte included |
| DOWN | a download without end, as fast as it goes |
| HELD | the same, held to HELD_RATE |
| UP   | now and then a COUNT of the bytes that have arrived |

Echoes share one process and an epoll; each of the others has a process to itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import struct
import time
from typing import NoReturn

ECHO, DOWN, HELD, UP = b"e", b"d", b"h", b"u"
HELD_RATE = 20e6  # bytes a second
HELD_BLOCK = 64 * 1024  # written at once: about what a game server sends for a chunk
BLOCK = 256 * 1024
COUNT = struct.Struct("!Qd")  # bytes that have arrived, and when by time.monotonic()
COUNT_EVERY = 0.05  # seconds, when something comes: seldom enough that an upload is traffic one way
READ = 64 * 1024
PATIENCE = 120.0  # seconds without any progress, after which a connection is let go


def listen(address: str) -> socket.socket:
    """A listening socket for `serve`, on a free port."""
    return socket.create_server((address, 0), backlog=4096)


def serve(listener: socket.socket) -> NoReturn:
    """Serve for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    echoes: dict[int, _Echo] = {}
    while True:
        for fd, events in poll.poll():
            if fd == listener.fileno():
                _accept(listener, poll, echoes)
            elif not echoes[fd].serve(events, poll):
                poll.unregister(fd)
                echoes.pop(fd).sock.close()


def _accept(listener: socket.socket, poll: select.epoll, echoes: dict[int, _Echo]) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            sock, _ = listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(sock, select.EPOLLIN)
            echoes[sock.fileno()] = _Echo(sock)


class _Echo:
    """A connection that may yet turn out to want something else."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._new = True
        self._left = b""  # what the peer did not take yet: meanwhile nothing is read

    def serve(self, events: int, poll: select.epoll) -> bool:
        """Do what `events` allow. Returns whether the connection goes on here."""
        try:
            data = self._left or self.sock.recv(READ)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if self._new and data and data[:1] != ECHO:
            _in_a_process(self.sock, data[:1])
            return False
        self._new = False
        if not data:
            return False
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        was, self._left = self._left, data[sent:]
        if bool(was) != bool(self._left):
            poll.modify(self.sock, select.EPOLLOUT if self._left else select.EPOLLIN)
        return True


def _in_a_process(sock: socket.socket, kind: bytes) -> None:
    """Serve `sock` in a child. It keeps no other socket, so that closing one here closes it."""
    if os.fork():
        return
    try:
        kept = sock.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
        sock.settimeout(PATIENCE)
        {DOWN: _down, HELD: _held, UP: _up}[kind](sock)
    except (OSError, KeyError):
        pass  # the peer has what it wanted, and left
    finally:
        os._exit(0)


def _down(sock: socket.socket) -> NoReturn:
    block = random.randbytes(BLOCK)
    while True:
        sock.sendall(block)


def _held(sock: socket.socket) -> NoReturn:
    block = random.randbytes(HELD_BLOCK)
    due = time.monotonic()
    while True:
        sock.sendall(block)
        due += HELD_BLOCK / HELD_RATE
        ahead = due - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        else:
            due -= ahead  # what could not be sent in its time is not sent later in a burst


def _up(sock: socket.socket) -> None:
    buffer = bytearray(BLOCK)
    count = 0
    told = time.monotonic()
    while size := sock.recv_into(buffer):
        count += size
        now = time.monotonic()
        if now - told >= COUNT_EVERY:
            sock.sendall(COUNT.pack(count, now))
            told = now
