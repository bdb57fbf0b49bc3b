"""How a service is run and stopped, also where event loops know no signals."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from tunnel_core.errors import TunnelError, UsageError
from tunnel_core.service import run


class Service:
    """Sends its own process signals, and counts."""

    def __init__(self, *numbers: signal.Signals, error: TunnelError | None = None) -> None:
        self.failed: asyncio.Future[TunnelError] = asyncio.get_running_loop().create_future()
        self._numbers = numbers
        self._error = error
        self.stops = 0

    async def start(self) -> None:
        if self._error is not None:
            self.failed.set_result(self._error)
        for number in self._numbers:
            os.kill(os.getpid(), number)

    async def stop(self) -> None:
        await asyncio.sleep(0)  # what else was sent is handled now
        self.stops += 1


@pytest.fixture(params=["posix", "windows"])
def kind_of_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stock asyncio, as it is here and as it is on Windows."""

    def not_here(*_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(run, "_new_loop", None)
    if request.param == "windows":
        monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", not_here)
        monkeypatch.setattr(asyncio.SelectorEventLoop, "remove_signal_handler", not_here)
    return str(request.param)


TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


@pytest.mark.parametrize(
    "numbers",
    [(TERM,), (INT,), (HUP,), (HUP, HUP), (TERM, HUP), (HUP, TERM)],
    ids=lambda numbers: " ".join(number.name for number in numbers),
)
def test_a_signal_stops_a_service(kind_of_loop: str, numbers: tuple[signal.Signals, ...]) -> None:
    """Once, in order, with exit code 0: a closed terminal sends SIGHUP more than once, and is not impatient."""
    made: list[Service] = []

    def make() -> Service:
        made.append(Service(*numbers))
        return made[0]

    before = [signal.getsignal(number) for number in numbers]
    assert run.serve(make) == 0
    assert made[0].stops == 1
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_service_that_is_to_outlive_its_terminal(kind_of_loop: str) -> None:
    """Started by `nohup`, it goes on ignoring SIGHUP."""
    before = signal.signal(HUP, signal.SIG_IGN)
    try:
        terminated: list[bool] = []

        def terminate() -> None:
            terminated.append(True)
            os.kill(os.getpid(), TERM)

        def make() -> Service:
            asyncio.get_running_loop().call_later(0.05, terminate)
            return Service(HUP)

        assert run.serve(make) == 0
        assert terminated
        assert signal.getsignal(HUP) is signal.SIG_IGN
    finally:
        signal.signal(HUP, before)


@pytest.mark.parametrize("error", [TunnelError("broken"), UsageError("wrong")])
def test_a_service_that_cannot_go_on_is_stopped(kind_of_loop: str, error: TunnelError) -> None:
    """And its error gives the exit code: 1 for what broke, 2 for what was said wrong."""
    made: list[Service] = []

    def make() -> Service:
        made.append(Service(error=error))
        return made[0]

    assert run.serve(make) == error.exit_code
    assert made[0].stops == 1


def test_a_service_that_cannot_be_made(kind_of_loop: str) -> None:
    """Nothing has been started, so nothing is stopped."""

    def make() -> Service:
        raise UsageError("wrong")

    assert run.serve(make) == 2
