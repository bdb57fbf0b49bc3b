"""Structured logs on standard error: JSON lines, or the same events for people on a terminal.

Events are logged, never frames; ids, never keys or tokens. A line that cannot be written
(a full disk, a closed pipe) is dropped: logging must not stop a service.
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

# Lines that one key of a Throttle may write at once: a token's 250 streams, opened or resumed together,
# are 500 at the relay. Later lines a second: some 400 MB a day.
KEY_AT_ONCE: Final = 1000
KEY_PER_SECOND: Final = 20.0
# All keys together: at most 4 GB a day.
ALL_AT_ONCE: Final = 10_000
ALL_PER_SECOND: Final = 200.0
MAX_KEYS: Final = 1024  # that are told apart: 200 KiB

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
    """Escape what a terminal would obey: peers choose the reasons that they give."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = value.encode("unicode_escape").decode()
    return event


class _Bucket:
    """Lines that may be written: up to `most`, of which `rate` a second come back."""

    __slots__ = ("_left", "_most", "_rate", "_when", "suppressed")

    def __init__(self, most: int, rate: float, now: float) -> None:
        self._most = most
        self._rate = rate
        self._left = float(most)
        self._when = now
        self.suppressed = 0  # lines since the last that was written

    def left(self, now: float) -> float:
        """Fill up to `now`. How many lines may be written."""
        self._left = min(self._most, self._left + (now - self._when) * self._rate)
        self._when = now
        return self._left

    def take(self) -> None:
        self._left -= 1


class _Budget:
    """How much each key may write, and all together."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        now = clock()
        self._all = _Bucket(ALL_AT_ONCE, ALL_PER_SECOND, now)
        self._others = _Bucket(KEY_AT_ONCE, KEY_PER_SECOND, now)  # keys for which there is no room
        self._keys: OrderedDict[str, _Bucket] = OrderedDict()  # the one used last comes last

    def take(self, key: str) -> int | None:
        """Account for one line of `key`: the number of its lines suppressed before this one; None: suppress it too."""
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
                # A key whose bucket is full again is as good as new. A key that is still in use keeps its own.
                oldest = next(iter(self._keys.values()))
                if oldest.left(now) < KEY_AT_ONCE:
                    return self._others
                self._keys.popitem(last=False)
                self._others.suppressed += oldest.suppressed
            bucket = self._keys[key] = _Bucket(KEY_AT_ONCE, KEY_PER_SECOND, now)
        self._keys.move_to_end(key)
        return bucket


class Throttle:
    """A logger for lines that somebody else can cause: no flood of theirs fills a disk.

    Each key (a token's id, say) may write `KEY_AT_ONCE` lines, and from then on `KEY_PER_SECOND`; all keys
    together `ALL_AT_ONCE` and `ALL_PER_SECOND`. The next line of the key that is written says as `suppressed`
    how many before it were not. What is made by `by` and `bind` shares the budget of what it was made from.
    Debug and error lines always pass.
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
    """The logger. Bind what an object's lines have in common."""
    log: Logger = structlog.get_logger()
    return log
