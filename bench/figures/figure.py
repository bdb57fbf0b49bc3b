"""What a figure is: how it is measured, what it yields, what it must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..link import Link
from ..subject import Running, Subject, Tunnel

Values = dict[str, float]  # by Metric.name; what could not be measured is not there


@dataclass(frozen=True)
class Pace:
    """How long to measure: 1 is as published, less is for a look."""

    scale: float = 1.0

    @property
    def quick(self) -> bool:
        return self.scale < 1

    def seconds(self, usual: float) -> float:
        return usual * self.scale


@dataclass(frozen=True)
class Metric:
    """One number of a figure. `more` is whether more is better."""

    name: str
    title: str
    unit: str
    more: bool = False
    digits: int = 0


@dataclass(frozen=True)
class Goal:
    """What ours must reach in `metric`: a ratio to `against` in the same round, or a plain value.

    `aim` is better, `first` is what the first version had to reach.
    """

    metric: str
    must: float
    aim: float | None = None
    against: str | None = None
    at_least: bool = False
    first: float | None = None

    def mark(self, value: float) -> str:
        """`★` for the aim, `✓` for must, `~` for first, `✗` for none of them."""
        marks = (("★", self.aim), ("✓", self.must), ("~", self.first))
        return next((mark for mark, bound in marks if bound is not None and self._holds(value, bound)), "✗")

    def _holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound


@dataclass(frozen=True)
class Figure:
    """`measure` yields values for `metrics`, on a subject that is up and idle.

    `fresh`: it wants the subject newly started. `link`: it is measured over a far link.
    `suits`: which subjects it is measured on. `rounds`: at most so many. `full`: whether it is
    left to FULL=1. `seconds`: a bound of it over a link.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Running, Pace], Values]
    goals: tuple[Goal, ...] = ()
    suits: Callable[[Subject], bool] = lambda subject: isinstance(subject, Tunnel)
    fresh: bool = False
    link: Link | None = None
    rounds: int = 1000
    full: bool = False
    seconds: float = 300.0

    def key(self, metric: str) -> str:
        """The metric's name among those of all figures."""
        return f"{self.name}.{metric}"
