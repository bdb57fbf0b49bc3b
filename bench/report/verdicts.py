"""Goals against results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..figures.figure import Figure, Goal, Metric
from ..results import Results


def number(value: float, digits: int) -> str:
    """With thousands apart: `1,234.5`."""
    return f"{value:,.{digits}f}"


@dataclass(frozen=True)
class Verdict:
    """A goal, and how one subject of ours stands."""

    subject: str
    figure: Figure
    metric: Metric
    goal: Goal
    value: float

    @property
    def mark(self) -> str:
        return self.goal.mark(self.value)

    @property
    def what(self) -> str:
        return f"{self.metric.title}, to {self.goal.against}" if self.goal.against else self.metric.title

    def show(self, value: float) -> str:
        """`value` in the goal's unit."""
        if self.goal.against is not None:
            return f"{number(value, 2)}×"
        return f"{number(value, self.metric.digits)}{'' if self.metric.unit == '×' else ' '}{self.metric.unit}"

    def bound(self, value: float | None) -> str:
        """A bound: `≤ 1.25×`."""
        return "" if value is None else f"{'≥' if self.goal.at_least else '≤'} {self.show(value)}"

    @property
    def bounds(self) -> str:
        """All of them: `first ≤ 1.50×  must ≤ 1.25×  aim ≤ 1.00×`."""
        named = (("first", self.goal.first), ("must", self.goal.must), ("aim", self.goal.aim))
        return "  ".join(f"{name} {self.bound(value)}" for name, value in named if value is not None)


def verdicts(results: Results, figure: Figure) -> Iterator[Verdict]:
    """Those of one figure, for each subject of ours that has values."""
    metrics = {metric.name: metric for metric in figure.metrics}
    for subject in results.measured(figure.name):
        if not results.first(subject).ours:
            continue
        for goal in figure.goals:
            if goal.against is None:
                value = results.value(subject, figure.name, goal.metric)
            else:
                value = results.ratio(subject, figure.name, goal.metric, goal.against)
            if value is not None:
                yield Verdict(subject, figure, metrics[goal.metric], goal, value)
