"""The command line that both agents have."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TypeVar

from .. import __version__
from ..service import logs, run, settings
from ..service.run import Service
from .doctor import Say
from .settings import AgentSettings

__all__ = ["Say", "Service", "main"]

_S = TypeVar("_S", bound=AgentSettings)


def main(
    prog: str,
    prefix: str,
    model: type[_S],
    description: str,
    epilog: str,
    make: Callable[[_S], Service],
    examine: Callable[[_S, Say], Coroutine[None, None, int]],
    arguments: Sequence[str],
    environ: Mapping[str, str],
) -> int:
    """Run the agent. Returns the exit code. Raises TunnelError."""
    parser = settings.parser(prog, description, epilog)
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    settings.add_flags(parser, model, prefix)
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    # Answered before it comes here, without all the imports: service.health.
    commands.add_parser("health", help="ask a running agent's admin port whether it is ready: exit code 0 or 1")
    examined = commands.add_parser("doctor", help="check the way to the relay and beyond: exit code 0 or 1")
    settings.add_flags(examined, model, prefix)
    flags = parser.parse_args(arguments)
    if flags.command == "health":
        raise settings.health_comes_first(prog)
    loaded = settings.load(model, prefix, flags, environ)
    loaded.check()
    if flags.command == "doctor":
        logs.configure(prog, level="error", style=loaded.log_format)
        return run.complete(lambda: examine(loaded, print))
    logs.configure(prog, level=loaded.log_level, style=loaded.log_format)
    return run.serve(lambda: make(loaded))
