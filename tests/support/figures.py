"""What tests have measured or counted: shown at the end of a run, and never judged there."""

from __future__ import annotations

_told: list[str] = []


def tell(figure: str) -> None:
    """Have a line shown at the end of the run."""
    _told.append(figure)


def told() -> list[str]:
    """All lines so far."""
    return list(_told)
