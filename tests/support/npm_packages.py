"""npm packages that tests need, in the virtual environment, as npm/package-lock.json pins them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

PINS: Final = Path(__file__).parent / "npm"
TRIES: Final = 3
PATIENCE: Final = 120.0  # seconds for one try: a dozen, if all goes well
FLAGS: Final = (
    *("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline"),
    *("--fetch-retries", "4", "--fetch-retry-factor", "2", "--fetch-retry-mintimeout", "1000"),
)
# npm's and Node's codes for a registry that is out of reach, or out of order.
UNREACHABLE: Final = re.compile(
    r"code (E5\d\d|E429|EAI_AGAIN|ECONN\w+|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|\w*TIMEDOUT\w*|\w*TIMEOUT)"
)


def npm_packages() -> Path:
    """The `node_modules` that holds what is pinned, installed unless it is there already.

    Skips the test, with a line that says why, if the registry cannot be reached; fails if it has something else
    than what is pinned.
    """
    folder = Path(sys.prefix) / "npm"
    pinned, installed = PINS / "package-lock.json", folder / "installed"
    if not installed.exists() or installed.read_bytes() != pinned.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PINS, folder)
        for left in reversed(range(TRIES)):
            error = _install(folder)
            if not error:
                break
            unreachable = UNREACHABLE.search(error)
            if not unreachable:
                telling = (line for line in error.splitlines() if "corrupted" in line or "npm error" in line)
                pytest.fail(f"npm cannot install what {pinned} pins: {next(telling, error)}", pytrace=False)
            if not left:
                pytest.skip(f"NOT TESTED: npm cannot reach its registry ({unreachable[1]})")
        shutil.copy(pinned, installed)
    return folder / "node_modules"


def _install(folder: Path) -> str:
    """What npm says if it fails."""
    try:
        done = subprocess.run(
            ["npm", "ci", *FLAGS], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return "code TIMEOUT"
    return done.stderr if done.returncode else ""
