"""The command line that both agents have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from .. import __version__
from ..service import logs, run, settings
from ..service.run import Service
from .settings import AgentSettings

__all__ = ["Service", "main"]

_S = TypeVar("_S", bound=AgentSettings)


def main(
    prog: str,
    prefix: str,
    model: type[_S],
    description: str,
    epilog: str,
    make: Callable[[_S], Service],
    arguments: Sequence[str],
    environ: Mapping[str, str],
) -> int:
    """Run the agent. Returns the exit code. Raises TunnelError."""
    parser = settings.parser(prog, description, epilog)
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    settings.add_flags(parser, model, prefix)
    commands = parser.add_subparsers(title="commands", metavar="")
    # Answered before it comes here, without all the imports: service.health.
    commands.add_parser("health", help="ask a running agent's admin port whether it is ready: exit code 0 or 1")
    loaded = settings.load(model, prefix, parser.parse_args(arguments), environ)
    loaded.check()
    logs.configure(prog, level=loaded.log_level, style=loaded.log_format)
    return run.serve(lambda: make(loaded))
