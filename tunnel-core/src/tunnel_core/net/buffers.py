"""What is read into.

All legs of a process share one read buffer: a protocol that reads into it must have consumed
what was read before it returns to the event loop, as by then the next socket may be reading.
One buffer for all keeps it warm in the cache and an idle connection cheap. Local sockets of
an agent are read into blocks of its replay memory, as what they bring is kept
(protocol/replay.py).

The size of a read is two of loopback's largest TCP segments: what an agent reads from a local
socket leaves, with its header, as a frame of just that size, which the relay reads in one
piece. A frame a little larger leaves as three segments and is read in two pieces: that
took 2.5 CPU seconds a GB where this takes 1.8. Half of the size costs a tenth more, twice of it no less.
"""

from __future__ import annotations

from typing import Final

READ_SIZE: Final = 2 * 65_483  # 65,536 bytes of loopback's MTU, less the headers of IPv4 and TCP
FRAME_SIZE: Final = READ_SIZE - (2 + 8 + 4)  # of payload that fills a read: less the longest header

READ_BUFFER: Final = memoryview(bytearray(READ_SIZE))
