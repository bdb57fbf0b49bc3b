"""What the README has people type, where it needs no container: `make test-containers` runs the rest."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import BIN, environment
from support.deploy import ROOT, printed, tool, until
from support.visitors import handshake

from demo.processes import free_port

README = "README.md"
PAGES = [str(p.relative_to(ROOT)) for p in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))]


@contextlib.contextmanager
def session(text: str, folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A shell that runs these lines in `folder`; what it left running ends with it."""
    shell = subprocess.Popen(
        ["bash", "-euc", text],
        cwd=folder, env=environment(**variables), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield shell
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.communicate()


def on_free_ports(text: str, *ports: int) -> str:
    """The same lines with other ports, since these may be taken here."""
    for port in ports:
        text, times = re.subn(rf"\b{port}\b", str(free_port()), text)
        assert times, port
    return text


def test_by_hand(tmp_path: Path) -> None:
    """A web server, the four commands and curl, as printed: what curl shows is what the server has."""
    tool("curl")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/served-by-hand.txt").touch()
    text = on_free_ports(printed(README, "by hand"), 8080, 8000, 8001)
    path = f"{BIN}:{os.environ['PATH']}"
    with session(text, tmp_path, PATH=path, RELAY_ADMIN_PORT=str(free_port())) as shell:
        out, err = shell.communicate(timeout=120)  # until the last that it started has ended
    assert shell.returncode == 0, err
    assert "served-by-hand.txt" in out


def test_a_gateway_by_hand(tmp_path: Path) -> None:
    """The commands as printed: a visitor who asks for the name of the example reaches the server."""
    said = handshake("play.example.com")
    text = on_free_ports(printed(README, "gateway by hand"), 8080, 25565, 25567)
    places = (r"ws://127.0.0.1:(\d+)", r"mc=127.0.0.1:(\d+)", r"--shared (\d+)")
    relay, behind, shared = (int(re.findall(place, text)[0]) for place in places)
    path = f"{BIN}:{os.environ['PATH']}"
    with socket.create_server(("127.0.0.1", behind)) as server:
        server.settimeout(2)

        def reached() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", shared), 2) as visitor:
                    visitor.sendall(said)
                    with server.accept()[0] as target:
                        return target.recv(100) == said
            except OSError:
                return False  # not all of them are there yet

        ports = {"RELAY_PORT": str(relay), "RELAY_ADMIN_PORT": str(free_port())}
        with session(text, tmp_path, PATH=path, **ports):
            until(reached)


def test_a_friends_one_command() -> None:
    """It is the one that the join page shows, which `make test-install` runs."""
    page = (ROOT / "relay/src/tunnel_relay/pages/join.html").read_text()
    (command,) = re.findall(r'<pre id="run">(.*?)</pre>', page)
    shown = re.sub(r"<[^>]+>", "", command).replace("{{base}}", "https://relay.example.com")
    assert printed(README, "join").strip() == shown


def titles(page: str) -> set[str]:
    return set(re.findall(r"^<!-- ([^>:]+) -->\n```sh$", (ROOT / page).read_text(), re.MULTILINE))


def test_what_it_shares_with_other_pages_is_the_same() -> None:
    """Its lines for containers are those of docs/deploy.md, which `make test-containers` runs."""
    shared = titles(README) & titles("docs/deploy.md")
    assert {"compose up", "build the images", "make an invite", "run for the owner"} <= shared
    for title in shared:
        assert printed(README, title) == printed("docs/deploy.md", title)
    assert printed(README, "join with Docker") == printed("docs/join.md", "join with Docker")


@pytest.mark.parametrize("page", PAGES)
def test_what_it_points_at_is_there(page: str) -> None:
    """The targets of make, and the files and headings of links."""
    text = (ROOT / page).read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z][a-z0-9-]*)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        path, _, anchor = link.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, link
