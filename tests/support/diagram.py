"""Draws the phases of a stream into docs/architecture.md: `PYTHONPATH=tests .venv/bin/python -m support.diagram`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tunnel_core.protocol.stream import TRANSITIONS, Phase

PAGE: Final = Path(__file__).parents[2] / "docs" / "architecture.md"
BEGIN: Final = "```mermaid\nstateDiagram-v2\n"
END: Final = "```\n"


def diagram() -> str:
    """The table as a diagram that GitHub draws."""
    lines = [f"    [*] --> {next(iter(Phase)).name}"]
    lines += [f"    {phase.name} --> {then.name}: {trigger.name}" for (phase, trigger), then in TRANSITIONS.items()]
    lines += [f"    {phase.name} --> [*]" for phase in Phase if phase not in {before for before, _ in TRANSITIONS}]
    return BEGIN + "\n".join(lines) + "\n" + END


def drawn(page: str) -> str:
    """The page with the diagram of the table in place of the one it has."""
    before, begin, rest = page.partition(BEGIN)
    assert begin, "the page has no diagram of states"
    return before + diagram() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
