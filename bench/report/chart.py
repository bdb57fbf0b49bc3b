"""A chart of bars, small multiples, as SVG: a panel a metric, a bar a tunnel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .verdicts import number

WIDTH, COLUMNS = 860, 2
PANEL_TOP, BAR, GAP = 44, 18, 6
NAME, VALUE = 112, 56  # room for a bar's name, and its value

STYLE = """\
text{font:12px system-ui,sans-serif;fill:#334155}.title{font-weight:600;font-size:13px}.value{fill:#64748b}
.bar{fill:#94a3b8}.ours{fill:#2563eb}
@media (prefers-color-scheme:dark){text{fill:#cbd5e1}.value{fill:#94a3b8}.bar{fill:#64748b}.ours{fill:#60a5fa}}"""


@dataclass(frozen=True)
class Bar:
    name: str
    value: float
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """One metric. `title` says its unit, and whether more is better."""

    title: str
    bars: Sequence[Bar]
    digits: int = 0


def draw(panels: Sequence[Panel]) -> str:
    """The whole SVG."""
    width = WIDTH // COLUMNS
    height = PANEL_TOP + max((len(panel.bars) for panel in panels), default=0) * (BAR + GAP) + 12
    rows = -(-len(panels) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {rows * height}" role="img">',
        f"<style>{STYLE}</style>",
    ]
    for index, panel in enumerate(panels):
        left, top = index % COLUMNS * width, index // COLUMNS * height
        parts.append(f'<text class="title" x="{left + 8}" y="{top + 26}">{escape(panel.title)}</text>')
        most = max((bar.value for bar in panel.bars), default=0) or 1
        for place, bar in enumerate(panel.bars):
            y = top + PANEL_TOP + place * (BAR + GAP)
            length = max(1.0, bar.value / most * (width - NAME - VALUE - 16))
            kind = "bar ours" if bar.ours else "bar"
            start = left + NAME
            parts += [
                f'<text x="{start - 8}" y="{y + 13}" text-anchor="end">{escape(bar.name)}</text>',
                f'<rect class="{kind}" x="{start}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
                f'<text class="value" x="{start + length + 6:.1f}" y="{y + 13}">',
                f"{number(bar.value, panel.digits)}</text>",
            ]
    return "\n".join([*parts, "</svg>", ""])
