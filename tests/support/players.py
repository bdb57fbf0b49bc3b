"""Honest connections that ask and answer at a player's pace, in a process of their own.

    python players.py PORT COUNT

prints a line an answer: how many milliseconds it took. It ends with the first that is
wrong, missing or late, and says so.
"""

from __future__ import annotations

import socket
import sys
import time

PATIENCE = 20.0  # seconds for an answer: more than any stall that is tolerable
PACE = 0.002  # seconds between two questions: 20 a second of each of 25 players


def main() -> None:
    """Ask until killed."""
    port, count = int(sys.argv[1]), int(sys.argv[2])
    sockets = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(count)]
    number = 0
    while True:
        for sock in sockets:
            number += 1
            question = b"%099d\n" % number
            began = time.perf_counter()
            sock.sendall(question)
            answer = b""
            while len(answer) < len(question):
                data = sock.recv(len(question))
                if not data:
                    raise ConnectionError("an honest connection ended")
                answer += data
            if answer != question:
                raise ConnectionError("another answer than the question")
            print(f"{(time.perf_counter() - began) * 1000:.3f}", flush=True)
            time.sleep(PACE)


if __name__ == "__main__":
    try:
        main()
    except OSError as exc:
        sys.exit(f"FAILED {exc!r}")
