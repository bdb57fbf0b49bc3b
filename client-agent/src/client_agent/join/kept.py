"""Stores invites in the user's configuration folder: one file each, readable by that user only."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path
from typing import Final

import platformdirs
from tunnel_core.errors import UsageError
from tunnel_core.net.sockets import why
from tunnel_core.protocol import invite
from tunnel_core.protocol.endpoints import is_tunnel
from tunnel_core.protocol.invite import MAX_INPUT, Invite

ENDING: Final = ".invite"
MAX_NAME: Final = 59  # characters of the tunnel's name if a number follows


def default_folder() -> Path:
    """The folder of this user's invites."""
    return platformdirs.user_config_path("tcp-ws-tunnel", appauthor=False) / "invites"


class KeptInvites:
    """The invites in `folder`, each named after its tunnel, with a number if another relay's tunnel has that name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """All names, sorted."""
        try:
            found = [path.name.removesuffix(ENDING) for path in self.folder.glob(f"*{ENDING}")]
        except OSError:
            return []
        return sorted(filter(is_tunnel, found))

    def read(self, name: str) -> Invite:
        """The invite of that name. Raises UsageError if it is missing, unreadable or damaged."""
        try:
            with self._path(name).open(encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_INPUT)
        except FileNotFoundError as exc:
            names = self.names()
            others = f"choose from {', '.join(names)}" if names else "run tcp-ws-tunnel join, and paste your link"
            raise UsageError(f"no invite '{name}' is stored here: {others}") from exc
        except OSError as exc:
            raise UsageError(f"cannot read {self._path(name)}: {why(exc)}") from exc
        try:
            return invite.parse(text)
        except UsageError as exc:
            raise UsageError(
                f"the invite '{name}' is damaged: paste your link again with tcp-ws-tunnel join --new"
            ) from exc

    def keep(self, given: Invite) -> tuple[str, bool]:
        """Store it, replacing an earlier one for the same tunnel. Returns its name, and whether anything changed.

        Raises OSError.
        """
        name, there = self._name_for(given)
        if there == given:
            return name, False
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Readable by its owner only (mode 0600; on Windows by the profile's ACL), and never half-written.
        descriptor, temporary = tempfile.mkstemp(dir=self.folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{given.link()}\n")
            Path(temporary).replace(self._path(name))
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        return name, True

    def forget(self, name: str) -> None:
        """Delete it. Raises UsageError if there is none."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            self.read(name)  # which says so
        except OSError as exc:
            raise UsageError(f"cannot remove {self._path(name)}: {why(exc)}") from exc

    def _name_for(self, given: Invite) -> tuple[str, Invite | None]:
        """The name to store it under, and the invite that it replaces."""
        numbered = (f"{given.tunnel[:MAX_NAME].rstrip('-')}-{number}" for number in itertools.count(2))
        taken = self.names()
        for name in itertools.chain((given.tunnel,), numbered):
            if name not in taken:
                return name, None
            try:
                there = self.read(name)
            except UsageError:
                return name, None  # damaged
            if (there.relay, there.tunnel) == (given.relay, given.tunnel):
                return name, there
        raise AssertionError("there is no last number")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{ENDING}"
