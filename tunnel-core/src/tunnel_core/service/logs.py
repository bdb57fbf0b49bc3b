"""Structured logs on standard error: JSON lines, or readable ones on a terminal.

Logs record events, never frames, and ids, never keys or tokens. A line that cannot be written
(full disk, closed pipe) is dropped: logging must not stop a service.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

from .settings import choice, setting

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "json", "console")

# Lines that one key of a Throttle may write at once (250 streams of a token, opened or resumed together,
# write 500 at the relay), and then per second: some 400 MB a day.
KEY_AT_ONCE: Final = 1000
KEY_PER_SECOND: Final = 20.0
# All keys together: at most 4 GB a day.
ALL_AT_ONCE: Final = 10_000
ALL_PER_SECOND: Final = 200.0
MAX_KEYS: Final = 1024  # with a bucket of their own: 200 KiB

Logger = structlog.typing.FilteringBoundLogger


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """The log settings of every service."""

    log_level: str = setting("info", "lowest level to log", parse=choice(*LEVELS), metavar="LEVEL")
    log_format: str = setting(
        "auto", "json, console, or auto: console on a terminal", parse=choice(*FORMATS), metavar="FORMAT"
    )


class _Output:
    """The logger behind structlog's. Writes each line at once, and swallows errors of the device."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def msg(self, message: str) -> None:
        try:
            self._file.write(message + "\n")
            self._file.flush()
        except (OSError, ValueError):
            pass  # there is no place left to report it

    debug = info = warning = error = critical = msg


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    head = {name: event.pop(name) for name in ("timestamp", "level", "service", "event") if name in event}
    return _encode({**head, **event}).decode()


_encode = msgspec.json.Encoder(enc_hook=str).encode


class _FromStandardLibrary(logging.Handler):
    """Routes warnings of libraries into the same log."""

    def emit(self, record: logging.LogRecord) -> None:
        log: Logger = structlog.get_logger()
        error = record.exc_info[1] if record.exc_info else None
        fields = {"error": f"{type(error).__name__}: {error}"} if error is not None else {}
        log.log(record.levelno, record.getMessage(), logger=record.name, **fields)


def configure(service: str, *, level: str, style: str, file: TextIO | None = None) -> None:
    """Make this process log as `service`. `style` is one of FORMATS; `auto` is console on a terminal."""
    # `sys.stderr` is None if the process was started without one.
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
            _named(service) if not console else _printable,
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


def _printable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape terminal control sequences: peers choose the text of their reasons."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = value.encode("unicode_escape").decode()
    return event


class _Bucket:
    """A token bucket of lines: holds up to `most`, refilled at `rate` a second."""

    __slots__ = ("_left", "_most", "_rate", "_when", "suppressed")

    def __init__(self, most: int, rate: float, now: float) -> None:
        self._most = most
        self._rate = rate
        self._left = float(most)
        self._when = now
        self.suppressed = 0  # lines dropped since the last one written

    def left(self, now: float) -> float:
        """Refill up to `now`. Returns how many lines may be written."""
        self._left = min(self._most, self._left + (now - self._when) * self._rate)
        self._when = now
        return self._left

    def take(self) -> None:
        self._left -= 1


class _Budget:
    """The buckets of all keys, and one for all of them together."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        now = clock()
        self._all = _Bucket(ALL_AT_ONCE, ALL_PER_SECOND, now)
        self._others = _Bucket(KEY_AT_ONCE, KEY_PER_SECOND, now)  # shared by keys beyond MAX_KEYS
        self._keys: OrderedDict[str, _Bucket] = OrderedDict()  # least recently used first

    def take(self, key: str) -> int | None:
        """Account for one line of `key`. Returns how many were suppressed before it; None: suppress it as well."""
        now = self._clock()
        bucket = self._bucket(key, now)
        if bucket.left(now) < 1 or self._all.left(now) < 1:
            bucket.suppressed += 1
            return None
        bucket.take()
        self._all.take()
        suppressed, bucket.suppressed = bucket.suppressed, 0
        return suppressed

    def _bucket(self, key: str, now: float) -> _Bucket:
        bucket = self._keys.get(key)
        if bucket is None:
            if len(self._keys) >= MAX_KEYS:
                # A key whose bucket is full again can be forgotten. One that is still in use keeps its own.
                oldest = next(iter(self._keys.values()))
                if oldest.left(now) < KEY_AT_ONCE:
                    return self._others
                self._keys.popitem(last=False)
                self._others.suppressed += oldest.suppressed
            bucket = self._keys[key] = _Bucket(KEY_AT_ONCE, KEY_PER_SECOND, now)
        self._keys.move_to_end(key)
        return bucket


class Throttle:
    """A rate-limited logger for lines that peers can cause, so that they cannot fill a disk.

    Each key (such as a token's id) may write `KEY_AT_ONCE` lines, and then `KEY_PER_SECOND`; all keys
    together `ALL_AT_ONCE` and `ALL_PER_SECOND`. A key's next line says how many were dropped, as `suppressed`.
    Loggers made by `by` and `bind` share their parent's budget. Debug and error lines always pass.
    """

    def __init__(
        self, log: Logger, clock: Callable[[], float] = time.monotonic, *, budget: _Budget | None = None, key: str = ""
    ) -> None:
        self._log = log if budget is not None else log.bind()  # or it would be bound for each line
        self._clock = clock
        self._budget = budget or _Budget(clock)
        self._key = key

    def by(self, key: str) -> Throttle:
        """The same log for the lines of `key`."""
        return Throttle(self._log, self._clock, budget=self._budget, key=key)

    def bind(self, **fields: Any) -> Throttle:
        """The same log, with these fields in every line."""
        return Throttle(self._log.bind(**fields), self._clock, budget=self._budget, key=self._key)

    def debug(self, event: str, **fields: Any) -> None:
        self._log.debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        if self._log.is_enabled_for(logging.INFO):
            self._write(self._log.info, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write(self._log.warning, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._log.error(event, **fields)

    def _write(self, write: Callable[..., Any], event: str, fields: dict[str, Any]) -> None:
        suppressed = self._budget.take(self._key)
        if suppressed is not None:
            write(event, **fields, **({"suppressed": suppressed} if suppressed else {}))


def get() -> Logger:
    """The process's logger. Bind the fields that an object's lines share."""
    log: Logger = structlog.get_logger()
    return log
