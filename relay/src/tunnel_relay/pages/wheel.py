"""The project's own wheel, which the relay serves."""

from __future__ import annotations

import email.parser
import hashlib
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunnel_core import __version__
from tunnel_core.errors import UsageError
from tunnel_core.net.sockets import why

PROJECT: Final = "tcp-ws-tunnel"
FILE_NAME: Final = f"tcp_ws_tunnel-{__version__}-py3-none-any.whl"
FOLDER: Final = Path(sys.prefix) / "share" / PROJECT  # where `make wheel` and the images put it
MAX_WHEEL: Final = 4 << 20  # bytes: kept in memory; it has 150,000


@dataclass(frozen=True)
class Wheel:
    """A wheel file in memory."""

    name: str
    content: bytes
    requires_python: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def find(given: str) -> Wheel | None:
    """The wheel in the file `given`, or the installed one if `given` is empty; None if there is none.

    Raises UsageError for a file that is not a wheel of this version: friends would get another program.
    """
    path = Path(given) if given else FOLDER / FILE_NAME
    if not given and not path.is_file():
        return None
    if path.name != FILE_NAME:
        raise UsageError(f"--join-wheel: {path} is not the wheel of this version: its name is {FILE_NAME}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_WHEEL + 1)
        with zipfile.ZipFile(path) as archive:
            metadata = archive.read(f"tcp_ws_tunnel-{__version__}.dist-info/METADATA")
    except (OSError, KeyError, zipfile.BadZipFile) as exc:
        raise UsageError(f"--join-wheel: cannot read {path}: {why(exc)}") from exc
    if len(content) > MAX_WHEEL:
        raise UsageError(f"--join-wheel: {path} has more than {MAX_WHEEL >> 20} MiB")
    fields = email.parser.BytesHeaderParser().parsebytes(metadata)
    return Wheel(path.name, content, str(fields.get("Requires-Python", "")))
