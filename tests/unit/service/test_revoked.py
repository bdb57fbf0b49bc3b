"""The file of revoked tokens, as people write it."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tunnel_core.errors import UsageError
from tunnel_core.protocol import tokens
from tunnel_core.service import logs
from tunnel_core.service.revoked import MAX_SIZE, MAX_WARNINGS, Revoked, parse

# Names of tests are made of these: they have to be the same in every process.
ID, OTHER = "5f1d0c6e9ab84c2e8d33f0a1b7c4e962", "0b9e7a4d21c84f6fa5d8e3c60f7b1d94"
TOKEN = tokens.issue(b"s" * 32, role="client", tunnels=["mc"], subject="alex", expires=time.time() + 60)
UUID = str(uuid.UUID(OTHER)).upper()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (ID, ID),
        (f"  {ID}\t", ID),
        (f"{ID}  # stolen on Monday", ID),
        (f'"{ID}",', ID),
        (f"'{ID}'", ID),
        (f"`{ID}`", ID),
        (f'["{ID}"]', ID),
        (ID.upper(), ID),
        (UUID, UUID),
        pytest.param(TOKEN, tokens.read(TOKEN).id, id="token"),
        pytest.param(f'"{TOKEN}",', tokens.read(TOKEN).id, id="token in quotes"),
        pytest.param(f"Bearer {TOKEN}", tokens.read(TOKEN).id, id="token with its scheme"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_an_id_or_a_token_is_revoked(line: str, expected: str, encoding: str, end: str) -> None:
    """However it was copied, and whatever wrote the file: PowerShell writes UTF-16, Notepad a byte order mark."""
    ids, doubtful = parse(f"{line}{end}{OTHER}{end}".encode(encoding) if end else line.encode(encoding))
    assert expected in ids
    assert (OTHER in ids) == bool(end)
    assert not doubtful


def test_several_ids_may_share_a_line() -> None:
    """Separated by spaces or commas."""
    assert parse(f"{ID} {OTHER}\n".encode())[0] == parse(f"{ID},{OTHER}".encode())[0] == {ID, OTHER}


def test_what_is_neither_is_named_by_its_line() -> None:
    """It is revoked all the same, as it may be the id of a token that was made elsewhere."""
    ids, doubtful = parse(f"# friends\n\n{ID}\nalex\n{TOKEN[:50]}\n{ID[:-1]}\n{OTHER}".encode())
    assert doubtful == [4, 5, 6]
    assert ids >= {ID, OTHER, "alex"}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\xe9t\xe9", ID.encode("utf-16-le"), bytes(100)])
def test_undecodable_text_is_refused(content: bytes) -> None:
    """Whole: half a list would let tokens in."""
    with pytest.raises(ValueError, match="it is not UTF-8 text"):
        parse(content)


BAD: list[Any] = [b"\xff\n", b"#" * (MAX_SIZE + 1)]


@pytest.mark.parametrize("content", BAD, ids=["no text", "too large"])
def test_a_file_that_cannot_be_read_whole_ends_the_start(tmp_path: Path, content: bytes) -> None:
    """With one line that names it, and exit code 2."""
    file = tmp_path / "revoked"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        Revoked(str(file), logs.get())
    assert str(caught.value).startswith(f"--revoked: cannot read {file}: it ")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", BAD, ids=["no text", "too large"])
def test_a_file_that_cannot_be_read_later_changes_nothing(tmp_path: Path, content: bytes) -> None:
    """The old list stays; the log says so once, and goes on when the file is good again."""
    file = tmp_path / "revoked"
    file.write_text(ID)
    with capture_logs() as log:
        revoked = Revoked(str(file), logs.get())
        file.write_bytes(content)
        assert [revoked.reread() for _ in range(3)] == [False] * 3
        assert ID in revoked
        file.write_text(OTHER)
        assert revoked.reread()
        assert ID not in revoked
        assert OTHER in revoked
    assert [line["event"] for line in log] == ["revoked ids read", "revoked ids unreadable", "revoked ids read"]


def test_a_long_file_is_read_to_its_end(tmp_path: Path) -> None:
    """Every id of it counts, also beyond the first megabyte."""
    file = tmp_path / "revoked"
    file.write_text("\n".join([OTHER] * 40_000 + [ID]))
    assert file.stat().st_size > 1 << 20
    assert ID in Revoked(str(file), logs.get())


def test_warnings_are_few_and_repeat_nothing(tmp_path: Path) -> None:
    """Half a token is still a secret, and a file of the wrong kind has thousands of lines."""
    file = tmp_path / "revoked"
    file.write_text("\n".join([TOKEN[:-5] + " " + TOKEN[:40]] * 100))
    with capture_logs() as log:
        Revoked(str(file), logs.get())
    warnings = [line for line in log if line["log_level"] == "warning"]
    assert [line.get("line") for line in warnings] == [*range(1, MAX_WARNINGS + 1), None]
    assert warnings[-1]["more_lines"] == 100 - MAX_WARNINGS
    assert TOKEN[:10] not in str(log)


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    """Also if the new one has the size and time of the old."""
    file, other = tmp_path / "revoked", tmp_path / "other"
    file.write_text(ID)
    revoked = Revoked(str(file), logs.get())
    other.write_text(OTHER)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert revoked.reread()
    assert OTHER in revoked
