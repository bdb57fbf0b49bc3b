"""An agent that keeps nothing for a resume: it counts what is not acknowledged, and that is all.

python forgetful_agent.py host-agent|client-agent FLAGS
"""

from __future__ import annotations

import importlib
import sys

from tunnel_core.protocol.control import EARLY_DATA
from tunnel_core.protocol.replay import ReplayBuffer

keep = ReplayBuffer.append


def append(self: ReplayBuffer, data: memoryview | bytes) -> None:
    if self.end < EARLY_DATA:  # what comes before there is a leg has to wait for it somewhere
        keep(self, data)
    else:
        self.end += len(data)


if __name__ == "__main__":
    ReplayBuffer.append = append  # type: ignore[method-assign]  # what is measured is its absence
    del sys.argv[0]
    importlib.import_module(f"{sys.argv[0].replace('-', '_')}.__main__").run()
