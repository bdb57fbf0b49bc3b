"""What it costs to keep what a resume may have to send again."""

from __future__ import annotations

from ..load import streams
from ..start import started
from ..subject import Running
from ..summary import midmean
from ..tunnels.ours import Ours, WithoutReplay
from ..workers import call
from .figure import Figure, Goal, Metric, Pace, Values

STARTS = 4  # as a start may have a lucky memory layout
TURNS = 4  # of each
SECONDS = 0.5  # of a turn
WARM = 0.15


def measure(running: Running, pace: Pace) -> Values:
    """Ratios to agents that keep nothing, which are up at the same time and carry in turns with ours.

    What other guests of the machine do to its caches changes within seconds, by more than what
    is looked for here: only neighbours in time can be compared.
    """
    subject = running.subject
    assert isinstance(subject, Ours), "see `suits`"
    ratios: dict[str, list[float]] = {"down": [], "up": [], "cpu_down": [], "cpu_up": []}
    for _ in range(1 if pace.quick else STARTS):
        with started(subject) as ours, started(WithoutReplay(**vars(subject))) as forgetful:
            for turn in range(TURNS):
                for way in ("down", "up"):
                    if turn % 2:
                        kept, not_kept = _rate(ours, way), _rate(forgetful, way)
                    else:
                        not_kept, kept = _rate(forgetful, way), _rate(ours, way)
                    ratios[way].append(kept.per_second / not_kept.per_second)
                    ratios[f"cpu_{way}"].append(kept.cpu_each / not_kept.cpu_each)
    return {name: midmean(values) for name, values in ratios.items()}


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
)
