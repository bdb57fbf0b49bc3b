"""What was measured: a run is one JSON line, and what is said of all runs is a median."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .machine import Machine
from .summary import median


@dataclass
class Run:
    """One subject in one round. `metrics` by `FIGURE.METRIC`."""

    session: str  # when it began, in UTC
    command: str
    machine: Machine
    round: int
    subject: str
    shape: str
    ours: bool  # judged by the goals
    version: str
    metrics: dict[str, float] = field(default_factory=dict)
    disturbed: dict[str, float] = field(default_factory=dict)  # figure → cores that others used meanwhile
    problems: dict[str, str] = field(default_factory=dict)  # figure, or "start" or "content" → what went wrong
    missing: str = ""  # why there is nothing

    def measured(self, figure: str) -> bool:
        return any(key.startswith(f"{figure}.") for key in self.metrics)


def append(path: Path, run: Run) -> None:
    """Write one line more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def read_last(path: Path) -> list[Run]:
    """The runs of the last session of the file; none of an empty one."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    last = [line for line in lines if line["session"] == lines[-1]["session"]]
    return [Run(**line | {"machine": Machine(**line["machine"])}) for line in last]


class Results:
    """The runs of one session, summed up."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.subjects = tuple(dict.fromkeys(run.subject for run in runs))

    def first(self, subject: str) -> Run:
        """The subject's first run: name, shape and version are there, whatever happened."""
        return next(run for run in self.runs if run.subject == subject)

    def why_not(self, subject: str, figure: str) -> str:
        """Why there is no value: the first thing that went wrong."""
        for run in self._of(subject):
            for problem in (run.missing, run.problems.get("start", ""), run.problems.get(figure, "")):
                if problem:
                    return problem
        return ""

    def value(self, subject: str, figure: str, metric: str) -> float | None:
        """The median over rounds."""
        return median(self._values(subject, figure, metric).values())

    def ratio(self, subject: str, figure: str, metric: str, against: str) -> float | None:
        """The median of the ratios of those rounds in which both were measured."""
        ours, theirs = self._values(subject, figure, metric), self._values(against, figure, metric)
        return median(ours[key] / theirs[key] for key in ours.keys() & theirs.keys() if theirs[key])

    def measured(self, figure: str) -> list[str]:
        """The subjects that have values of a figure."""
        return [subject for subject in self.subjects if any(run.measured(figure) for run in self._of(subject))]

    def disturbed(self) -> tuple[int, int]:
        """How many figures of all runs were disturbed to the last, and how many there were."""
        all_figures = {(id(run), key.partition(".")[0]) for run in self.runs for key in run.metrics}
        return sum(len(run.disturbed) for run in self.runs), len(all_figures)

    def _of(self, subject: str) -> Iterable[Run]:
        return (run for run in self.runs if run.subject == subject)

    def _values(self, subject: str, figure: str, metric: str) -> dict[int, float]:
        """By round. Where there are undisturbed rounds, only those."""
        key = f"{figure}.{metric}"
        runs = [run for run in self._of(subject) if key in run.metrics]
        quiet = [run for run in runs if figure not in run.disturbed]
        return {run.round: run.metrics[key] for run in quiet or runs}
