"""What a kill -9 of the relay costs, once it accepts connections again."""

from __future__ import annotations

import multiprocessing
import time

from ..errors import BenchError
from ..load import streams
from ..stage import accepts
from ..subject import Running
from ..summary import percentile
from ..workers import Worker
from .figure import Figure, Goal, Metric, Pace, Values

STREAMS = 200
KILLS = 3
DOWN = 0.5  # seconds that the relay stays away


def measure(running: Running, pace: Pace) -> Values:
    delays: list[float] = []
    for _ in range(1 if pace.quick else KILLS):
        delays += _kill(running)
    p50, p99 = (percentile(delays, share) * 1e3 for share in (0.5, 0.99))
    return {"p50": p50, "p99": p99, "worst": max(delays) * 1e3}


def _kill(running: Running) -> list[float]:
    """Seconds from the relay accepting again to the first byte, of each stream."""
    back, ready = multiprocessing.Value("d", 0.0), multiprocessing.Value("d", 0.0)
    with Worker(streams.answers_after, running.address, STREAMS, back, ready) as answers:
        deadline = time.monotonic() + streams.PATIENCE
        while not ready.value:
            if answers.wait(0.01) or time.monotonic() > deadline:
                break
        if not ready.value:
            answers.result(0.1)
            raise BenchError(f"{STREAMS} streams did not all answer")
        running.stage.kill("relay")
        time.sleep(DOWN)
        running.stage.restart("relay")
        while not accepts(running.stage.ports["relay"]):
            time.sleep(0.002)
            if time.monotonic() > deadline + streams.PATIENCE:
                raise BenchError("the relay did not come back")
        back.value = time.monotonic()
        return answers.result(90)


RESUME = Figure(
    "resume",
    f"kill -9 of the relay, {STREAMS} streams: data again, from when it accepts connections",
    (Metric("p50", "p50", "ms"), Metric("p99", "p99", "ms"), Metric("worst", "the last", "ms")),
    measure,
    (Goal("p99", 1000),),
    suits=lambda subject: subject.resumes,
    fresh=True,
)
