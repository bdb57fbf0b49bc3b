"""Breaking real processes, and looking whether they are whole again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from demo.processes import Process, Tunnel
from support.wire import Wire


class WireThread:
    """A Wire that runs beside a test that waits: each call is carried out in its event loop."""

    def __init__(self, port: int = 0) -> None:
        self._loop = asyncio.new_event_loop()
        self._wire = Wire(port)
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._wire.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._wire.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        return self._wire.port

    @property
    def carried(self) -> int:
        return self._wire.carried

    def lead_to(self, port: int) -> None:
        """Carry new connections to this port."""
        self._wire.target = port

    def cut(self) -> None:
        self._call(self._wire.cut)

    def freeze(self) -> None:
        self._call(self._wire.freeze)

    def thaw(self) -> None:
        self._call(self._wire.thaw)

    def _call(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        self._run(call())

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


def wait_until(condition: Callable[[], object], patience: float = 30.0) -> None:
    """Wait for a condition, with a generous deadline."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def metric(process: Process, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    _, text = process.get("/metrics")
    families = text_string_to_metric_families(text)
    samples = (sample for family in families for sample in family.samples if sample.name == name)
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def descriptors(process: Process) -> int:
    """Open file descriptors of a process."""
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def at_rest(tunnel: Tunnel, patience: float = 30.0) -> None:
    """Wait until nothing is left of any stream, in any process."""
    for agent in (tunnel.host, tunnel.client):
        wait_until(lambda agent=agent: metric(agent, "tunnel_agent_streams") == 0, patience)  # type: ignore[misc]
        wait_until(lambda agent=agent: metric(agent, "tunnel_agent_replay_memory_bytes") == 0, patience)  # type: ignore[misc]
        assert agent.events("bug") == []
    wait_until(lambda: metric(tunnel.relay, "relay_waiting_clients") == 0, patience)
    assert tunnel.relay.events("bug") == []


class Leaks:
    """Compares what each process holds before and after: descriptors, tasks, and the relay's legs.

    Some warm legs more or less are no leak. Streams and replay bytes are for `at_rest`.
    """

    SLACK = 12  # of an agent: warm legs, a pair that is free, a dial under way
    TASKS = 4  # a dial under way, the scrape itself

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._bound = {name: count + slack for name, (count, slack) in self._look().items()}

    def _look(self) -> dict[str, tuple[float, int]]:
        """What there is now, and how much more is no leak."""
        relay, *agents = self._tunnel.relay, self._tunnel.host, self._tunnel.client
        found: dict[str, tuple[float, int]] = {
            "the relay's legs": (metric(relay, "relay_legs"), len(agents) * self.SLACK),
            "the relay's descriptors": (descriptors(relay), len(agents) * self.SLACK),
        }
        found |= {f"the {agent.name}'s descriptors": (descriptors(agent), self.SLACK) for agent in agents}
        for process in (relay, *agents):
            # The role, since in a roll one relay takes another's place.
            name = "relay" if process is relay else process.name
            found[f"the {name}'s tasks"] = metric(process, "tunnel_asyncio_tasks"), self.TASKS
        return found

    def check(self, patience: float = 60.0) -> None:
        """Fail if they do not come back to where they were."""
        deadline = time.monotonic() + patience
        while True:
            try:
                now = {name: count for name, (count, _) in self._look().items()}
            except OSError as exc:  # a process that has no descriptor for an answer yet
                over = str(exc)
            else:
                many = {name: (count, self._bound[name]) for name, count in now.items() if count > self._bound[name]}
                over = f"as (is, bound): {many}" if many else ""
            if not over:
                return
            assert time.monotonic() < deadline, f"more than may be: {over}"
            time.sleep(0.1)
