"""Runs a service: the event loop, signals and exit codes.

Exit codes: 0 after SIGTERM, SIGINT or SIGHUP, 1 for failures, 2 for usage errors. The first signal
shuts down in order; a second SIGTERM or SIGINT exits at once.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from ..errors import TunnelError
from . import logs

_TOKEN: Final = re.compile(r"\beyJ[\w.-]{20,}")
MANY_DESCRIPTORS: Final = 1 << 20  # more than any of our services can use

if sys.platform != "win32":
    import resource

try:
    import uvloop

    _new_loop: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
except ImportError:  # Windows, or not installed: everything works without it
    _new_loop = None


class Service(Protocol):
    """The constructor wires, `start` serves, `stop` shuts down in a stated order."""

    failed: asyncio.Future[TunnelError]
    """Set when the service cannot continue."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


def loop_name() -> str:
    """Which event loop `serve` uses."""
    return "asyncio" if _new_loop is None else "uvloop"


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files as far as allowed, and return it."""
    if sys.platform == "win32":
        return MANY_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MANY_DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def serve(make: Callable[[], Service], failed: Callable[[TunnelError], None] | None = None) -> int:
    """Run the service that `make` creates inside the loop until a signal. Returns the exit code.

    `failed` reports an error that ends it; by default it is logged.
    """
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_serve(make, failed or _log_failure))


def _log_failure(error: TunnelError) -> None:
    logs.get().error("stopped", reason=str(error))


def complete(main: Callable[[], Coroutine[None, None, int]]) -> int:
    """Run a command to completion. Returns its exit code."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main())


async def _serve(make: Callable[[], Service], failed: Callable[[TunnelError], None]) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unexpected)
    raise_descriptor_limit()
    stop = asyncio.Event()
    restore = _on_signals(loop, stop)
    try:
        service = make()
        service.failed.add_done_callback(lambda _: stop.set())
        try:
            await service.start()
            await stop.wait()
        finally:
            await service.stop()
        if service.failed.done():
            raise service.failed.result()
    except TunnelError as exc:
        failed(exc)
        return exc.exit_code
    finally:
        restore()
    logs.get().info("stopped")
    return 0


def _on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Callable[[], None]:
    """Set `stop` on a signal to stop. Returns a function that restores the previous handlers."""
    asked = False

    def terminate() -> None:
        nonlocal asked
        if asked:
            os._exit(1)  # the second request: skip the orderly shutdown
        asked = True
        stop.set()

    # A closed terminal is not a second request: kernel, shell and terminal may each send SIGHUP,
    # and exiting at once would look like end of data to the applications.
    handlers = {signal.SIGTERM: terminate, signal.SIGINT: terminate} | dict.fromkeys(_hang_ups(), stop.set)
    try:
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
    except NotImplementedError:  # Windows
        before = {number: signal.signal(number, _in_loop(loop, handlers[number])) for number in handlers}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore

    def remove() -> None:
        for number in handlers:
            loop.remove_signal_handler(number)

    return remove


def _hang_ups() -> list[signal.Signals]:
    """The signals of a closed terminal, except those that are ignored (`nohup`)."""
    known = [signal.Signals[name] for name in ("SIGHUP", "SIGBREAK") if hasattr(signal, name)]  # SIGBREAK: Windows
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]


def _in_loop(loop: asyncio.AbstractEventLoop, handler: Callable[[], None]) -> Callable[..., object]:
    return lambda *_: loop.call_soon_threadsafe(handler)


def _unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log a bug with its location. One stream may suffer; the process continues."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        logs.get().error("out of file descriptors", hint="raise the limit of open files (ulimit -n)")
        return
    where = ""
    if error is not None and error.__traceback__ is not None:
        frame = error.__traceback__
        while frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}"
    logs.get().error("bug", what=context.get("message"), error=f"{type(error).__name__}: {error}", where=where)


def command(main: Callable[[list[str]], int]) -> None:
    """The outermost frame of a command: prints errors as one line, and exits with their code."""
    try:
        code = main(sys.argv[1:])
    except TunnelError as exc:
        # The message may quote a token that was put in the wrong place.
        print(f"{os.path.basename(sys.argv[0])}: {_TOKEN.sub('eyJ…', str(exc))}", file=sys.stderr)
        code = exc.exit_code
    except KeyboardInterrupt:
        code = 1
    except BrokenPipeError:  # the reader of our output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
