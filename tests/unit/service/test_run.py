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
    """Sends its own process a signal, and counts."""

    def __init__(self, number: signal.Signals | None, error: TunnelError | None = None) -> None:
        self.failed: asyncio.Future[TunnelError] = asyncio.get_running_loop().create_future()
        self._number = number
        self._error = error
        self.stops = 0

    async def start(self) -> None:
        if self._error is not None:
            self.failed.set_result(self._error)
        elif self._number is not None:
            os.kill(os.getpid(), self._number)

    async def stop(self) -> None:
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_a_service(kind_of_loop: str, number: signal.Signals) -> None:
    """Once, with exit code 0; afterwards signals do what they did before."""
    made: list[Service] = []

    def make() -> Service:
        made.append(Service(number))
        return made[0]

    before = signal.getsignal(number)
    assert run.serve(make) == 0
    assert made[0].stops == 1
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("error", [TunnelError("broken"), UsageError("wrong")])
def test_a_service_that_cannot_go_on_is_stopped(kind_of_loop: str, error: TunnelError) -> None:
    """And its error gives the exit code: 1 for what broke, 2 for what was said wrong."""
    made: list[Service] = []

    def make() -> Service:
        made.append(Service(None, error))
        return made[0]

    assert run.serve(make) == error.exit_code
    assert made[0].stops == 1


def test_a_service_that_cannot_be_made(kind_of_loop: str) -> None:
    """Nothing has been started, so nothing is stopped."""

    def make() -> Service:
        raise UsageError("wrong")

    assert run.serve(make) == 2
