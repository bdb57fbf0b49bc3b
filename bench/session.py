"""A session: rounds, in each of them every subject once, its figures one after the other."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import link, machine, results
from .errors import BenchError, Corrupted, Missing
from .figures.figure import Figure, Pace, Values
from .results import Run
from .start import started
from .subject import Subject
from .workers import call

REPEATS = 2  # of a figure that was disturbed
QUIET_PATIENCE = 15.0  # seconds to wait for a quiet machine, once


@dataclass
class Plan:
    """What to measure, and which subjects in the first round alone.

    `waiting` bounds the seconds that are spent on disturbances in all.
    """

    subjects: Sequence[Subject]
    figures: Sequence[Figure]
    rounds: int
    pace: Pace
    path: Path
    command: str
    waiting: float = 180.0
    once: Collection[str] = ()
    say: Callable[[str], None] = partial(print, flush=True)


@dataclass
class Session:
    """Carries out a plan."""

    plan: Plan
    runs: list[Run] = field(default_factory=list)
    failed: bool = False  # content was corrupted, or ours could not be measured
    _versions: dict[str, str] = field(default_factory=dict)
    _missing: dict[str, str] = field(default_factory=dict)

    def run(self) -> list[Run]:
        """Measure it all. Each run is written as soon as it is there."""
        began = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        here = machine.describe()
        for subject in self.plan.subjects:
            try:
                self._versions[subject.name] = subject.prepare()
            except (Missing, OSError) as exc:
                self._missing[subject.name] = str(exc)
                self.failed |= subject.ours
        for number in range(1, self.plan.rounds + 1):
            # Every other round goes backwards: none is always measured after the same.
            order = self.plan.subjects if number % 2 else tuple(reversed(self.plan.subjects))
            for subject in order:
                figures = [f for f in self.plan.figures if f.suits(subject) and number <= f.rounds]
                if not figures or (number > 1 and (subject.name in self._missing or subject.name in self.plan.once)):
                    continue
                run = Run(
                    began,
                    self.plan.command,
                    here,
                    number,
                    subject.name,
                    subject.shape,
                    subject.ours,
                    self._versions.get(subject.name, ""),
                    missing=self._missing.get(subject.name, ""),
                )
                if not run.missing:
                    self._measure(subject, figures, run)
                results.append(self.plan.path, run)
                self.runs.append(run)
                self._tell(run)
        return self.runs

    def _measure(self, subject: Subject, figures: Sequence[Figure], run: Run) -> None:
        """All figures of one subject in one round. Those that can share one start of it."""
        shared = [figure for figure in figures if not figure.fresh and figure.link is None]
        while shared:
            shared = self._measure_shared(subject, shared, run)
        for figure in figures:
            if figure.link is not None:
                self._watched(figure, run, partial(_on_link, subject, figure, self.plan.pace))
            elif figure.fresh:
                self._watched(figure, run, partial(_alone, subject, figure, self.plan.pace))

    def _measure_shared(self, subject: Subject, figures: list[Figure], run: Run) -> list[Figure]:
        """Measure on one start. Returns what is left after one went wrong: who knows how the subject is now."""
        try:
            with started(subject) as running:
                for number, figure in enumerate(figures):
                    if not self._watched(figure, run, partial(figure.measure, running, self.plan.pace)):
                        return figures[number + 1 :]
        except (BenchError, OSError) as exc:
            self._note(run, "start", exc)
        return []

    def _watched(self, figure: Figure, run: Run, measure: Callable[[], Values]) -> bool:
        """Measure one figure on a quiet machine; again if it was disturbed. Returns whether all went well."""
        calmest: tuple[float, Values] | None = None
        for _ in range(1 + REPEATS):
            self.plan.waiting -= machine.wait_quiet(min(QUIET_PATIENCE, self.plan.waiting))
            others, began = machine.Others(), time.monotonic()
            try:
                values = measure()
            except (BenchError, OSError) as exc:
                self._note(run, figure.name, exc)
                return False
            cores = others.cores()
            if calmest is None or cores < calmest[0]:
                calmest = cores, values
            if calmest[0] <= machine.QUIET or self.plan.waiting <= 0:
                break
            self.plan.waiting -= time.monotonic() - began
        assert calmest is not None, "there was one"
        cores, values = calmest
        if cores > machine.QUIET:
            run.disturbed[figure.name] = round(cores, 2)
        run.metrics |= {figure.key(name): round(value, 4) for name, value in values.items()}
        return True

    def _note(self, run: Run, where: str, error: Exception) -> None:
        """Keep what went wrong. What is missing on this machine is no failure."""
        corrupted = isinstance(error, Corrupted)
        run.problems["content" if corrupted else where] = str(error)
        self.failed |= corrupted or (run.ours and not isinstance(error, Missing))

    def _tell(self, run: Run) -> None:
        if run.missing:
            self.plan.say(f"  {run.subject}: missing: {run.missing}")
            return
        noise = f", disturbed: {', '.join(run.disturbed)}" if run.disturbed else ""
        self.plan.say(f"  round {run.round}: {run.subject}{noise}")
        for where, what in run.problems.items():
            self.plan.say(f"    {where}: {what}")


def _alone(subject: Subject, figure: Figure, pace: Pace) -> Values:
    with started(subject) as running:
        return figure.measure(running, pace)


def _on_link(subject: Subject, figure: Figure, pace: Pace) -> Values:
    def there() -> Values:
        assert figure.link is not None
        with link.enter(figure.link), started(subject, link.FAR) as running:
            return figure.measure(running, pace)

    return call(figure.seconds, there)
