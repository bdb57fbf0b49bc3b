"""The join page in a real browser: what a friend sees, and what nobody else gets to see (`make test-browser`).

SHOTS=FOLDER keeps pictures of the page there, for people to look at.
"""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser, Ear, Page, listening_in
from support.commands import running
from support.deploy import until
from tunnel_core import __version__
from tunnel_core.protocol import invite, tokens
from tunnel_relay.pages.wheel import FILE_NAME

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CHROME, SAFARI = (
    "AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36",
    "AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15",
)
WINDOWS = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME}"
MACOS = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {SAFARI}"
LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"
SYSTEMS = {"windows": WINDOWS, "macos": MACOS, "linux": LINUX}
SHOTS = os.environ.get("SHOTS", "")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ear]:
    """What stands before a relay with a wheel, and hears all that comes to it."""
    folder = tmp_path_factory.mktemp("relay")
    with zipfile.ZipFile(folder / FILE_NAME, "w") as archive:
        archive.writestr(f"tcp_ws_tunnel-{__version__}.dist-info/METADATA", "Requires-Python: >=3.11\n")
    flags = ("--auth", "none", "--host", "127.0.0.1", "--port", "0", "--admin-port", "0")
    with running(folder, "relay", *flags, "--join-wheel", str(folder / FILE_NAME)) as process:
        until(lambda: process.events("listening"))
        port = int(process.events("listening")[0]["address"].rpartition(":")[2])
        with listening_in(port) as ear:
            yield ear


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser"), host_rules="MAP relay.test 127.0.0.1") as started:
        yield started


@pytest.fixture
def friend(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Opens tabs, and closes them when the test is over; none may have had anything to complain about."""
    tabs: list[Page] = []

    def open_tab(url: str, **options: Any) -> Page:
        tab = browser.page(**options)
        tabs.append(tab)
        tab.open(url)
        return tab

    yield open_tab
    for tab in tabs:
        assert tab.complaints() == []
        tab.close()


def link(ear: Ear, host: str = "127.0.0.1", **fields: Any) -> str:
    """An invite to the relay behind `ear`."""
    lasts = fields.pop("lasts", 3600)
    token = tokens.issue(b"x" * 32, role="client", tunnels=["mc"], subject="alex", expires=time.time() + lasts)
    usual: dict[str, Any] = {"tunnel": "mc", "port": 25577, "label": "Kim's ‹server›", "app": invite.MINECRAFT}
    return invite.Invite(relay=f"ws://{host}:{ear.port}", token=token, **(usual | fields)).link()


def loaded(tab: Page) -> None:
    """The page has understood the link, or has given it up."""
    tab.until(lambda: tab.js("document.documentElement.dataset.app || !document.getElementById('problem').hidden"))


def clipboard(tab: Page) -> str:
    return str(tab.js("navigator.clipboard.readText()"))


def click(tab: Page, button: str) -> None:
    """Click what copies, and wait until it says that it did."""
    selector = f"[data-copy={button}]"
    tab.js(f"document.querySelector('{selector}').click()")
    tab.until(lambda: "Copied" in tab.shown(selector)[0])


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_has_its_own_command(relay: Ear, friend: Any, system: str) -> None:
    """And no other's is in sight, until the friend says that it is another."""
    tab = friend(link(relay), agent=SYSTEMS[system])
    loaded(tab)
    for other in SYSTEMS:
        assert bool(tab.shown(f"#uv-{other}")) == (other == system)
    assert tab.shown("[name=os]:checked + *, label:has(:checked)") == [{"macos": "Mac"}.get(system, system.title())]
    (command,) = tab.shown("#run")
    assert command == f"uvx --python 3.13 --index http://127.0.0.1:{relay.port}/join/simple tcp-ws-tunnel join"
    assert tab.shown("h1") == ["You are invited to Kim's ‹server›"]
    assert tab.shown("li .minecraft .port") == ["25577"]
    if SHOTS:
        tab.screenshot(Path(SHOTS) / f"{system}.png")
    another = "linux" if system != "linux" else "windows"
    tab.js(f"document.querySelector('[value={another}]').click()")
    assert tab.shown(f"#uv-{another}")
    assert not tab.shown(f"#uv-{system}")


def test_what_copies_copies(relay: Ear, friend: Any) -> None:
    """The commands and the link, whole."""
    given = link(relay)
    tab = friend(given, agent=WINDOWS)
    loaded(tab)
    click(tab, "link")
    assert clipboard(tab) == given
    click(tab, "run")
    assert clipboard(tab) == tab.shown("#run")[0]
    click(tab, "uv-windows")
    assert clipboard(tab) == "winget install --id=astral-sh.uv -e"
    assert tab.shown("#said") == ["Copied."]


def test_the_link_stays_in_the_browser(relay: Ear, friend: Any) -> None:
    """It is in no request, nor in the address bar for others to see; and the page asks for nothing else."""
    given = link(relay)
    fragment = given.partition("#")[2]
    heard = len(relay.heard)
    tab = friend(given, agent=LINUX)
    loaded(tab)
    assert tab.js("location.href") == f"http://127.0.0.1:{relay.port}/join"
    assert tab.js("history.length") <= 2
    assert tab.js("document.documentElement.outerHTML").find(fragment) == -1
    tab.reload()
    assert tab.shown("#have-not")
    assert set(tab.requests()) == {f"http://127.0.0.1:{relay.port}/join"}
    asked = bytes(relay.heard[heard:])
    assert asked.startswith(b"GET /join HTTP/1.1\r\n")
    for part in (fragment, fragment[20:40], "#", "Referer", "Cookie"):
        assert part.encode() not in asked


def test_a_link_that_is_of_no_use_is_told(relay: Ear, friend: Any) -> None:
    """Before anything is installed: cut, expired, or for another relay."""
    given = link(relay)
    for url, expected in {
        given[:-9]: "This link is not whole",
        given[:-9] + "x" + given[-8:]: "This link is not whole",
        link(relay, port=1, lasts=-60): "This link has expired",
        given.replace("127.0.0.1", "localhost"): "This link is not whole",
    }.items():
        tab = friend(url, agent=LINUX)
        tab.until(lambda tab=tab: tab.shown("#problem"))
        assert tab.shown("#problem")[0].startswith(expected)
    tab = friend(f"http://127.0.0.1:{relay.port}/join", agent=LINUX)
    assert not tab.shown("#problem")
    assert tab.shown("#have-not")
    assert not tab.shown("[data-copy=link]")
    tab.js(f"location.hash = {given.partition('#')[2]!r}")
    loaded(tab)
    assert tab.shown("[data-copy=link]"), "a link that is pasted over the page's address"


def test_another_application_is_no_game(relay: Ear, friend: Any) -> None:
    """It is not told of lists that it does not have."""
    tab = friend(link(relay, app="", port=5432, label=""), agent=LINUX)
    loaded(tab)
    assert tab.shown("h1") == ["You are invited"]
    assert not tab.shown(".minecraft")
    assert tab.shown(".no-game")[0] == "Point your application at 127.0.0.1:5432."


def test_without_a_secure_connection(relay: Ear, friend: Any) -> None:
    """Browsers then withhold the clipboard and checksums: copying goes the old way."""
    given = link(relay, host="relay.test")
    tab = friend(given, agent=LINUX)
    loaded(tab)
    assert tab.js("isSecureContext") is False
    tab.js("document.addEventListener('copy', () => { window.copied = String(document.activeElement.value); })")
    click(tab, "link")
    assert tab.js("window.copied") == given


def test_without_script(relay: Ear, friend: Any) -> None:
    """All commands are there, with the address that was asked, and where the link is found."""
    tab = friend(link(relay), agent=WINDOWS, script=False)
    for other in SYSTEMS:
        assert tab.shown(f"#uv-{other}")
    assert tab.shown("h3.plain") == ["Windows", "Mac", "Linux"]
    page = f"http://127.0.0.1:{relay.port}/join"
    assert f"--index {page}/simple" in tab.shown("#run")[0]
    assert tab.shown("#have-not")
    assert not tab.shown("button")
    assert not tab.shown("fieldset")
    if SHOTS:
        tab.screenshot(Path(SHOTS) / "without-script.png")


def test_a_phone_is_told_where_to_go(relay: Ear, friend: Any) -> None:
    """The program is for the computer that one plays on; nothing sticks out of the small screen."""
    tab = friend(link(relay), agent=PHONE, width=375, height=812)
    loaded(tab)
    assert tab.shown(".phone .warn")[0].startswith("Open this link on the computer")
    assert tab.js("document.documentElement.scrollWidth <= innerWidth")


def test_by_keyboard_and_by_ear(relay: Ear, friend: Any) -> None:
    """The system is chosen with the arrows; all that can be done has a name."""
    tab = friend(link(relay), agent=WINDOWS)
    loaded(tab)
    tab.press("Tab", 9)
    assert tab.js("document.activeElement.value") == "windows"
    tab.press("ArrowRight", 39)
    assert tab.js("document.activeElement.value") == "macos"
    assert tab.shown("#uv-macos")
    tab.press("Tab", 9)
    assert tab.js("document.activeElement.dataset.copy") == "uv-macos"
    tab.press("Enter", 13, "\r")
    tab.until(lambda: "Copied" in tab.shown("[data-copy=uv-macos]")[0])
    tab.js(OPEN_ALL)
    nodes = tab.send("Accessibility.getFullAXTree")["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert named["radio"] == ["Windows", "Mac", "Linux", "Other"]
    assert named["heading"][0].startswith("You are invited")
    assert {"alert", "status"} & set(named)
    for role in ("button", "link", "radio", "heading", "DisclosureTriangle"):
        assert all(named[role]), role
    assert tab.js("document.documentElement.lang") == "en"


def test_the_bare_address(relay: Ear, friend: Any) -> None:
    """A browser that only knows the relay sees what it is."""
    tab = friend(f"http://127.0.0.1:{relay.port}/")
    assert tab.shown("h1") == ["This is a relay"]
    assert set(tab.requests()) == {f"http://127.0.0.1:{relay.port}/"}
    if SHOTS:
        tab.screenshot(Path(SHOTS) / "root.png")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("name", "width"), [("phone", 375), ("desktop", 1280)])
def test_it_can_be_read(relay: Ear, friend: Any, name: str, width: int, dark: bool) -> None:
    """Light and dark, at both widths: text and ground differ as WCAG asks (4.5 : 1), and nothing is cut off."""
    tab = friend(link(relay), agent=WINDOWS, width=width, height=900, dark=dark)
    loaded(tab)
    tab.js(OPEN_ALL)
    assert tab.js("document.documentElement.scrollWidth <= innerWidth")
    assert tab.js(CONTRAST) == []
    if SHOTS:
        tab.screenshot(Path(SHOTS) / f"{name}-{'dark' if dark else 'light'}.png")


OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true; })"

# The elements whose own text has too little contrast with the ground that it stands on.
CONTRAST = """
(() => {
  const light = (c) => {
    const [r, g, b] = c.map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const parts = (s) => s.match(/[\\d.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parts(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > .99) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.body.querySelectorAll('*')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.tagName === 'SCRIPT') continue;
    const a = light(parts(getComputedStyle(e).color).slice(0, 3)), b = light(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push([e.tagName, e.className, e.innerText.slice(0, 20), ratio]);
  }
  return poor;
})()
"""
