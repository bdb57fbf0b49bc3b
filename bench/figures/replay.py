"""What it costs to keep what a resume may have to send again."""

from __future__ import annotations

from ..load import streams
from ..start import started
from ..subject import Running
from ..summary import median
from ..tunnels.ours import Ours, without_replay
from ..workers import call
from .figure import Figure, Goal, Metric, Pace, Values

TURNS = 12
SECONDS = 0.5  # of a turn
WARM = 0.15


def measure(running: Running, pace: Pace) -> Values:
    """Ratios to agents that keep nothing, which are up at the same time and carry in turns with ours.

    What other guests of the machine do to its caches changes within seconds, by more than what
    is looked for here: only neighbours in time can be compared.
    """
    assert isinstance(running.subject, Ours), "see `suits`"
    ratios: dict[str, list[float]] = {"down": [], "up": [], "cpu_down": [], "cpu_up": []}
    with started(without_replay(running.subject)) as forgetful:
        for turn in range(max(2, round(pace.scale * TURNS))):
            for way in ("down", "up"):
                order = (running, forgetful) if turn % 2 else (forgetful, running)
                rates = {one.subject.name: _rate(one, way) for one in order}
                ours, theirs = rates[running.subject.name], rates[forgetful.subject.name]
                ratios[way].append(ours.per_second / theirs.per_second)
                ratios[f"cpu_{way}"].append(ours.cpu_each / theirs.cpu_each)
    return {name: median(values) or 0.0 for name, values in ratios.items()}


def _rate(running: Running, way: str) -> streams.Rate:
    probe = running.stage.cpu
    if way == "down":
        return call(60, streams.download, running.address, 1, SECONDS, probe, WARM)
    return call(60, streams.upload, running.address, SECONDS, probe, WARM)


REPLAY = Figure(
    "replay",
    "Bulk, one stream, to agents that keep nothing",
    (
        Metric("down", "down", "×", more=True, digits=2),
        Metric("up", "up", "×", more=True, digits=2),
        Metric("cpu_down", "CPU a GB down", "×", digits=2),
        Metric("cpu_up", "CPU a GB up", "×", digits=2),
    ),
    measure,
    (
        Goal("down", 0.95, at_least=True),
        Goal("up", 0.95, at_least=True),
        Goal("cpu_down", 1.05),
        Goal("cpu_up", 1.05),
    ),
    suits=lambda subject: isinstance(subject, Ours),
    fresh=True,
)
