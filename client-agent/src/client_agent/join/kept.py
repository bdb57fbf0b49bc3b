"""The invites that a friend has used, in their own configuration folder: one file each, for nobody else to read."""

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
MAX_NAME: Final = 59  # characters of a tunnel's name that are left if a number follows it


def default_folder() -> Path:
    """Where the invites of this user are kept."""
    return platformdirs.user_config_path("tcp-ws-tunnel", appauthor=False) / "invites"


class KeptInvites:
    """The invites in `folder`. Each has a name: that of its tunnel, with a number if another relay's has it already."""

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
        """The invite of that name. Raises UsageError if there is none, or none that is whole."""
        try:
            with self._path(name).open(encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_INPUT)
        except FileNotFoundError as exc:
            names = self.names()
            others = f"those that are: {', '.join(names)}" if names else "run tcp-ws-tunnel join, and paste your link"
            raise UsageError(f"no invite '{name}' is kept here: {others}") from exc
        except OSError as exc:
            raise UsageError(f"cannot read {self._path(name)}: {why(exc)}") from exc
        try:
            return invite.parse(text)
        except UsageError as exc:
            raise UsageError(
                f"the invite '{name}' is damaged: give your link once more, with tcp-ws-tunnel join --new"
            ) from exc

    def keep(self, given: Invite) -> tuple[str, bool]:
        """Keep it, in the place of an earlier one for the same tunnel. Returns its name, and whether it is new here.

        Raises OSError.
        """
        name, there = self._name_for(given)
        if there == given:
            return name, False
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made for its owner alone (mode 0600; on Windows the profile's own rights), whole or not at all.
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
        """Remove it. Raises UsageError if there is none."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            self.read(name)  # which says so
        except OSError as exc:
            raise UsageError(f"cannot remove {self._path(name)}: {why(exc)}") from exc

    def _name_for(self, given: Invite) -> tuple[str, Invite | None]:
        """The name to keep it by, and what has that name now."""
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
