"""The least that a relay in Python can be: epoll, recv, unmask, send. The floor of CPU a message.

    python relay_of_sockets.py PORT

No event loop, no control frames, no back-pressure, no check of anything: a send that blocks holds up all.
"""

from __future__ import annotations

import select
import socket
import struct
import sys

from websockets.speedups import apply_mask  # type: ignore[attr-defined,unused-ignore]  # built with C alone

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def unframed(buffer: bytearray) -> list[bytes]:
    """Take the whole frames off `buffer`, and give them as a server sends them."""
    out: list[bytes] = []
    at = 0
    while len(buffer) >= at + 6:
        length, start = buffer[at + 1] & 0x7F, at + 6
        if length > 125:
            kind, size = ("!H", 2) if length == 126 else ("!Q", 8)
            if len(buffer) < start + size:
                break
            (length,) = struct.unpack_from(kind, buffer, at + 2)
            start += size
        if len(buffer) < start + length:
            break
        head = bytes((0x82, length)) if length < 126 else struct.pack("!BBQ", 0x82, 127, length)
        out += (head, apply_mask(buffer[start : start + length], bytes(buffer[start - 4 : start])))
        at = start + length
    del buffer[:at]
    return out


def main(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    legs: dict[int, tuple[socket.socket, bytearray]] = {}
    peers: dict[int, socket.socket] = {}
    hosts: list[socket.socket] = []
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    if not (more := sock.recv(1)):
                        break  # somebody looked whether it listens
                    head += more
                if not head:
                    sock.close()
                    continue
                if head.startswith(b"GET /host"):
                    hosts.append(sock)
                else:
                    host = hosts.pop()
                    peers[host.fileno()], peers[sock.fileno()] = sock, host
                legs[sock.fileno()] = sock, bytearray()
                poll.register(sock, select.EPOLLIN)
                sock.sendall(ANSWER)
                continue
            sock, buffer = legs[fd]
            data = sock.recv(128 * 1024)
            if not data:
                poll.unregister(fd)
                del legs[fd]
                sock.close()
                continue
            buffer += data
            if out := unframed(buffer):
                peers[fd].sendall(b"".join(out))


if __name__ == "__main__":
    main(int(sys.argv[1]))
