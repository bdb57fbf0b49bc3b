"""What is written of results."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from support.runs import run

from bench.figures import FIGURES
from bench.figures.figure import Goal
from bench.figures.scale import PLAYERS
from bench.report import chart, document, terminal
from bench.results import Results, Run

HAND = "# Benchmarks\n\nBy hand.\n\n<!-- bench:tunnels -->\nold\n<!-- bench:end -->\n\n## How to read them\n\n- kept\n"


def session() -> list[Run]:
    """Two rounds of two tunnels, one that is missing, and one that did not start."""
    runs = [
        run("socat3", 1, missing="socat is not installed: apt-get install socat"),
        run("ssh", 1, problems={"start": "no key"}),
    ]
    for number in (1, 2):
        runs.append(run("ours", number, metrics={"bulk.down": 1000.0, "bulk.up": 500.0, "ping.p50": 130.0}))
        runs.append(run("haproxy3", number, metrics={"bulk.down": 800.0, "bulk.up": 1000.0, "ping.p50": 100.0}))
    return runs


def test_blocks_are_made_anew_and_the_rest_stays() -> None:
    """A block that was not measured stays, too; doing it twice changes nothing more."""
    once = document.replace_blocks(HAND, {"tunnels": "new\n", "scale": "nowhere"})
    assert once == HAND.replace("old", "new")
    assert document.replace_blocks(once, {"tunnels": "new"}) == once
    assert document.replace_blocks(HAND, {}) == HAND


def test_the_document_says_what_was_measured(tmp_path: Path) -> None:
    """Values, ratios with their verdicts, what is missing and why, the command, the machine; and the chart."""
    path = tmp_path / "benchmarks.md"
    path.write_text(HAND)
    assert document.write(Results(session()), path, [tmp_path / "none.md"]) == [path, path.with_suffix(".svg")]
    text = path.read_text()
    assert "| **ours** | a shape | 1,000 / 500 |" in text
    assert re.search(r"\| down, to haproxy3 \| 1.25× \| ≥ 0.75× \| ≥ 0.90× \| ≥ 1.00× \| ★ \|", text)
    assert re.search(r"\| up, to haproxy3 \| 0.50× \| ≥ 0.75× \| ≥ 0.90× \| ≥ 1.00× \| ✗ \|", text)
    assert "- socat3 is missing: socat is not installed: apt-get install socat" in text
    assert "- ssh is missing: no key" in text
    assert "`make bench`, now: medians of 2 rounds" in text
    assert "a CPU" in text
    assert text.endswith("## How to read them\n\n- kept\n")
    ET.fromstring(path.with_suffix(".svg").read_text())


def test_only_what_was_measured_is_rendered() -> None:
    """A session without legs or links leaves their blocks alone."""
    assert set(document.render(Results(session()), "chart.svg")) == {"tunnels", "readme"}


def test_the_terminal_shows_values_ratios_and_verdicts() -> None:
    """And what is missing."""
    text = terminal.table(Results(session()), FIGURES, "haproxy3")
    assert "1,000 (1.25×)" in text
    assert "★ ours: down, to haproxy3: 1.25×  first ≥ 0.75×  must ≥ 0.90×  aim ≥ 1.00×" in text
    assert "~ ours: p50, to haproxy3: 1.30×  first ≤ 1.50×  must ≤ 1.25×  aim ≤ 1.00×" in text
    assert "missing: socat3: socat is not installed" in text


def test_goals_are_judged_in_their_direction() -> None:
    """At least, or at most; an aim may be wanting."""
    most, least = Goal("p50", 1.25, 1.0, first=1.5), Goal("rate", 0.6, at_least=True)
    assert [most.mark(value) for value in (1.0, 1.1, 1.25, 1.5, 1.6)] == ["★", "✓", "✓", "~", "✗"]
    assert [least.mark(value) for value in (9.0, 0.6, 0.59)] == ["✓", "✓", "✗"]


def test_every_goal_has_its_metric() -> None:
    """And no two figures, or metrics of one, have the same name."""
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
    for figure in FIGURES:
        names = [metric.name for metric in figure.metrics]
        assert len(set(names)) == len(names)
        assert {goal.metric for goal in figure.goals} <= set(names)


def test_players_are_read_off_the_measured_curve() -> None:
    """Between the points, below the first, and beyond the last."""
    points = [(100.0, 0.1), (200.0, 0.2), (1000.0, 0.6)]
    for budget, players in ((0.05, 50), (0.1, 100), (0.4, 600), (1.2, 2000)):
        assert round(document.players_within(points, budget)) == players


def test_scale_becomes_machines_to_rent() -> None:
    """Each with what it carries by CPU and by memory."""
    metrics = {"scale.idle": 30.0}
    for players in PLAYERS:
        metrics |= {
            f"scale.pace_{players}": 20.0,
            f"scale.cpu_{players}": players / 10,
            f"scale.each_{players}": 25.0,
            f"scale.memory_{players}": 30.0 + players / 50.003,
            f"scale.p99_{players}": 0.5,
        }
    text = document.render(Results([run("ours", 1, metrics=metrics)]), "chart.svg")["scale"]
    assert "one core carries 1,000 players" in text
    assert "| 1/16 core, 256 MB | 37 | 8,100 | **37** |" in text


def test_the_chart_is_well_formed() -> None:
    """Whatever the names are; an empty panel is no harm."""
    bars = [chart.Bar("a<b", 2.0, ours=True), chart.Bar("c", 0.0)]
    root = ET.fromstring(chart.draw([chart.Panel("x & y", bars), chart.Panel("none", [])]))
    assert len([element for element in root.iter() if element.tag.endswith("rect")]) == 2
