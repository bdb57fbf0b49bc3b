"""Structured logs on standard error: JSON lines, or the same events for people on a terminal.

Events are logged, never frames; ids, never keys or tokens. A line that cannot be written
(a full disk, a closed pipe) is dropped: logging must not stop a service.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

from .settings import choice, setting

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "json", "console")

Logger = structlog.typing.FilteringBoundLogger


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Of every service."""

    log_level: str = setting("info", "least level that is logged", parse=choice(*LEVELS), metavar="LEVEL")
    log_format: str = setting(
        "auto", "json, console, or auto: console on a terminal", parse=choice(*FORMATS), metavar="FORMAT"
    )


class _Output:
    """The logger behind structlog's: one write a line, and an error of the device is swallowed."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def msg(self, message: str) -> None:
        try:
            self._file.write(message + "\n")
            self._file.flush()
        except (OSError, ValueError):
            pass  # nowhere is left to say so

    debug = info = warning = error = critical = msg


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    head = {name: event.pop(name) for name in ("timestamp", "level", "service", "event") if name in event}
    return _encode({**head, **event}).decode()


_encode = msgspec.json.Encoder(enc_hook=str).encode


class _FromStandardLibrary(logging.Handler):
    """Brings warnings of libraries into the same log."""

    def emit(self, record: logging.LogRecord) -> None:
        log: Logger = structlog.get_logger()
        error = record.exc_info[1] if record.exc_info else None
        fields = {"error": f"{type(error).__name__}: {error}"} if error is not None else {}
        log.log(record.levelno, record.getMessage(), logger=record.name, **fields)


def configure(service: str, *, level: str, style: str, file: TextIO | None = None) -> None:
    """Set the process up to log as `service`. `style` is one of FORMATS; `auto` is console on a terminal."""
    # A process that was started without a standard error has None there.
    output = file or cast("TextIO | None", sys.stderr) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (for good)
    console = style == "console" or (style == "auto" and output.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: structlog.typing.Processor
    renderer = structlog.dev.ConsoleRenderer(colors=output.isatty(), pad_event_to=24) if console else _json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True)
            if not console
            else structlog.processors.TimeStamper("%H:%M:%S", utc=False),
            structlog.processors.EventRenamer("event"),
            _named(service) if not console else _unchanged,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Output(output),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_FromStandardLibrary()]
    root.setLevel(logging.WARNING)


def _named(service: str) -> structlog.typing.Processor:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add


def _unchanged(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return event


class Throttle:
    """A logger that lets so many warnings a second through: strangers must not fill the disk."""

    def __init__(self, log: Logger, per_second: int = 20, clock: Callable[[], float] = time.monotonic) -> None:
        self.debug = log.debug
        self.info = log.info
        self.error = log.error
        self._log = log
        self._per_second = per_second
        self._clock = clock
        self._since = 0.0
        self._passed = 0
        self._kept_back = 0

    def warning(self, event: str, **fields: Any) -> None:
        """Log a warning, or count it: the next that passes tells how many were kept back before it."""
        now = self._clock()
        if now - self._since >= 1:
            self._since = now
            self._passed = 0
        if self._passed >= self._per_second:
            self._kept_back += 1
            return
        self._passed += 1
        if self._kept_back:
            fields["kept_back"], self._kept_back = self._kept_back, 0
        self._log.warning(event, **fields)


def get() -> Logger:
    """The logger. Bind what an object's lines have in common."""
    log: Logger = structlog.get_logger()
    return log
