"""docs/benchmarks.md: blocks between markers are made anew, what stands around them is written by hand.

    <!-- bench:NAME -->
    ...
    <!-- bench:end -->

A block is only replaced by a session that measured what it shows; each says when and how.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..figures import FIGURES
from ..figures.figure import Figure
from ..figures.scale import PACE, PLAYERS
from ..relays import RELAYS
from ..results import Results
from ..tunnels import FLOOR, REFERENCE, TUNNELS
from . import chart
from .verdicts import number, verdicts

# Machines to rent: cores that are ours at any time, and MB.
SIZES = (("1/16 core, 256 MB", 1 / 16, 256), ("1/4 core, 512 MB", 1 / 4, 512), ("1 core, 1 GB", 1.0, 1024))
USABLE_CPU = 0.6  # of a core: bursts, and handshakes after a relay's restart, need the rest
USABLE_MEMORY = 0.75  # the system needs the rest

# Title → (figure, metrics) of a column in the table of all tunnels.
COLUMNS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("bulk down / up, MB/s", "bulk", ("down", "up")),
    ("8 streams, MB/s", "eight", ("down",)),
    ("CPU a GB down / up, s", "bulk", ("cpu_down", "cpu_up")),
    ("ping p50 / p99, µs", "ping", ("p50", "p99")),
    ("CPU, µs", "ping", ("cpu",)),
    ("loaded p50 / p99, µs", "loaded", ("p50", "p99")),
    ("connections a second", "connections", ("rate",)),
    ("p50, µs", "connections", ("p50",)),
    ("50 connections, round trips a second", "trips", ("rate",)),
    ("CPU, µs", "trips", ("cpu",)),
    ("memory idle / 200 / 2,000 streams, MB", "memory", ("idle", "some", "many")),
    ("stalled reader: growth, MB", "stall", ("growth",)),
    ("others' p50", "stall", ("p50_ratio",)),
)
PANELS: tuple[tuple[str, str, str], ...] = (
    ("Bulk down, MB/s (more is better)", "bulk", "down"),
    ("CPU seconds a GB (less is better)", "bulk", "cpu_down"),
    ("Round trip of 100 bytes, p50 in µs (less is better)", "ping", "p50"),
    ("Beside a download of 20 MB/s, p99 in µs (less is better)", "loaded", "p99"),
    ("New connections a second (more is better)", "connections", "rate"),
    ("Round trips a second, 50 connections (more is better)", "trips", "rate"),
)
NOT_IN_THE_CHART = ("direct", "naive-deflate")  # they would make all other bars alike


def write(results: Results, path: Path, others: Iterable[Path] = ()) -> list[Path]:
    """Bring the blocks of `path`, and of `others` that exist, up to date. Returns what changed."""
    blocks = render(results, chart_file=path.with_suffix(".svg").name)
    changed = []
    for document in (path, *others):
        if document.exists():
            before = document.read_text(encoding="utf-8")
            after = replace_blocks(before, blocks)
            if after != before:
                document.write_text(after, encoding="utf-8")
                changed.append(document)
    panels = _panels(results)
    if panels:
        path.with_suffix(".svg").write_text(chart.draw(panels), encoding="utf-8")
        changed.append(path.with_suffix(".svg"))
    return changed


def replace_blocks(text: str, blocks: dict[str, str]) -> str:
    """`text` with those of its blocks replaced that are in `blocks`; the rest as it is."""

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- bench:{name} -->\n{blocks[name].strip()}\n<!-- bench:end -->" if name in blocks else match[0]

    return re.sub(r"<!-- bench:([a-z]+) -->\n(.*?)<!-- bench:end -->", replaced, text, flags=re.DOTALL)


def render(results: Results, chart_file: str) -> dict[str, str]:
    """The text of each block for which something was measured."""
    figures = {figure.name: figure for figure in FIGURES}
    makers: dict[str, tuple[tuple[str, ...], Callable[[Results, Sequence[Figure]], str]]] = {
        "tunnels": (
            ("ping", "loaded", "connections", "trips", "bulk", "eight", "stall", "memory"),
            lambda results, _: f"{_tunnels(results)}\n\n![The same as bars]({chart_file})",
        ),
        "relay": (("messages", "ticks", "flood"), _metrics),
        "replay": (("replay",), _metrics),
        "resume": (("resume",), _metrics),
        "distance": (("far25", "far100", "lossy", "beside"), _metrics),
        "scale": (("scale",), lambda results, _: _scale(results)),
    }
    blocks = {}
    for name, (names, make) in makers.items():
        shown = [figures[key] for key in names]
        if any(results.measured(figure.name) for figure in shown):
            parts = make(results, shown), _goals(results, shown), _caption(results, shown)
            blocks[name] = "\n\n".join(part for part in parts if part)
    if results.measured("bulk"):
        blocks["readme"] = _readme(results)
    return blocks


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_row(head), _row("-" for _ in head), *map(_row, rows)])


def _digits(figure: str, metric: str) -> int:
    return next(m.digits for f in FIGURES if f.name == figure for m in f.metrics if m.name == metric)


def _cell(results: Results, subject: str, figure: str, metrics: Sequence[str]) -> str:
    values = [(results.value(subject, figure, metric), _digits(figure, metric)) for metric in metrics]
    if all(value is None for value, _ in values):
        return "–"
    return " / ".join("–" if value is None else number(value, digits) for value, digits in values)


def _ends(results: Results) -> list[str]:
    """The subjects that are tunnels: those with a figure of the table, or that are missing altogether."""
    of_tunnels = {figure for _, figure, _ in COLUMNS}
    return [
        subject
        for subject in results.subjects
        if any(subject in results.measured(figure) for figure in of_tunnels)
        or any(results.why_not(subject, figure) for figure in of_tunnels)
    ]


def _tunnels(results: Results) -> str:
    columns = [column for column in COLUMNS if results.measured(column[1])]
    rows, notes = [], []
    for subject in _ends(results):
        run = results.first(subject)
        if not any(subject in results.measured(figure) for _, figure, _ in columns):
            notes.append(f"- {subject} is missing: {run.missing or results.why_not(subject, 'start')}")
            continue
        rows.append(
            (
                f"**{subject}**" if run.ours else subject,
                run.shape,
                *(_cell(results, subject, figure, metrics) for _, figure, metrics in columns),
            )
        )
        lacking: dict[str, list[str]] = {}  # figures, by why they are not there
        for figure in dict.fromkeys(figure for _, figure, _ in columns):
            why = results.why_not(subject, figure)
            if why and subject not in results.measured(figure):
                lacking.setdefault(why, []).append(figure)
        notes += [f"- {subject} has no figure for {', '.join(names)}: {why}" for why, names in lacking.items()]
    table = _table(("tunnel", "shape", *(title for title, _, _ in columns)), rows)
    return "\n\n".join(part for part in (table, "\n".join(notes)) if part)


def _metrics(results: Results, figures: Sequence[Figure]) -> str:
    """Rows of metrics, columns of subjects."""
    subjects = [s for s in results.subjects if any(s in results.measured(figure.name) for figure in figures)]
    rows = [
        (
            figure.title,
            f"{metric.title}{', ' if metric.unit else ''}{metric.unit}",
            *(_cell(results, subject, figure.name, (metric.name,)) for subject in subjects),
        )
        for figure in figures
        if results.measured(figure.name)
        for metric in figure.metrics
    ]
    notes = [
        f"- {subject} has no figure for “{figure.title}”: {results.why_not(subject, figure.name)}"
        for figure in figures
        for subject in results.subjects
        if _suits(figure, subject)
        and results.why_not(subject, figure.name)
        and subject not in results.measured(figure.name)
    ]
    return "\n\n".join(part for part in (_table(("", "", *subjects), rows), "\n".join(notes)) if part)


def _suits(figure: Figure, name: str) -> bool:
    """Whether the figure was to be measured on that subject; one that is not listed here is another build."""
    return all(figure.suits(subject) for subject in (*TUNNELS, *RELAYS) if subject.name == name)


def _goals(results: Results, figures: Sequence[Figure]) -> str:
    rows = [
        (
            verdict.figure.title,
            verdict.what,
            verdict.show(verdict.value),
            verdict.bound(verdict.goal.first),
            verdict.bound(verdict.goal.must),
            verdict.bound(verdict.goal.aim),
            verdict.mark,
        )
        for figure in figures
        for verdict in verdicts(results, figure)
    ]
    return _table(("figure", "of ours", "is", "first", "must", "aim", ""), rows) if rows else ""


def players_within(cpu: Sequence[tuple[float, float]], budget: float) -> float:
    """How many players `budget` carries, by the measured points (players, CPU).

    Between two points, and below the first, in proportion; beyond the last as that one.
    """
    below = (0.0, 0.0)
    for point in cpu:
        if budget <= point[1]:
            return below[0] + (budget - below[1]) / (point[1] - below[1]) * (point[0] - below[0])
        below = point if point[1] > below[1] else below
    return below[0] * budget / below[1]


def _scale(results: Results) -> str:
    subject = results.measured("scale")[0]

    def value(metric: str) -> float:
        return results.value(subject, "scale", metric) or 0.0

    rows = [
        (
            number(players, 0),
            number(value(f"pace_{players}"), 1),
            f"{number(value(f'cpu_{players}'), 1)} %",
            number(value(f"each_{players}"), 1),
            number(value(f"memory_{players}"), 1),
            number(value(f"p99_{players}"), 2),
        )
        for players in PLAYERS
    ]
    # As if at PACE, where a slower one was the highest.
    points = [(float(n), value(f"cpu_{n}") / 100 * PACE / (value(f"pace_{n}") or PACE)) for n in PLAYERS]
    idle, most = value("idle"), PLAYERS[-1]
    memory = max((value(f"memory_{most}") - idle) / most, 0.001)
    sizes = []
    for name, cores, megabytes in SIZES:
        by_cpu = int(players_within(points, USABLE_CPU * cores))
        by_memory = int((USABLE_MEMORY * megabytes - idle) / memory)
        sizes.append((name, number(by_cpu, 0), number(by_memory, 0), f"**{number(min(by_cpu, by_memory), 0)}**"))
    head = ("players", "messages a second each way", "CPU of a core", "CPU a message, µs", "memory, MB", "p99, ms")
    formula = (
        f"By this table one core carries {number(players_within(points, 1.0), 0)} players of {PACE:.0f} messages a "
        f"second each way when it does nothing else; a relay uses one core. To rent, with {USABLE_CPU:.0%} of the CPU "
        f"reckoned with (read off the table), and {USABLE_MEMORY:.0%} of the memory ({number(idle, 1)} MB, and "
        f"{number(memory * 1000, 0)} KB a player):"
    )
    return "\n\n".join((_table(head, rows), formula, _table(("machine", "by CPU", "by memory", "players"), sizes)))


def _caption(results: Results, figures: Sequence[Figure]) -> str:
    run = results.runs[0]
    subjects = [s for s in results.subjects if any(s in results.measured(figure.name) for figure in figures)]
    versions = "; ".join(f"{subject} {results.first(subject).version}" for subject in subjects)
    rounds = max(run.round for run in results.runs if any(run.measured(figure.name) for figure in figures))
    disturbed = sum(figure.name in run.disturbed for run in results.runs for figure in figures)
    noise = f" {disturbed} measurements were disturbed by other processes." if disturbed else ""
    return (
        f"`{run.command}`, {run.session[:10]}: medians of {rounds} round{'s' if rounds > 1 else ''}, "
        f"on {run.machine}.{noise} Versions: {versions}."
    )


def _readme(results: Results) -> str:
    rows = []
    for subject in _ends(results):
        run = results.first(subject)
        if run.ours or subject in (REFERENCE, FLOOR):
            cells = (("bulk", "down"), ("ping", "p50"), ("connections", "rate"), ("bulk", "cpu_down"))
            rows.append(
                (
                    f"**{subject}**" if run.ours else subject,
                    *(_cell(results, subject, figure, (metric,)) for figure, metric in cells),
                )
            )
    head = ("", "one stream, MB/s", "round trip p50, µs", "new connections a second", "CPU seconds a GB")
    return _table(head, rows)


def _panels(results: Results) -> list[chart.Panel]:
    panels = []
    for title, figure, metric in PANELS:
        bars = []
        for subject in results.measured(figure):
            value = results.value(subject, figure, metric)
            if value is not None and subject not in NOT_IN_THE_CHART:
                bars.append(chart.Bar(subject, value, results.first(subject).ours))
        if bars:
            panels.append(chart.Panel(title, bars, _digits(figure, metric)))
    return panels
