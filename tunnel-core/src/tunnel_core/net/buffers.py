"""The one read buffer of the process.

A protocol that reads into it must have consumed what was read before it returns to the
event loop: by then the next socket may be reading. One buffer for all keeps it warm in
the cache and an idle connection cheap.

Its size is two of loopback's largest TCP segments: what an agent reads from a local
socket leaves, with its header, as a frame of just that size, which the relay reads in one
piece. A frame a little larger leaves as three segments and is read in two pieces: that
took 2.5 CPU seconds a GB where this takes 1.8. Sizes from 64 to 512 KiB, aligned so, cost
the same; from 128 KiB on glibc maps and unmaps memory for every piece.
"""

from __future__ import annotations

from typing import Final

READ_SIZE: Final = 2 * 65_483  # 65,536 bytes of loopback's MTU, less the headers of IPv4 and TCP
HEADER: Final = 2 + 8 + 4  # the longest of a frame

READ_BUFFER: Final = memoryview(bytearray(READ_SIZE))
FRAME_BUFFER: Final = READ_BUFFER[: READ_SIZE - HEADER]  # what fills a frame
