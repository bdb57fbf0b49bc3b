"""Requests by hand, as browsers and package installers make them."""

from __future__ import annotations

from dataclasses import dataclass

from support.apps import close, connect


@dataclass
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


async def ask(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request; the answer is read until the connection is closed. `_` in a header's name stands for `-`."""
    reader, writer = await connect(port)
    try:
        fields = {"Host": f"127.0.0.1:{port}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        return parse(await reader.read(-1))
    finally:
        await close(writer)


def parse(raw: bytes) -> Answer:
    """An answer, whole."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = [line.split(": ", 1) for line in lines]
    names = [name.lower() for name, _ in fields]
    assert len(set(names)) == len(names), f"a header comes twice: {sorted(names)}"
    return Answer(int(first.split()[1]), {name.lower(): value for name, value in fields}, body)
