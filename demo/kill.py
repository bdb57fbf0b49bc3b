"""A transfer that survives `kill -9` of the relay: `make demo-kill`.

Four connections send random bytes through the tunnel and read them back, while the relay is
killed and restarted repeatedly. Only the clock notices.
"""

from __future__ import annotations

import sys
import threading
import time

from . import traffic
from .processes import Tunnel

STREAMS, SIZE, SECONDS = 4, 32 << 20, 12.0
KILLS, DOWN = 5, 0.5  # seconds that the relay stays away


def main() -> int:
    """Run the demo. Returns 0 if every byte came through, and no connection broke."""
    reports: list[traffic.Report] = []
    with Tunnel() as tunnel:
        begun = time.monotonic()

        def say(text: str) -> None:
            print(f"  {time.monotonic() - begun:5.1f} s  {text}", flush=True)

        def drive() -> None:
            reports.append(traffic.drive(tunnel.address, streams=STREAMS, size=SIZE, seconds=SECONDS))

        print()
        say(f"{STREAMS} connections begin to send {SIZE >> 20} MiB each, both ways")
        transfer = threading.Thread(target=drive)
        transfer.start()
        for _ in range(KILLS):
            time.sleep(SECONDS / (KILLS + 1) - DOWN)
            pid = tunnel.relay.pid
            tunnel.relay.kill()
            say(f"kill -9 {pid}: the relay is gone")
            time.sleep(DOWN)
            seen = len(tunnel.client.events("stream resumed"))
            tunnel.relay.start()
            while transfer.is_alive() and len(tunnel.client.events("stream resumed")) < seen + STREAMS:
                time.sleep(0.02)
            resumed = tunnel.client.events("stream resumed")[seen:]
            pause = max((line["paused_ms"] for line in resumed), default=0)
            replayed = sum(line["replayed_bytes"] for line in resumed)
            say(f"started again: {len(resumed)} streams resumed after {pause} ms, {replayed >> 10} KiB sent again")
        transfer.join()
        (report,) = reports
        say(f"done: the relay was killed {KILLS} times, {len(report.problems)} connections broke\n")
        traffic.show(report)
        print(f"  longest pause {report.longest_pause_s:.2f} s")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
