"""Reads small text files, whatever editor or shell made them.

The health command imports this module, so it imports nothing itself.
"""

from __future__ import annotations


def read(path: str) -> str:
    """The text of a file, without surrounding white space.

    Raises OSError, or ValueError with a readable message if the file is not text.
    """
    with open(path, "rb") as file:
        return decode(file.read()).strip()


def decode(data: bytes) -> str:
    """Decode UTF-8 or UTF-16, with or without a byte order mark. Raises ValueError."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"  # as PowerShell's `>` writes
    elif data and len(data) % 2 == 0 and not any(data[1::2]):
        encoding = "utf-16-le"
    elif data and len(data) % 2 == 0 and not any(data[::2]):
        encoding = "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError("it is not text in UTF-8 or UTF-16")
    return text
