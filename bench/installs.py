"""Installs references from PyPI and npm, each by itself, outside the tree, once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import Missing

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tcp-ws-tunnel-bench"
PATIENCE = 180.0  # seconds for one installation


def program(name: str, package: str) -> str:
    """Path of a program of the system. Raises Missing with what to install."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Missing(f"{name} is not installed: apt-get install {package}")
    return path


def virtualenv(name: str, pins: Sequence[str]) -> Path:
    """The `bin` of a virtual environment that holds `pins` (`NAME==VERSION`). Raises Missing."""
    folder = _folder(name, pins)
    python = folder / "bin" / "python"
    _install(
        folder,
        [sys.executable, "-m", "venv", folder],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins],
    )
    return folder / "bin"


def npm(name: str, pins: Sequence[str]) -> Path:
    """The `node_modules` that holds `pins` (`NAME@VERSION`). Raises Missing."""
    command = program("npm", "npm")
    folder = _folder(name, pins)
    _install(folder, [command, "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *pins])
    return folder / "node_modules"


def _folder(name: str, pins: Sequence[str]) -> Path:
    """Another for other pins, or another Python."""
    return CACHE / f"{name}-{hashlib.sha256(repr((sys.version, *pins)).encode()).hexdigest()[:10]}"


def _install(folder: Path, *commands: Sequence[str | Path]) -> None:
    done = folder / "installed"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.CalledProcessError as exc:
        words = [line for line in (exc.stderr + exc.stdout).splitlines() if "error" in line.lower()]
        raise Missing(f"it does not install: {words[-1][:200] if words else exc}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Missing(f"it does not install: {exc}") from exc
    done.touch()
