"""What the processes log, read as it comes."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from demo.processes import Process


class LogReader:
    """Follows one log, and keeps what matters of it."""

    def __init__(self, process: Process) -> None:
        self._path = process.log
        self._at = 0
        self._opened: set[str] = set()
        self.bugs: list[dict[str, Any]] = []
        self.other: list[str] = []  # lines that are no event, such as a traceback
        self.outcomes: Counter[str] = Counter()
        self.pauses: list[int] = []  # milliseconds
        self.replayed = 0  # bytes
        # Address of a client application → whether its stream was ever open, and why it ended otherwise than well.
        self.broken: dict[str, tuple[bool, str]] = {}

    def read(self) -> None:
        """Read what has come since."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]  # the last line may still be being written
        self._at += len(data)
        for line in data.decode(errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                self.other.append(line)
            else:
                self._keep(event)

    def _keep(self, line: dict[str, Any]) -> None:
        match line.get("event"):
            case "bug":
                self.bugs.append(line)
            case "stream opened":
                self._opened.add(line.get("stream", ""))
            case "stream resumed":
                self.pauses.append(line["paused_ms"])
                self.replayed += line["replayed_bytes"]
            case "stream closed":
                self.outcomes[line["outcome"]] += 1
                opened = line.get("stream", "") in self._opened
                self._opened.discard(line.get("stream", ""))
                if line["outcome"] != "finished":
                    self.broken[line.get("client", "")] = opened, line["reason"]
