"""The least that a hop in Python can be: epoll, recv, send. No WebSocket, nothing kept, nothing checked.

python forward.py PORT TARGET
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

READ = 128 * 1024


class End:
    """One socket of a pair."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.peer: End
        self.unsent = b""
        self.ended = False  # it has sent its FIN

    def send(self, data: bytes) -> bool:
        """Whether all of it left; the rest waits."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            count = self.sock.send(data)
        self.unsent = data[count:]
        return not self.unsent


def main(port: int, target: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    ends: dict[int, End] = {}

    def close(end: End) -> None:
        for one in (end, end.peer):
            if ends.pop(one.sock.fileno(), None) is not None:
                poll.unregister(one.sock)
                one.sock.close()

    def serve(end: End, event: int) -> None:
        if event & select.EPOLLOUT and end.send(end.unsent):
            poll.modify(end.sock, select.EPOLLIN)
            poll.modify(end.peer.sock, 0 if end.peer.ended else select.EPOLLIN)
        if event & ~select.EPOLLOUT:
            data = end.sock.recv(READ)
            if not data:
                end.ended = True
                end.peer.sock.shutdown(socket.SHUT_WR)
                poll.modify(end.sock, 0)
                if end.peer.ended:
                    close(end)
            elif not end.peer.send(data):
                poll.modify(end.peer.sock, select.EPOLLOUT | select.EPOLLIN)
                poll.modify(end.sock, 0)

    while True:
        for fd, event in poll.poll():
            if fd == listener.fileno():
                accepted = listener.accept()[0]
                try:
                    one, other = End(accepted), End(socket.create_connection(("127.0.0.1", target)))
                except OSError:  # the next hop is not up yet
                    accepted.close()
                    continue
                one.peer, other.peer = other, one
                for end in (one, other):
                    ends[end.sock.fileno()] = end
                    poll.register(end.sock, select.EPOLLIN)
            elif fd in ends:
                try:
                    serve(ends[fd], event)
                except OSError:
                    close(ends[fd])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
