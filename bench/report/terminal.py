"""The table on the terminal: a row a metric, a column a subject, and goals below each figure."""

from __future__ import annotations

from collections.abc import Sequence

from ..figures.figure import Figure
from ..results import Results
from .verdicts import number, verdicts

LABEL = 34  # columns


def table(results: Results, figures: Sequence[Figure], reference: str) -> str:
    """All of it. In parentheses: the ratio to `reference` in the same rounds."""
    lines: list[str] = []
    for figure in figures:
        subjects = results.measured(figure.name)
        if not subjects:
            continue
        width = max(18, *(len(subject) + 2 for subject in subjects))
        lines += ["", figure.title, " " * LABEL + "".join(f"{subject:>{width}}" for subject in subjects)]
        for metric in figure.metrics:
            cells = []
            for subject in subjects:
                value = results.value(subject, figure.name, metric.name)
                if value is None:
                    cells.append("–")
                    continue
                ratio = None
                if subject != reference:
                    ratio = results.ratio(subject, figure.name, metric.name, reference)
                beside = f" ({ratio:.2f}×)" if ratio is not None else ""
                cells.append(number(value, metric.digits) + beside)
            if any(cell != "–" for cell in cells):
                label = f"  {metric.title}{', ' if metric.unit else ''}{metric.unit}"
                lines.append(f"{label:<{LABEL}}" + "".join(f"{cell:>{width}}" for cell in cells))
        for verdict in verdicts(results, figure):
            shown = verdict.show(verdict.value)
            lines.append(f"  {verdict.mark} {verdict.subject}: {verdict.what}: {shown}  {verdict.bounds}")
    lines += ["", *_troubles(results, figures), "★ aim   ✓ must   ~ first version   ✗ not yet"]
    return "\n".join(lines)


def _troubles(results: Results, figures: Sequence[Figure]) -> list[str]:
    lines = []
    for subject in results.subjects:
        if results.first(subject).missing:
            lines.append(f"missing: {subject}: {results.first(subject).missing}")
            continue
        for where in ("start", "content", *(figure.name for figure in figures)):
            found = [run.problems[where] for run in results.runs if run.subject == subject and where in run.problems]
            if found:
                lines.append(f"problem: {subject}: {where} ({len(found)}×): {found[0]}")
    disturbed, of = results.disturbed()
    if disturbed:
        lines.append(f"{disturbed} of {of} measurements were disturbed by other processes")
    return lines
