"""The one read buffer of the process.

A protocol that reads into it must have consumed what was read before it returns to the
event loop: by then the next socket may be reading. One buffer for all keeps it warm in
the cache and an idle connection cheap.

128 KiB: halving it costs a system call more for each 64 KiB; doubling it makes what is
made from it (a masked or copied chunk) large enough for glibc to map and unmap it anew
each time, which doubles the CPU seconds a GB. `make bench-read-size` measures it.
"""

from __future__ import annotations

from typing import Final

READ_SIZE: Final = 128 * 1024
READ_BUFFER: Final = memoryview(bytearray(READ_SIZE))
