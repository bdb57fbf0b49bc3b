"""Reads the small text files that people make with whatever they have at hand.

Imported by the health command, so it imports nothing.
"""

from __future__ import annotations


def read(path: str) -> str:
    """The text of a file, without white space around it.

    Raises OSError, and ValueError in words for people if it is no text.
    """
    with open(path, "rb") as file:
        return decode(file.read()).strip()


def decode(data: bytes) -> str:
    """Text in UTF-8 or UTF-16, with a byte order mark or without. Raises ValueError."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"  # PowerShell's `>` writes that
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
