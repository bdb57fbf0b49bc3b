"""Runs tests that are coroutines, each on a fresh event loop, and system tests on both kinds of loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import warnings
from typing import Any

import hypothesis
import pytest

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment,unused-ignore]

pytest.register_assert_rewrite("support")
from support.blocking import Watch, worst  # noqa: E402  (their asserts are rewritten, too)
from support.figures import reported  # noqa: E402

# Deadlines are generous everywhere: tests judge what happens, not how fast.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True, max_examples=200)
hypothesis.settings.register_profile("more", deadline=None, print_blob=True, max_examples=1_000)
hypothesis.settings.register_profile("long", deadline=None, print_blob=True, max_examples=3_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # a proxy of whoever runs the tests has no part in them

PATIENCE = 60.0  # seconds that any one asynchronous test may take


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what takes the fixture `loop_factory` on each event loop that is installed."""
    if "loop_factory" in metafunc.fixturenames:
        loops: dict[str, Any] = {"asyncio": asyncio.new_event_loop}
        if uvloop is not None:
            loops["uvloop"] = uvloop.new_event_loop
        metafunc.parametrize("loop_factory", loops.values(), ids=loops.keys())


def pytest_collection_finish() -> None:
    """What was imported is here to stay: `gc.collect` need not look at it after each test."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures; in debug mode also what held an event loop the longest."""
    for line in [*reported(), *worst()]:
        terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test. What it leaves behind, a task or a bug that only the loop heard of, fails it."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    bugs: list[str] = []

    async def test() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: bugs.append(repr(context)))
        with Watch("pytest_pyfunc_call") if loop.get_debug() else contextlib.nullcontext() as watch:
            async with asyncio.timeout(PATIENCE):
                await pyfuncitem.obj(**arguments)
        if watch is not None:
            assert not watch.over, watch.over
        for _ in range(5):  # asyncio's own accepting of a connection takes a few turns
            await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()]
        assert not left, f"tasks left running: {left}"

    factory = arguments.get("loop_factory")
    with warnings.catch_warnings(), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(test())
    gc.collect()  # a socket left open is told of by this test, and not by a later one
    assert not bugs, bugs
    return True
