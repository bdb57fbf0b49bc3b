"""A command on a terminal, as a person has it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
from types import TracebackType
from typing import Self

from support.commands import BIN, PATIENCE, environment


class Terminal:
    """A terminal with a command on it: `types` is what a person does, `shown` what they read."""

    def __init__(self, command: str, *arguments: str, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [BIN / command, *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**variables), start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self._text)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._ours)

    def types(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupts(self) -> None:
        """Ctrl-C: for all that run in the terminal."""
        os.killpg(self.process.pid, signal.SIGINT)

    @property
    def lines(self) -> list[str]:
        """All lines so far, also those that others were written over."""
        while select.select([self._ours], [], [], 0)[0]:
            try:
                self._text += os.read(self._ours, 65536).decode()
            except OSError:  # the command has ended
                break
        return [line.rstrip() for line in re.split(r"[\r\n]+", self._text)]

    def shows(self, pattern: str) -> bool:
        """Whether a line was there that begins like this."""
        return any(re.match(pattern, line) for line in self.lines)

    def ended(self) -> int:
        """Wait for the end; returns the exit code."""
        return self.process.wait(PATIENCE)
