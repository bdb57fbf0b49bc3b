"""What people deploy, as tests see it: files of the tree, rendered by the tools that users have."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
CI: Final = os.environ.get("CI") == "true"
missing: Final[set[str]] = set()  # programs that are not installed; reported loudly at the end


def unavailable(what: str) -> None:
    """Skip the test; where everything ought to be there, fail it."""
    missing.add(what)
    if CI:
        pytest.fail(what)
    pytest.skip(what)


def tool(name: str) -> str:
    """The path of a program that the tests cannot bring along."""
    path = shutil.which(name)
    if path is None:
        unavailable(f"{name} is not installed")
    return str(path)


def run(*command: str | Path, timeout: float = 300) -> str:
    """What the command prints, in the root of the tree. Fails the test, with all output, if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT, text=True, capture_output=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(map(str, command))}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def until(condition: Callable[[], object], patience: float = 120.0, pause: float = 0.2) -> None:
    """Wait for a condition: a generous deadline, never a judgement on time."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(pause)


@functools.cache
def kustomize(path: str) -> tuple[dict[str, Any], ...]:
    """The objects that `kubectl apply -k` would send."""
    return tuple(yaml.safe_load_all(run(tool("kubectl"), "kustomize", path)))


def load(path: str) -> Any:
    """A YAML file of the tree."""
    return yaml.safe_load((ROOT / path).read_text())


def one(objects: Sequence[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The object of this kind and name."""
    (found,) = (o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


def seconds(text: str | float) -> float:
    """A duration as all these files write it: 15, 15s, 1m30s."""
    if not isinstance(text, str):
        return float(text)
    units = {"s": 1, "m": 60, "h": 3600}
    parts = re.findall(r"(\d+)([smh])", text)
    assert "".join(n + u for n, u in parts) == text, text
    return float(sum(int(n) * units[u] for n, u in parts))


def printed(page: str, title: str, language: str = "sh") -> str:
    """The shell commands of a page, or another block of code: the one that follows the comment `<!-- TITLE -->`."""
    block = rf"<!-- {re.escape(title)} -->\s*```{language}\n(.*?)```"
    found = re.findall(block, (ROOT / page).read_text(), re.DOTALL)
    assert len(found) == 1, f"{page}: {len(found)} blocks of this kind are called '{title}'"
    return str(found[0])
