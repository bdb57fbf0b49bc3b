"""Lines over time, as SVG: a panel a quantity, a line a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from bench.report.chart import STYLE

from .watch import Sample

WIDTH, HEIGHT = 860, 170  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 30, 22
POINTS: Final = 300  # of one line at most: more are not seen, and make a large file
COLOURS: Final = ("#2563eb", "#059669", "#d97706", "#7c3aed", "#dc2626", "#64748b")
_LINES: Final = """
.line{fill:none;stroke-width:1.3}.axis{stroke:#94a3b8;stroke-width:.5}
.death{stroke:#dc2626;stroke-width:.5;opacity:.35}"""


@dataclass(frozen=True)
class Panel:
    title: str
    of: Callable[[Sample], float | None]


def draw(samples: Sequence[Sample], panels: Sequence[Panel], deaths: Sequence[float]) -> str:
    """The whole SVG. `deaths` are the relay's, in seconds since the soak began."""
    names = sorted({sample.process for sample in samples}, key=lambda name: (name != "relay", name))
    seconds = max((sample.at for sample in samples), default=0) or 1.0
    height = len(panels) * HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{STYLE}{_LINES}</style>",
    ]
    for index, name in enumerate(names):
        x = LEFT + index * 150
        parts += [
            f'<rect x="{x}" y="8" width="14" height="4" fill="{COLOURS[index % len(COLOURS)]}"/>',
            f'<text x="{x + 20}" y="15">{escape(name)}</text>',
        ]
    for index, panel in enumerate(panels):
        parts += _panel(samples, names, panel, 20 + index * HEIGHT, seconds, deaths)
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    samples: Sequence[Sample], names: list[str], panel: Panel, top: int, seconds: float, deaths: Sequence[float]
) -> list[str]:
    values = [(sample, value) for sample in samples if (value := panel.of(sample)) is not None]
    most = round_up(max((value for _, value in values), default=0))
    floor, ceiling = top + HEIGHT - BOTTOM, top + TOP

    def x(at: float) -> float:
        return LEFT + at / seconds * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return floor - value / most * (floor - ceiling)

    parts = [f'<text class="title" x="{LEFT}" y="{top + 20}">{escape(panel.title)}</text>']
    for value in (0.0, most / 2, most):
        parts += [
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>',
            f'<text class="value" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>',
        ]
    step = round_up(seconds / 60 / 8)  # minutes
    for mark in range(int(seconds / 60 / step) + 1):
        at = f'x="{x(mark * step * 60):.1f}" y="{floor + 15}"'
        parts.append(f'<text class="value" {at} text-anchor="middle">{mark * step:g} min</text>')
    parts += [f'<line class="death" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{ceiling}" y2="{floor}"/>' for at in deaths]
    for index, name in enumerate(names):
        line = [(sample, value) for sample, value in values if sample.process == name]
        line = line[:: max(1, len(line) // POINTS)]
        path, life = [], None
        for sample, value in line:
            path.append(f"{'L' if sample.life == life else 'M'}{x(sample.at):.1f} {y(value):.1f}")
            life = sample.life
        if path:
            colour = COLOURS[index % len(COLOURS)]
            parts.append(f'<path class="line" stroke="{colour}" d="{"".join(path)}"/>')
    return parts


def round_up(value: float) -> float:
    """A round number that is not below `value`."""
    scale = 1.0
    while scale * 10 < value:
        scale *= 10
    return next((scale * step for step in (1, 2, 4, 5, 6, 8, 10) if scale * step >= value), 1.0)
