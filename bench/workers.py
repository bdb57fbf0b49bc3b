"""Functions in processes of their own: generators and sinks must not share an interpreter.

They are forked, so that a worker begins at once, and takes sockets and closures along.
The bench has no threads that a fork could leave behind.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any, Generic, Self, TypeVar

from . import procfs
from .errors import BenchError

_T = TypeVar("_T")
_fork = multiprocessing.get_context("fork")


class Worker(Generic[_T]):
    """Runs `function(*arguments)` in a new process."""

    def __init__(self, function: Callable[..., _T], *arguments: Any) -> None:
        self._name = function.__name__
        self._pipe, theirs = _fork.Pipe(duplex=False)
        self._process = _fork.Process(target=_run, args=(theirs, function, arguments))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def wait(self, seconds: float) -> bool:
        """Wait for at most so long. Returns whether it has ended."""
        return self._pipe.poll(seconds)

    def result(self, deadline: float) -> _T:
        """What the function returned. Raises what it raised, and BenchError after `deadline` seconds."""
        try:
            if not self._pipe.poll(deadline):
                raise BenchError(f"{self._name} did not end within {deadline:.0f} s")
            value, error = self._pipe.recv()
        except EOFError as exc:
            raise BenchError(f"{self._name} ended without a result") from exc
        finally:
            self.stop()
        if error is not None:
            raise error
        result: _T = value
        return result

    def stop(self) -> None:
        """End it, and what it started, if it has not ended."""
        if self._process.is_alive():
            end((self.pid,))
        self._process.join()
        self._pipe.close()


def call(deadline: float, function: Callable[..., _T], *arguments: Any) -> _T:
    """Run `function(*arguments)` in a new process and wait for what it returns."""
    return Worker(function, *arguments).result(deadline)


def end(roots: Iterable[int]) -> None:
    """Kill `roots` and their descendants."""
    for pid in procfs.family(roots, procfs.all_stats()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _run(pipe: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    answer: tuple[object, BaseException | None]
    try:
        answer = function(*arguments), None
    except BenchError as exc:
        answer = None, exc
    except BlockingIOError:
        answer = None, BenchError(f"{function.__name__}: a connection made no progress until its timeout")
    except OSError as exc:
        answer = None, BenchError(f"{function.__name__}: {exc}")
    except Exception:  # noqa: BLE001 — a bug of the bench, told in the parent with where it is
        answer = None, RuntimeError(traceback.format_exc())
    pipe.send(answer)
    pipe.close()
