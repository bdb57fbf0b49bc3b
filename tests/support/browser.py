"""Debian's Chromium, driven by its own protocol (CDP): what a page shows, asks for and complains about."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from websockets.sync.client import ClientConnection, connect

from support.deploy import tool

FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--no-default-browser-check", "--disable-default-apps", "--remote-debugging-port=0"),
)
PATIENCE: Final = 60.0  # seconds: a busy machine starts it in ten


class Browser:
    """One process, until the test leaves it; `page` opens tabs. `host_rules` has names resolve as a test wants."""

    def __init__(self, folder: Path, host_rules: str = "") -> None:
        profile = folder / "profile"
        self._log = (folder / "chromium.log").open("w")
        rules = [f"--host-resolver-rules={host_rules}"] if host_rules else []
        self._process = subprocess.Popen(
            [tool("chromium"), *FLAGS, *rules, f"--user-data-dir={profile}", "about:blank"],
            stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._told = profile / "DevToolsActivePort"
        self._stack = contextlib.ExitStack()
        self._socket: ClientConnection
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            self._socket = self._stack.enter_context(self._connect())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._log.close()

    def _connect(self) -> contextlib.AbstractContextManager[ClientConnection]:
        deadline = time.monotonic() + PATIENCE
        while not (self._told.exists() and len(self._told.read_text().splitlines()) == 2):
            assert self._process.poll() is None, "the browser ended"
            assert time.monotonic() < deadline, "the browser does not start"
            time.sleep(0.05)
        port, path = self._told.read_text().splitlines()
        return connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None, compression=None)

    def send(self, method: str, session: str = "", **params: Any) -> Any:
        """Give a command, and return what it results in."""
        number = next(self._ids)
        self._socket.send(
            json.dumps({"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {}))
        )
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def page(self, **options: Any) -> Page:
        return Page(self, **options)


class Page:
    """A tab of its own, with storage of its own."""

    def __init__(
        self,
        browser: Browser,
        *,
        agent: str = "",
        width: int = 1000,
        height: int = 900,
        dark: bool = False,
        script: bool = True,
    ) -> None:
        self._browser = browser
        context = browser.send("Target.createBrowserContext")["browserContextId"]
        target = browser.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self._session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._context, self._target = context, target
        browser.events.clear()
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.send(f"{domain}.enable")
        mobile = width < 600
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)
        if agent:
            self.send("Emulation.setUserAgentOverride", userAgent=agent)
        if not script:
            self.send("Emulation.setScriptExecutionDisabled", value=True)
        browser.send(
            "Browser.grantPermissions", browserContextId=context,
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        )  # fmt: skip

    def send(self, method: str, **params: Any) -> Any:
        return self._browser.send(method, self._session, **params)

    def close(self) -> None:
        self._browser.send("Target.disposeBrowserContext", browserContextId=self._context)

    def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        self._load("Page.navigate", url=url)

    def reload(self) -> None:
        self._load("Page.reload")

    def _load(self, method: str, **params: Any) -> None:
        seen = len(self.seen("Page.loadEventFired"))
        self.send(method, **params)
        self.until(lambda: len(self.seen("Page.loadEventFired")) > seen)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it did not come"
            self.send("Runtime.getIsolateId")  # events come along with answers
            time.sleep(0.01)

    def seen(self, event: str) -> list[Any]:
        """What the browser told of this page by that name."""
        return [
            m["params"] for m in self._browser.events if m.get("method") == event and m["sessionId"] == self._session
        ]

    def js(self, expression: str) -> Any:
        """The value of an expression, as if a person had just clicked."""
        result = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def shown(self, selector: str) -> list[str]:
        """The texts of those elements that can be seen."""
        found = self.js(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            ".filter(e => e.checkVisibility()).map(e => e.innerText.trim())"
        )
        assert isinstance(found, list)
        return found

    def press(self, key: str, code: int, text: str = "") -> None:
        """One key of the keyboard."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def complaints(self) -> list[Any]:
        """Errors of the console, and what the page's own policy forbade."""
        logged = [e["entry"] for e in self.seen("Log.entryAdded") if e["entry"]["level"] in ("error", "warning")]
        called = [c for c in self.seen("Runtime.consoleAPICalled") if c["type"] in ("error", "warning", "assert")]
        policy = [i["issue"] for i in self.seen("Audits.issueAdded") if "SecurityPolicy" in i["issue"]["code"]]
        return [*logged, *called, *policy, *self.seen("Runtime.exceptionThrown")]

    def requests(self) -> list[str]:
        """The addresses that were asked for something."""
        asked = [str(r["request"]["url"]) for r in self.seen("Network.requestWillBeSent")]
        return [url for url in asked if not url.startswith("data:")]

    def screenshot(self, path: Path) -> None:
        """The whole page as a picture."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


class Ear:
    """Listens in on what comes to a port, and passes it on."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.heard = bytearray()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(ours,), daemon=True).start()

    def _carry(self, ours: socket.socket) -> None:
        with ours, socket.create_connection(("127.0.0.1", self._to)) as theirs, contextlib.suppress(OSError):
            back = threading.Thread(target=_pump, args=(theirs, ours), daemon=True)
            back.start()
            while data := ours.recv(65536):
                self.heard += data
                theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            back.join(PATIENCE)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def listening_in(port: int) -> Iterator[Ear]:
    ear = Ear(port)
    try:
        yield ear
    finally:
        ear.close()
