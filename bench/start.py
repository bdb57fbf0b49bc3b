"""Brings a subject up, and makes sure that it carries what it should."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from .errors import BenchError
from .load import legs, sink, streams
from .load.streams import Address
from .stage import LOOPBACK, Stage
from .subject import Relay, Running, Subject
from .workers import Worker, call

INTACT = 4 << 20  # bytes that are echoed and compared before anything is measured
SETTLE = 0.3  # seconds between start and the first figure: warm legs are dialed


@contextlib.contextmanager
def started(subject: Subject, far: str = LOOPBACK) -> Iterator[Running]:
    """The subject up, its content verified, and a sink behind it."""
    with Stage(far) as stage, sink.listen(stage.listen) as listener, Worker(sink.serve, listener):
        address = subject.start(stage, listener.getsockname()[1])
        if isinstance(subject, Relay):
            stage.wait_listening(address[1])
            legs.intact(address, INTACT)
        else:
            stage.wait(lambda: _echoes(address), "an echo")
            call(60, streams.echo_intact, address, INTACT)
        time.sleep(SETTLE)
        yield Running(subject, stage, address)


def _echoes(address: Address) -> bool:
    with contextlib.suppress(OSError, BenchError), streams.connect(address, sink.ECHO):
        return True
    return False
