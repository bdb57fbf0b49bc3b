"""The command of the soak."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from pathlib import Path

import uvloop

from .run import Soak


def main() -> int:
    """Run the soak. Returns 0 if all was well, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m soak", description="A long run under random faults.")
    parser.add_argument("--seconds", type=float, default=600, help="how long faults go on (default: 600)")
    parser.add_argument("--seed", type=int, default=None, help="of all that is chance; printed")
    parser.add_argument("--output", type=Path, default=Path("build/soak"), help="folder for the plot and the figures")
    flags = parser.parse_args()
    seed = random.randrange(10**9) if flags.seed is None else flags.seed
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(Soak(flags.seconds, seed, flags.output).run()) else 1


if __name__ == "__main__":
    sys.exit(main())
