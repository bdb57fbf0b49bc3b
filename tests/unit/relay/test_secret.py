"""`relay secret`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from tunnel_core.errors import UsageError
from tunnel_core.protocol import tokens
from tunnel_core.protocol.tokens import parse_secrets
from tunnel_relay.cli import main


def test_prints_a_secret_that_the_relay_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    """And another one each time."""
    printed = set()
    for _ in range(3):
        assert main(["secret"], {}) == 0
        printed.add(parse_secrets(capsys.readouterr().out)[0])
    assert len(printed) == 3


def test_keeps_one_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For its owner alone to read, and never printed; a second run leaves it as it is."""
    path = tmp_path / "secret"
    assert main(["secret", "--output", str(path)], {}) == 0
    content = path.read_text()
    assert parse_secrets(content.strip())
    assert path.stat().st_mode & 0o777 == 0o600
    assert main(["secret", "--output", str(path)], {}) == 0
    assert path.read_text() == content
    assert content.strip() not in capsys.readouterr().out
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(UsageError, match=r"cannot write .*missing/secret: No such file"):
        main(["secret", "--output", str(tmp_path / "missing" / "secret")], {})


@pytest.mark.parametrize("terminal", [True, False])
def test_a_token_comes_with_a_hint_for_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """When it ends, and how to renew it: on a terminal alone, and never beside the token."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert main(["token", "--role", "client", "--expires", "12h"], {"RELAY_SECRET": "x" * 32}) == 0
    said = capsys.readouterr()
    assert tokens.verify(said.out.strip(), [b"x" * 32], time.time()).role == "client"
    assert said.err.startswith("This token is valid for 12 h. To renew it, make another the same way") == terminal
    assert bool(said.err) == terminal
