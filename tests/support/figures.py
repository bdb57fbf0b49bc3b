"""What tests have measured or counted: shown at the end of a run, and never judged there."""

from __future__ import annotations

_reported: list[str] = []


def tell(figure: str) -> None:
    """Have a line shown at the end of the run."""
    _reported.append(figure)


def reported() -> list[str]:
    """All lines so far."""
    return list(_reported)
