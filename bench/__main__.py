"""Measures, and says what was measured.

    python -m bench                                    # what `make bench` measures
    python -m bench ping bulk --tunnels ours,haproxy3 --rounds 3
    python -m bench bulk --baseline ../other/.venv     # beside another build of ours
    python -m bench --report                           # docs/benchmarks.md from the last results

Exit code 1 if content was corrupted or ours could not be measured. Speed decides nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from . import machine, results
from .figures import FIGURES
from .figures.figure import Figure, Pace
from .relays import RELAYS
from .relays.ours import OurRelay
from .report import document, terminal
from .session import Plan, Session
from .subject import Subject
from .tunnels import FLOOR, REFERENCE, TUNNELS
from .tunnels.ours import VARIANTS, Ours

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
ALSO = (ROOT / "README.md",)
USUAL = (*(variant.name for variant in VARIANTS), REFERENCE, FLOOR)
ROUNDS = 3


def main() -> int:
    """Run the command."""
    flags = _parser().parse_args()
    if flags.list:
        _list()
        return 0
    if flags.report:
        _tell(results.Results(results.read_last(flags.results)), FIGURES, write=True)
        return 0
    _prepare_process()
    _check("figure", flags.figures, [figure.name for figure in FIGURES])
    figures = [f for f in FIGURES if (f.name in flags.figures if flags.figures else flags.full or not f.full)]
    subjects = _subjects(flags, figures)
    pace = Pace(0.25 if flags.quick else 1.0)
    rounds = flags.rounds or (1 if flags.quick else ROUNDS)
    print(f"{machine.describe()}\n{len(figures)} figures, {rounds} rounds: {', '.join(s.name for s in subjects)}")
    waiting = 15.0 if flags.quick else 180.0
    # What is there for company, and judges nothing, is measured once.
    once = () if flags.tunnels else {tunnel.name for tunnel in TUNNELS}.difference(USUAL)
    session = Session(Plan(subjects, figures, rounds, pace, flags.results, _command(), waiting, once))
    _tell(results.Results(session.run()), figures, write=flags.write)
    return 1 if session.failed else 0


def _parser() -> argparse.ArgumentParser:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [figure.name for figure in FIGURES]
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(names)} (default: see --list)")
    parser.add_argument("--tunnels", metavar="NAME,...", help="which to measure (see --list)")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {ROUNDS}, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="short looks: a quarter of the time, one round")
    parser.add_argument("--full", action="store_true", help="all figures, all references")
    parser.add_argument("--baseline", type=Path, metavar="VENV", help="measure another build of ours, too")
    parser.add_argument("--write", action="store_true", help="bring docs/benchmarks.md up to date")
    parser.add_argument("--report", action="store_true", help="measure nothing; write it from the last results")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", default=ROOT / "build" / "bench.jsonl", help="default: %(default)s"
    )
    parser.add_argument("--list", action="store_true", help="list figures and tunnels")
    return parser


def _subjects(flags: argparse.Namespace, figures: Sequence[Figure]) -> list[Subject]:
    everything: list[Subject] = [*TUNNELS, *RELAYS]
    names = {subject.name for subject in everything}
    chosen = set(USUAL) | {relay.name for relay in RELAYS}
    if flags.full:
        chosen = names
    if flags.tunnels:
        chosen = set(flags.tunnels.split(","))
    _check("tunnel", chosen, names)
    subjects = [subject for subject in everything if subject.name in chosen]
    if flags.baseline is not None:
        other = flags.baseline.resolve() / "bin"
        subjects[1:1] = [Ours("baseline", bin=other)]
        subjects.append(OurRelay("baseline-relay", bin=other))
    return [subject for subject in subjects if any(figure.suits(subject) for figure in figures)]


def _check(kind: str, chosen: Iterable[str], known: Collection[str]) -> None:
    unknown = [name for name in chosen if name not in known]
    if unknown:
        print(f"python -m bench: no such {kind}: {', '.join(unknown)} (--list lists all)", file=sys.stderr)
        sys.exit(2)


def _prepare_process() -> None:
    """Room for the sockets of 2,000 streams; and SIGTERM ends in order, as Ctrl-C does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _command() -> str:
    """As it was given, to be told beside the results."""
    return os.environ.get("BENCH_COMMAND") or " ".join(("python -m bench", *sys.argv[1:]))


def _tell(found: results.Results, figures: Sequence[Figure], *, write: bool) -> None:
    print(terminal.table(found, figures, REFERENCE))
    if write:
        for path in document.write(found, DOCUMENT, ALSO):
            print(f"written: {path.relative_to(ROOT)}")


def _list() -> None:
    print("figures:")
    for figure in FIGURES:
        print(f"  {figure.name:<14}{figure.title}{' (FULL=1)' if figure.full else ''}")
    print("tunnels and relays:")
    for subject in (*TUNNELS, *RELAYS):
        usual = subject.name in USUAL or subject in RELAYS
        print(f"  {subject.name:<18}{subject.shape}{'' if usual else ' (FULL=1)'}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
