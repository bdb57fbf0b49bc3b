"""From nothing to `connected`, with the commands of the join page as a relay shows them (`make test-install`).

The program comes from that relay, and all that it needs from the package index this machine's clients are set up for.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import shlex
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import run
from support.deploy import ROOT, until
from support.terminal import Terminal
from tunnel_core import __version__

from demo.processes import Tunnel, free_port

pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]

SCRIPTS = sysconfig.get_path("scripts")


@pytest.fixture(scope="module")
def tunnel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tunnel]:
    """A friend's server, with a relay that gives the program of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=120)
    (wheel,) = folder.iterdir()
    with Tunnel(relay=("--join-wheel", str(wheel))) as started:
        yield started


@pytest.fixture
def link(tunnel: Tunnel) -> str:
    port = str(free_port())
    made = run(
        "host-agent", "invite", "--tunnel", "demo", "--subject", "alex", "--port", port, "--app", "minecraft",
        HOST_AGENT_RELAY=f"ws://127.0.0.1:{tunnel.relay_port}", HOST_AGENT_SECRET=tunnel.secret,
        HOST_AGENT_INVITE_RECORD=os.devnull,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def shown(tunnel: Tunnel, name: str) -> list[str]:
    """A command of the page, in words."""
    with urllib.request.urlopen(f"http://127.0.0.1:{tunnel.relay_port}/join", timeout=10) as page:
        found = re.search(rf'<pre id="{name}">(.*?)</pre>', page.read().decode())
    assert found is not None
    return shlex.split(html.unescape(re.sub(r"<[^>]+>", "", found[1])))


def python313() -> str:
    """The folder of a Python 3.13, as uv looks for one: it would bring its own, where it may."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in ("python3.13", *map(str, pyenv.glob("versions/3.13*/bin/python3.13"))):
        ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('scripts'))"]
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run(ask, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return done.stdout.strip()
    pytest.skip("NOT TESTED: uvx, as there is no Python 3.13 here")


def join(words: list[str], text: str, variables: dict[str, str]) -> float:
    """Run it on a terminal, give it the link if it asks, use the tunnel. Returns the seconds until `connected`."""
    began = time.monotonic()
    with Terminal(words[0], *words[1:], **variables) as terminal:
        until(lambda: terminal.shows("Paste your link|connected: "), pause=0.02)
        if terminal.shows("Paste your link"):
            terminal.types(f"{text}\n")
        until(lambda: terminal.shows("connected: add the server 127.0.0.1:"), pause=0.02)
        took = time.monotonic() - began
        (line,) = [line for line in terminal.lines if line.startswith("connected: ")]
        port = int(re.findall(r"127\.0\.0\.1:(\d+) in Minecraft", line)[0])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
        terminal.interrupts()
        assert terminal.ended() == 0
    return took


def test_uvx_from_nothing(tunnel: Tunnel, link: str, tmp_path: Path) -> None:
    """The one command of the page, with nothing in uv's cache; then once more, when it asks for nothing."""
    variables = {
        "HOME": str(tmp_path),
        "PATH": f"{python313()}:{SCRIPTS}:/usr/bin:/bin",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    words = shown(tunnel, "run")
    cold = join(words, link, variables)
    (kept,) = (tmp_path / ".config/tcp-ws-tunnel/invites").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    warm = join(words, "none is asked for", variables)
    print(f"\nuvx: connected after {cold:.1f} s with an empty cache, {warm:.1f} s the next time")


def test_pip_alone(tunnel: Tunnel, link: str, tmp_path: Path) -> None:
    """In a virtual environment of the Python that runs this, without uv."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    program, *words = shown(tunnel, "pip")
    done = subprocess.run([tmp_path / "venv/bin" / program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    installed = time.monotonic() - began
    command = [str(tmp_path / "venv/bin/tcp-ws-tunnel"), "join"]
    took = join(command, link, {"HOME": str(tmp_path)})
    print(f"\npip, Python {sys.version.split()[0]}: installed in {installed:.1f} s, connected after {took:.1f} s")


def test_an_index_of_the_project_alone(tunnel: Tunnel) -> None:
    """What the page names is what the index has, and it is of this version."""
    (url,) = [word for word in shown(tunnel, "pip") if word.startswith("http")]
    assert url.endswith(f"tcp_ws_tunnel-{__version__}-py3-none-any.whl")
    (spec,) = [word for word in shown(tunnel, "pipx") if word.startswith("http")]
    assert spec == url
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read(2) == b"PK"
