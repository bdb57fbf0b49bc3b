"""How many lines others can make a service write."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from tunnel_core.service import logs
from tunnel_core.service.logs import Throttle

DAY = 86_400


class Log:
    """A throttle, its clock, and what it has written."""

    def __init__(self, level: str = "info") -> None:
        self._output = io.StringIO()
        logs.configure("test", level=level, style="json", file=self._output)
        self.now = 0.0
        self.throttle = Throttle(logs.get(), clock=lambda: self.now)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._output.getvalue().splitlines()]

    def of(self, key: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("key") == key]

    def write(self, key: str, count: int = 1) -> None:
        log = self.throttle.by(key)
        for _ in range(count):
            log.info("stream opening", key=key)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Each key may write 5 lines and one a second; all together 20 and two a second; 4 keys are told apart."""
    for name, value in (("KEY_AT_ONCE", 5), ("KEY_PER_SECOND", 1.0), ("ALL_AT_ONCE", 20), ("ALL_PER_SECOND", 2.0)):
        monkeypatch.setattr(logs, name, value)
    monkeypatch.setattr(logs, "MAX_KEYS", 4)
    return Log()


def test_a_flood_is_cut_and_counted(log: Log) -> None:
    """The next line that is written says how many before it were not."""
    log.write("a", 100)
    assert len(log.lines) == 5
    log.now = 1.0
    log.write("a", 2)
    assert [line.get("suppressed") for line in log.lines] == [None] * 5 + [95]
    log.now = 2.0
    log.write("a")
    assert log.lines[-1]["suppressed"] == 1
    log.now = 3.0
    log.write("a")
    assert "suppressed" not in log.lines[-1]


def test_others_write_on(log: Log) -> None:
    """A flood takes nothing from another key, of information or of warnings."""
    log.write("a", 100)
    log.write("b")
    log.throttle.warning("leg refused")
    assert len(log.of("b")) == 1
    assert log.lines[-1]["event"] == "leg refused"
    assert "suppressed" not in log.lines[-1]


def test_all_together_are_bounded(log: Log) -> None:
    """However many keys there are."""
    for second in range(100):
        log.now = float(second)
        for key in range(20):
            log.write(str(key), 10)
    assert len(log.lines) <= 20 + 2 * 100
    assert sum(line.get("suppressed", 0) for line in log.lines) + len(log.lines) <= 100 * 200


def test_keys_are_bounded(log: Log) -> None:
    """Those beyond share what one may write, until an old one has been quiet for long enough."""
    for key in "abcd":
        log.write(key, 2)
    log.write("e", 5)
    log.write("f", 5)
    assert len(log.of("e")) + len(log.of("f")) == 5
    log.now = 10.0
    log.write("g", 5)
    assert len(log.of("g")) == 5
    assert log.of("g")[0].get("suppressed") is None


def test_debug_and_errors_always_pass(log: Log) -> None:
    """An operator asks for the one, and needs the other."""
    log.write("a", 100)
    for _ in range(10):
        log.throttle.by("a").error("revoked ids unreadable")
    assert len(log.lines) == 15
    talkative = Log("debug")
    for _ in range(50):
        talkative.throttle.debug("leg opened")
    assert len(talkative.lines) == 50


def test_lines_that_are_not_wanted_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only warnings are logged, a flood of information holds none of them back."""
    monkeypatch.setattr(logs, "KEY_AT_ONCE", 5)
    log = Log("warning")
    log.write("a", 100)
    log.throttle.by("a").warning("client refused")
    (line,) = log.lines
    assert "suppressed" not in line


def test_bound_fields_share_the_budget(log: Log) -> None:
    """Whatever a line is bound to, it is its key's."""
    for number in range(10):
        log.throttle.by("a").bind(stream=number).info("stream opened")
    assert [line["stream"] for line in log.lines] == list(range(5))


def test_a_day_of_floods_fits_a_disk() -> None:
    """The figures that docs/security.md states, with lines of 250 bytes."""
    assert (logs.KEY_AT_ONCE + DAY * logs.KEY_PER_SECOND) * 250 < 450e6
    assert (logs.ALL_AT_ONCE + DAY * logs.ALL_PER_SECOND) * 250 < 4.5e9


def test_a_peer_writes_nothing_that_a_terminal_obeys() -> None:
    """What it gives as a reason is shown, with escapes."""
    file = io.StringIO()
    logs.configure("relay", level="info", style="console", file=file)
    logs.get().info("stream closed", reason="\x1b[2J\x07\u202e", subject="Käthe")
    assert file.getvalue().isascii() is False  # Käthe
    assert all(c.isprintable() for c in file.getvalue().strip()), file.getvalue()
