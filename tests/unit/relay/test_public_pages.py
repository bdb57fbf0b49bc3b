"""Pages: what their policy allows, and who answers which path."""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from tunnel_core import __version__
from tunnel_core.errors import UsageError
from tunnel_core.net.http import Request, Response
from tunnel_relay.pages import page, wheel
from tunnel_relay.pages.index import PackageIndex
from tunnel_relay.pages.page import Page
from tunnel_relay.pages.routes import Routes
from tunnel_relay.pages.wheel import FILE_NAME, Wheel

PAGES = pytest.mark.parametrize("name", ["join.html", "root.html"])
SLOTS = {"base": "https://a.example", "version": "1", "wheel": "a.whl", "kind": "ready"}


def request(path: str, **headers: str) -> Request:
    return Request(path, {}, headers, (), "192.0.2.1", is_upgrade=False)


def text(response: Response) -> str:
    return response.body if isinstance(response.body, str) else response.body.decode()


# Pages.


@PAGES
def test_a_page_is_one_small_file(name: str) -> None:
    """It asks nobody for anything: all it has stands in it. Only links lead elsewhere, for people to follow."""
    body = text(Page(name).fill(SLOTS))
    assert len(body.encode()) <= page.MAX_PAGE
    assert not re.search(r"<(link (?!rel=\"icon\" href=\"data:)|iframe|img|form|object|embed)", body)
    assert not re.search(
        r"<script [^>]*src|@import|url\(|fetch\(|XMLHttpRequest|sendBeacon|WebSocket|localStorage", body
    )
    assert re.findall(r'(?:href|src)="(?!data:)([^"]*)"', body) == ["https://github.com/tcp-ws-tunnel/tcp-ws-tunnel"]


@PAGES
def test_the_policy_names_each_script_and_style_by_its_hash(name: str) -> None:
    """No other runs, and nobody may put the page into a frame."""
    response = Page(name).fill(SLOTS)
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    for kind in ("script", "style"):
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"
            for block in re.findall(rf"<{kind}>(.*?)</{kind}>", text(response), re.DOTALL)
        ]
        assert policy.get(f"{kind}-src", "").split() == hashes
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert not re.search(r'\s(style|on\w+)="', text(response)), "the policy forbids these"
    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_slots_are_filled_with_text() -> None:
    """Whatever it holds."""
    body = text(Page("join.html").fill(SLOTS | {"base": "https://<script>x"}))
    assert "https://&lt;script&gt;x" in body
    assert "{{" not in body


# Routes.


def test_the_longest_path_counts() -> None:
    """What is in no table, and what is to become a leg, is not a page's."""

    def says(name: str) -> Any:
        return lambda request: Response(HTTPStatus.OK, name)

    routes = Routes({"/": says("root"), "/a": says("a"), "/a/*": says("below a"), "/a/b/*": says("b")}, says("legs"))

    def answer(path: str, **fields: Any) -> str | bytes:
        given = Request(path, {}, {}, (), "192.0.2.1", **({"is_upgrade": False} | fields))
        found = routes.answer(given)
        assert isinstance(found, Response)
        return found.body

    paths = ("/", "/a", "/a/", "/a/x", "/a/b/c", "/a/b", "/b", "", "/client/mc")
    expected = ["root", "a", "below a", "below a", "b", "below a", "legs", "legs", "legs"]
    assert list(map(answer, paths)) == expected
    assert answer("/", is_upgrade=True) == "legs"
    assert answer("/a", method="HEAD") == "a"
    refused = routes.answer(Request("/a", {}, {}, (), "192.0.2.1", is_upgrade=False, method="POST"))
    assert isinstance(refused, Response)
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")


# The index.

INDEX = PackageIndex(Wheel("tcp_ws_tunnel-9-py3-none-any.whl", b"a wheel", ">=3.11"))
DIGEST = hashlib.sha256(b"a wheel").hexdigest()
JSON = "application/vnd.pypi.simple.v1+json"


def asked(path: str, **headers: str) -> Response:
    return INDEX.answer(request("", **headers), path)


def test_the_index_for_programs_and_for_eyes() -> None:
    """PEP 691 for who asks for it, PEP 503 for all others; hashes in both, and the same for caches."""
    accept = f"{JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
    listed = asked("tcp-ws-tunnel/", accept=accept)
    assert (listed.status, listed.content_type, listed.headers["Vary"]) == (200, JSON, "Accept")
    assert f'"sha256": "{DIGEST}"' in text(listed)
    assert '"requires-python": ">=3.11"' in text(listed)
    seen = asked("tcp-ws-tunnel/", accept="text/html")
    assert seen.content_type.startswith("text/html")
    assert f'href="tcp_ws_tunnel-9-py3-none-any.whl#sha256={DIGEST}"' in text(seen)
    assert 'data-requires-python="&gt;=3.11"' in text(seen)
    assert asked("tcp-ws-tunnel/", accept="application/vnd.pypi.simple.v1+html").content_type.endswith("v1+html")
    assert '"projects": [{"name": "tcp-ws-tunnel"}]' in text(asked("", accept=JSON))
    assert '<a href="tcp-ws-tunnel/">' in text(asked(""))


def test_the_index_has_one_file() -> None:
    """And no other, whatever the path."""
    assert asked("tcp-ws-tunnel/tcp_ws_tunnel-9-py3-none-any.whl").body == b"a wheel"
    assert asked("tcp-ws-tunnel").headers["Location"] == "tcp-ws-tunnel/"
    for path in (
        "uvloop/",
        "tcp-ws-tunnel/../",
        "tcp-ws-tunnel/x",
        "../pyproject.toml",
        "tcp_ws_tunnel/",
        "/etc/passwd",
    ):
        assert asked(path).status == 404


@pytest.mark.parametrize("path", ["", "tcp-ws-tunnel/", "tcp-ws-tunnel/tcp_ws_tunnel-9-py3-none-any.whl"])
def test_what_is_known_is_not_sent_again(path: str) -> None:
    """Nobody keeps it without asking."""
    first = asked(path)
    assert first.headers["Cache-Control"] == "no-cache"
    for known in (first.headers["ETag"], f'"x", W/{first.headers["ETag"]}', "*"):
        again = asked(path, **{"if-none-match": known})
        assert (again.status, again.body) == (304, b"")
    assert asked(path, **{"if-none-match": '"x"'}).status == 200


# The wheel.


def broken(folder: Path, content: bytes, name: str = FILE_NAME) -> str:
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        wheel.find(str(path))
    return str(error.value)


def test_only_the_wheel_of_this_version_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one, or what is none, is the operator's mistake; none at all is a page that says so."""
    assert FILE_NAME in broken(tmp_path, b"", "tcp_ws_tunnel-0.0.1-py3-none-any.whl")
    assert "cannot read" in broken(tmp_path, b"no zip")
    with pytest.raises(UsageError, match="No such file"):
        wheel.find(f"/nowhere/{FILE_NAME}")
    monkeypatch.setattr(wheel, "FOLDER", tmp_path / "nowhere")
    assert wheel.find("") is None


def made(folder: Path, metadata: Mapping[str, str]) -> Path:
    path = folder / FILE_NAME
    with zipfile.ZipFile(path, "w") as archive:
        lines = "".join(f"{name}: {value}\n" for name, value in metadata.items())
        archive.writestr(f"tcp_ws_tunnel-{__version__}.dist-info/METADATA", lines)
    return path


def test_a_wheel_says_which_python_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the index, from its own metadata; the one of the image is found by itself."""
    path = made(tmp_path, {"Name": "tcp-ws-tunnel", "Requires-Python": ">=3.11"})
    found = wheel.find(str(path))
    assert found is not None
    assert (found.name, found.requires_python, found.content) == (FILE_NAME, ">=3.11", path.read_bytes())
    monkeypatch.setattr(wheel, "FOLDER", tmp_path)
    assert wheel.find("") == found
