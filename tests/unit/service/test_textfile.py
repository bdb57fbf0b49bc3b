"""Files of settings, in whatever encoding an editor or a shell has written them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from tunnel_core.errors import UsageError
from tunnel_core.service import textfile
from tunnel_core.service.settings import Secret


@pytest.mark.parametrize(
    "data",
    [
        b"wss://relay\r\n",
        codecs.BOM_UTF8 + b"wss://relay",
        "wss://relay\r\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "wss://relay\n".encode("utf-16-be"),
        "wss://relay\r\n".encode("utf-16-le"),
        "wss://relay".encode("utf-16-be"),
    ],
    ids=["crlf", "utf-8 with a mark", "powershell", "big endian", "utf-16 without a mark", "the same, big endian"],
)
def test_text_is_read_in_the_encodings_that_shells_write(tmp_path: Path, data: bytes) -> None:
    """Without the mark, and without white space around it."""
    (tmp_path / "file").write_bytes(data)
    assert textfile.read(str(tmp_path / "file")) == "wss://relay"
    assert Secret(path=tmp_path / "file").read() == "wss://relay"


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x89PNG", b"a\0bc", b"\xff\xfe\0\xd8"])
def test_what_is_no_text_is_named(tmp_path: Path, data: bytes) -> None:
    """In one line, with the file's name and nothing of its content."""
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UsageError, match=r"cannot read .*/file: it is not text in UTF-8 or UTF-16"):
        Secret(path=tmp_path / "file").read()
