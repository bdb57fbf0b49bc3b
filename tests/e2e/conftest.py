"""What these tests need of the machine, and a loud word if it is not there."""

from __future__ import annotations

import pytest
from support import deploy


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nobody should take a skipped test for a passed one."""
    for what in sorted(deploy.missing):
        terminalreporter.write_line(f"*** NOT TESTED: {what} ***", red=True, bold=True)
