"""What fault tests share: programs they need, both event loops, and figures of processes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

NO_UVLOOP = Path(__file__).parent.parent / "support" / "no_uvloop"


@pytest.fixture(params=["uvloop", "asyncio"])
def environ(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of the services: with uvloop, and as if it were not installed."""
    if request.param == "uvloop":
        return {}
    root = Path(__file__).parent.parent.parent
    return {"PYTHONPATH": os.pathsep.join((str(NO_UVLOOP), str(root)))}


def need(*programs: str) -> None:
    """Skip where a program is not installed; in CI, where it should be, fail."""
    missing = [program for program in programs if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"NOT INSTALLED, SO NOT TESTED: {', '.join(missing)}")
