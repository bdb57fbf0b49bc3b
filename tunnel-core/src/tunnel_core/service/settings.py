"""Settings from flags, environment variables and files.

Each service declares its settings as a frozen dataclass of `setting(...)` fields. A field is
a flag (`--admin-port`), an environment variable (`RELAY_ADMIN_PORT`), and a variable that
names a file (`RELAY_ADMIN_PORT_FILE`), in this order of precedence.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, overload

from ..errors import UsageError
from . import textfile

_T = TypeVar("_T")
_KEY: Final = "setting"
_MISSING: Final = object()


@dataclasses.dataclass(frozen=True, slots=True)
class _Setting:
    about: str
    parse: Callable[[str], Any]
    metavar: str
    shown: str  # the default, as the help shows it
    also: tuple[str, ...]  # further environment variables, tried after the setting's own
    repeat: bool
    separator: str | None  # of the values in the variable, where the flag repeats; None: white space
    file_flag: bool
    switch: bool

    def values_in(self, text: str) -> list[str]:
        """The values in a variable or a file."""
        if not self.repeat:
            return [text]
        return [value for value in map(str.strip, text.split(self.separator)) if value]


class Secret:
    """A value given as text or in a file. The file is read each time, so the value can be renewed.

    A repeatable secret may be given as both: the lines of the text, then those of the file.
    """

    def __init__(self, text: str = "", path: Path | None = None) -> None:
        self._text = text
        self._path = path

    def __bool__(self) -> bool:
        return bool(self._text or self._path)

    def __repr__(self) -> str:
        return "Secret(…)"

    def read(self) -> str:
        """The value. Raises UsageError if the file cannot be read or is empty."""
        if self._path is None:
            return self._text
        return f"{self._text}\n{_read_file(self._path)}" if self._text else _read_file(self._path)


def _read_file(path: Path) -> str:
    try:
        text = textfile.read(str(path))
    except (OSError, ValueError) as exc:
        raise UsageError(f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    if not text:
        raise UsageError(f"{path} is empty")
    return text


@overload
def setting(
    default: _T,
    about: str,
    *,
    parse: Callable[[str], _T],
    metavar: str = ...,
    shown: str = ...,
    also: tuple[str, ...] = ...,
) -> _T: ...
@overload
def setting(
    default: Secret,
    about: str,
    *,
    parse: Callable[[str], Secret],
    repeat: bool,
    metavar: str = ...,
) -> Secret: ...
@overload
def setting(
    default: tuple[_T, ...],
    about: str,
    *,
    parse: Callable[[str], _T],
    repeat: bool,
    lines: bool = ...,
    metavar: str = ...,
    shown: str = ...,
) -> tuple[_T, ...]: ...
def setting(
    default: Any,
    about: str,
    *,
    parse: Callable[[str], Any],
    metavar: str = "",
    shown: str = "",
    also: tuple[str, ...] = (),
    repeat: bool = False,
    lines: bool = False,
) -> Any:
    """A field of a settings dataclass. `repeat`: the flag may come again, the variable lists words, or `lines`."""
    shown = shown or ("" if default in ((), "", None) or isinstance(default, Secret) else f"{default}")
    separator = "\n" if lines else None
    described = _Setting(
        about, parse, metavar, shown, also, repeat, separator, isinstance(default, Secret), parse is flag
    )
    return dataclasses.field(default=default, metadata={_KEY: described})


# Parsers. Each raises UsageError with what is wrong and what to write.


def text(value: str) -> str:
    return value


def flag(value: str) -> bool:
    if value.lower() in ("1", "true", "yes", "on", ""):
        return True
    if value.lower() in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"'{value}' is not a switch: write true or false")


def secret(value: str) -> Secret:
    if not value.strip():
        raise UsageError("there is nothing in it but white space")
    return Secret(value)


def choice(*values: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in values:
            raise UsageError(f"'{value}' is not one of {', '.join(values)}")
        return value

    return parse


def count(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not lowest <= int(value) <= highest:
            raise UsageError(f"'{value}' is not a number from {lowest} to {highest}")
        return int(value)

    return parse


_UNITS: Final = {"": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30}


def size(lowest: int, highest: int) -> Callable[[str], int]:
    """Bytes, with an optional unit: `256MiB`."""

    def parse(value: str) -> int:
        match = re.fullmatch(r"(\d{1,15})\s*([a-z]*)", value.lower())
        if match is None or match[2] not in _UNITS:
            raise UsageError(f"'{value}' is not a size: write bytes, or a number and KiB, MiB or GiB")
        result = int(match[1]) * _UNITS[match[2]]
        if not lowest <= result <= highest:
            raise UsageError(f"'{value}' is not a size from {show_size(lowest)} to {show_size(highest)}")
        return result

    return parse


def show_size(size: int) -> str:
    """A size as `size` reads it back."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds(lowest: float, highest: float) -> Callable[[str], float]:
    """A duration, with an optional unit: `90`, `1.5m`, `7d`."""

    def parse(value: str) -> float:
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhdw]?)", value.lower())
        if match is None:
            raise UsageError(f"'{value}' is not a duration: write seconds, or a number and s, m, h, d or w")
        result = float(match[1]) * _SECONDS[match[2]]
        if not lowest <= result <= highest or math.isnan(result):
            raise UsageError(f"'{value}' is not a duration from {lowest:g} to {highest:g} seconds")
        return result

    return parse


def show_duration(seconds: float) -> str:
    """A duration for people, in its largest fitting unit: `90 s`, `2.5 h`, `7 days`."""
    for unit, factor in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * factor:
            return f"{round(seconds / factor, 1):g} {unit}"
    return f"{seconds:.0f} s"


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]  # one of three
        # argparse would take the value of an unknown flag for a command, and complain of that.
        known = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  (it has no public name)
                known.update(*(command._option_string_actions for command in action.choices.values()))  # noqa: SLF001
        for word in args:
            if word.startswith("--") and word.partition("=")[0] not in known:
                self.error(f"unrecognized arguments: {word.partition('=')[0]}")  # its value may be a token
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help with room for the longest flag."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


def parser(prog: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """A parser whose errors are one line, raised as UsageError."""
    epilog += "\n\nEach variable has a twin that ends in _FILE and names a file with the value."
    return _Parser(prog=prog, description=description, epilog=epilog, formatter_class=Formatter, allow_abbrev=False)


def health_comes_first(prog: str) -> UsageError:
    """What to say to `prog --some-flag health`: that command has its own flags, and is answered before all others."""
    return UsageError(f"write health first: {prog} health --admin-port PORT")


def add_flags(to: argparse.ArgumentParser, model: type, prefix: str, only: Sequence[str] = ()) -> None:
    """Add a flag for each setting of `model` (or those named), whose variables begin with `prefix`."""
    for name, described in _settings(model):
        if only and name not in only:
            continue
        kinds: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
        if described.switch:
            kinds |= {"nargs": "?", "const": "true"}
        if described.repeat:
            kinds |= {"action": "append"}
        variable = f"{prefix}_{name.upper()}"
        text = f"{described.about} [{', '.join((variable, *described.also))}]"
        if described.shown:
            text += f" (default: {described.shown})"
        metavar = described.metavar or name.rpartition("_")[2].upper()
        to.add_argument(_flag(name), metavar=metavar, help=text.replace("%", "%%"), **kinds)
        if described.file_flag:
            to.add_argument(
                _flag(name) + "-file",
                dest=name + "_file",
                metavar="FILE",
                default=argparse.SUPPRESS,
                help=f"the same, read from a file [{variable}_FILE]",
            )


def load(model: type[_T], prefix: str, flags: argparse.Namespace, environ: Mapping[str, str]) -> _T:
    """Make the settings of `model` from parsed flags, the environment and the defaults. Raises UsageError."""
    values = {}
    for name, described in _settings(model):
        value = _value(name, described, prefix, vars(flags), environ)
        if value is not _MISSING:
            values[name] = value
    return model(**values)


def _value(name: str, described: _Setting, prefix: str, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    if described.file_flag and described.repeat:
        variable = f"{prefix}_{name.upper()}"
        lines, path = flags.get(name, ()), flags.get(name + "_file")
        if not lines and path is None:
            lines, path = [environ.get(variable, "")], environ.get(variable + "_FILE")
        return Secret("\n".join(lines), Path(path) if path else None)
    if name in flags:
        words: Sequence[str] = flags[name] if described.repeat else [flags[name]]
        return _parse(described, words, _flag(name))
    if described.file_flag and name + "_file" in flags:
        return Secret(path=Path(flags[name + "_file"]))
    variable = f"{prefix}_{name.upper()}"
    path = environ.get(variable + "_FILE")
    for source in (variable, *described.also):
        if environ.get(source):
            return _parse(described, described.values_in(environ[source]), source)
        if source is variable and path:
            if described.file_flag:
                return Secret(path=Path(path))
            return _parse(described, described.values_in(_read_file(Path(path))), f"{variable}_FILE")
    return _MISSING


def _parse(described: _Setting, words: Sequence[str], source: str) -> Any:
    try:
        values = tuple(described.parse(word) for word in words)
    except UsageError as exc:
        raise UsageError(f"{source}: {exc}") from exc
    return values if described.repeat else values[0]


def _settings(model: type) -> list[tuple[str, _Setting]]:
    assert dataclasses.is_dataclass(model), "settings are dataclasses"
    return [(field.name, field.metadata[_KEY]) for field in dataclasses.fields(model)]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
