"""What attackers do to a tunnel, with genuine tokens or none, over and over: see `faults/test_attack.py`.

Each attack is a generator: one turn of it after the other, until it is told to stop. It ends with OSError or EOFError
when the other end has had enough, and then begins again.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tunnel_core.protocol import tokens
from tunnel_core.protocol.endpoints import INSTANCE_KEY_HEADER, Role, new_id
from websockets.frames import Opcode

from support.attacker import Attacker, masked, request, said
from support.commands import with_tests

WINDOW: Final = 1 << 20
HOST_ALONE: Final = "den"  # a tunnel that attackers offer themselves
SILENT: Final = 800  # connections that say nothing, at each port
UNREAD: Final = 40  # legs that ping and never read
STALLED: Final = 200  # local connections that write and never read
LOST: Final = 300  # resumes that wait for nobody
PACE: Final = 0.01  # seconds after a turn: all together they take a core, and leave one to what they attack
VICTIMS: Final = 10  # streams whose host ends every resume

READY: Final = "ready\n"

Turns = Generator[None, None, None]


@dataclass(frozen=True, kw_only=True)
class Gang:
    """What attackers know: a secret's worth of tokens, and addresses.

    `port` is the relay's, `admin_port` its admin port; at `stalls` and `victims` listens a client-agent that leads to
    `tunnel` and to `HOST_ALONE`; `revoked` is the file of the relay's revoked tokens, in which `revoked_token` is.
    """

    secret: str
    tunnel: str
    port: int
    admin_port: int
    stalls: int
    victims: int
    revoked: str
    revoked_token: str
    turns: Counter[str] = field(default_factory=Counter)  # of each attack
    successes: list[str] = field(default_factory=list)  # what must not have come about
    _tokens: dict[tuple[str, Role, tuple[str, ...]], str] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def attack(self, name: str, times: int) -> None:
        """Attack, in so many threads, until the standard input ends."""

        def run() -> None:
            while not self._over.is_set():
                with contextlib.suppress(OSError, EOFError), contextlib.closing(attack(self)) as turns:
                    for _ in turns:
                        self.turns[name] += 1
                        if self._over.is_set():
                            return
                self._over.wait(0.02)

        attack = ALL[name]
        threads = [threading.Thread(target=run) for _ in range(times)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self._over.set()
        for thread in threads:
            thread.join()

    def wait(self, seconds: float) -> None:
        """Wait, unless the attack is over before."""
        self._over.wait(seconds)

    def token(self, subject: str, role: Role = "client", *tunnels: str) -> str:
        """The token of this attacker for these tunnels: the same each time."""
        key = subject, role, tunnels or (self.tunnel,)
        if key not in self._tokens:
            self._tokens[key] = tokens.issue(
                self.secret.encode(), role=role, tunnels=key[2], subject=subject, expires=4e9
            )
        return self._tokens[key]

    def leg(
        self,
        subject: str,
        path: str = "",
        *,
        role: Role = "client",
        tunnel: str = "",
        v1: bool = True,
        source: str = "127.0.0.2",
        receives: int = 0,
        headers: dict[str, str] | None = None,
        port: int = 0,
    ) -> Attacker:
        """A leg with this attacker's token."""
        attacker = Attacker(port or self.port, source=source, receives=receives)
        bearer = self.token(subject, role, tunnel or self.tunnel)
        attacker.send(request(path or f"/{role}/{tunnel or self.tunnel}", bearer=bearer, v1=v1, headers=headers))
        if attacker.head().startswith(b"HTTP/1.1 101"):
            return attacker
        leave(attacker)
        raise EOFError


def leave(attacker: Attacker) -> None:
    """Close with RST: a port that waits for the end of a connection cannot be used again."""
    attacker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    attacker.sock.close()


@contextlib.contextmanager
def leaving(attackers: Iterable[Attacker]) -> Iterator[None]:
    """Leave with those that there are by then."""
    try:
        yield
    finally:
        for attacker in attackers:
            leave(attacker)


def opened(leg: Attacker, stream: str) -> dict[str, Any]:
    """Open a stream. Returns `paired`; raises EOFError if the host does not accept."""
    leg.send(said("open", stream=stream, key=new_id(), window=WINDOW))
    paired = leg.heard()
    if paired["type"] != "paired" or leg.heard()["type"] != "accepted":
        raise EOFError
    return paired


def opens_after_the_end(gang: Gang) -> Turns:
    """Data that ends the leg, and an `open` behind it in the same segment."""
    with leaving([leg := gang.leg("after-the-end")]):
        stream = new_id()
        opened(leg, stream)
        another = said("open", stream=new_id(), key=new_id(), window=WINDOW)
        reset = said("reset", stream=stream, reason="")
        leg.send(reset + masked(Opcode.BINARY, b"?") + another + masked(Opcode.BINARY, bytes(20_000)))
        while next(leg.frames(), (Opcode.CLOSE, b""))[0] != Opcode.CLOSE:
            pass
        yield
        gang.wait(PACE)


def claims_an_instance(gang: Gang) -> Turns:
    """A client learns the host's instance, and claims it: as a client, and as the host of another tunnel."""
    with leaving(legs := [gang.leg("thief")]):
        instance = opened(legs[0], new_id())["instance"]
        legs[0].send(said("reset", stream=new_id(), reason=""))
        claims = {INSTANCE_KEY_HEADER: instance, "Tunnel-Instance": instance}
        legs.append(gang.leg("thief", role="host", tunnel="lair", headers=claims))
        legs.append(gang.leg("thief", headers=claims))
        legs[-1].send(said("resume", stream=new_id(), proof=new_id(), instance=instance, attempt=1, received=0))
        if legs[-1].heard()["type"] == "paired" and legs[-1].heard()["type"] != "gone":
            gang.successes.append("a stream that nobody has was resumed")
        yield
        gang.wait(10 * PACE)


def never_reads(gang: Gang) -> Turns:
    """Local connections of one friend that write to an echo for a while, and never read."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(STALLED):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", gang.stalls))
            sock.setblocking(False)
            socks.append(sock)
        data = bytes(64 * 1024)
        for _ in range(100):
            for sock in socks:
                with contextlib.suppress(BlockingIOError):
                    sock.send(data)
            yield
            gang.wait(0.3)


def _silent(gang: Gang, port: int, sources: Iterator[str]) -> Turns:
    with leaving(silent := deque[Attacker]()):
        while True:
            silent.append(Attacker(port, source=next(sources)))
            if len(silent) > SILENT:
                leave(silent.popleft())
            yield
            gang.wait(1 / 65)


def says_nothing(gang: Gang) -> Turns:
    """Connections without a request, from one address and from many."""
    one, many = itertools.repeat("127.0.0.3"), (f"127.0.1.{n % 250 + 1}" for n in itertools.count())
    sources = itertools.chain.from_iterable(zip(one, many, strict=False))
    yield from _silent(gang, gang.port, sources)


def says_nothing_to_the_operator(gang: Gang) -> Turns:
    """The same at the admin port."""
    yield from _silent(gang, gang.admin_port, itertools.repeat("127.0.0.3"))


def pings_and_never_reads(gang: Gang) -> Turns:
    """Pings as large as they may be, from legs of each kind that do not read the answers."""
    kinds: tuple[dict[str, Any], ...] = (
        {"role": "host", "tunnel": "kennel", "v1": False},
        {"v1": True},
        {"path": f"/probe/client/{gang.tunnel}"},
    )
    with leaving(legs := list[Attacker]()):
        ping = masked(Opcode.PING, b"p" * 125)
        while True:
            while len(legs) < UNREAD:
                kind = kinds[len(legs) % len(kinds)]
                legs.append(gang.leg("pinger", source="127.0.0.4", receives=4096, **kind))
                legs[-1].sock.setblocking(False)
            for leg in tuple(legs):
                try:
                    leg.sock.send(ping)
                except BlockingIOError:
                    pass
                except OSError:
                    legs.remove(leg)
                    leave(leg)
            yield
            gang.wait(PACE)


def has_no_token(gang: Gang) -> Turns:
    """Requests without a good token from the very address of honest agents, and for what only resembles a leg."""
    good = gang.token("stranger")
    forged = {"X-Forwarded-For": "10.1.2.3", "x-forwarded-for": "10.4.5.6"}
    requests = [
        *([request(f"/client/{gang.tunnel}", headers=forged)] * 10),
        *([request(f"/host/{gang.tunnel}", bearer=f"{good}x", v1=True)] * 10),
        request(f"/client/{gang.tunnel}/{good}"),
        request(f"x/client/{gang.tunnel}", bearer=good),
        request(f"http:/client/{gang.tunnel}", bearer=good),
        request(f"/probeXYZ/client/{gang.tunnel}", bearer=good),
        request(f"/host/{gang.tunnel}", bearer=good, v1=True),
    ]
    for attempt in itertools.cycle(requests):
        with leaving([attacker := Attacker(gang.port)]):
            attacker.send(attempt)
            if b" 101 " in attacker.head():
                gang.successes.append(f"let in: {attempt!r}")
        yield
        gang.wait(PACE)


def opens_and_ends(gang: Gang) -> Turns:
    """Streams of nothing, one after the other on one pair: lines in three logs, and much to remember."""
    with leaving([leg := gang.leg("restless", source="127.0.0.5")]):
        for _ in range(1000):
            stream = new_id()
            leg.send(said("open", stream=stream, key=new_id(), window=WINDOW) + said("fin", stream=stream, sent=0))
            while leg.heard()["type"] != "fin":
                pass
            leg.send(said("ack", stream=stream, received=1))
            yield
            gang.wait(PACE)


def resumes_nothing(gang: Gang) -> Turns:
    """`resume`s that wait for a host which does not exist."""
    with leaving(waiting := deque[Attacker]()):
        while True:
            waiting.append(gang.leg("lost", source="127.0.0.6"))
            resume = said("resume", stream=new_id(), proof=new_id(), instance=new_id(), attempt=1, received=0)
            waiting[-1].send(resume + masked(Opcode.BINARY, bytes(1000)))
            if len(waiting) > LOST:
                leave(waiting.popleft())
            yield
            gang.wait(PACE)


def comes_back(gang: Gang) -> Turns:
    """Somebody whose token was revoked, while the file that says so is rewritten with every mistake there is."""
    token = gang.revoked_token
    named = tokens.read(token).id
    contents = [
        named.encode(),
        codecs.BOM_UTF8 + f'"{named}",\r\n'.encode(),
        f"# gone\nBearer {token}\n".encode(),
        f"{named}\nneither an id nor a token\n".encode("utf-16"),
        f"{named}\n".encode() * 100_000,  # too much
        named.encode() + b"\xff\xff",  # not text
        named[:10].encode() + b"\xff",
    ]
    for turn in itertools.count():
        if turn % 20 == 0:
            fresh = Path(f"{gang.revoked}.new")
            fresh.write_bytes(contents[turn // 20 % len(contents)])
            fresh.replace(gang.revoked)
        with leaving([attacker := Attacker(gang.port, source="127.0.0.7")]):
            attacker.send(request(f"/client/{gang.tunnel}", bearer=token, v1=True))
            if b" 101 " in attacker.head():
                gang.successes.append(f"a revoked token was let in, turn {turn}")
        yield
        gang.wait(10 * PACE)


_DEN_KEY: Final = new_id()


def ends_every_resume(gang: Gang) -> Turns:
    """A host that accepts a stream, drops its leg a moment later, and ends the leg of each `resume`."""
    with leaving([leg := gang.leg("evil", role="host", tunnel=HOST_ALONE, headers={INSTANCE_KEY_HEADER: _DEN_KEY})]):
        while (message := leg.heard())["type"] == "paired":
            pass
        if message["type"] == "open":
            leg.send(said("accepted", stream=message["stream"], window=WINDOW))
            gang.wait(1)
        elif message["type"] == "resume":
            endings = (
                masked(Opcode.CLOSE, (4409).to_bytes(2, "big")),
                said("ack", stream=message["stream"], received=0),
                said("resumed", stream=message["stream"], received=0, proof=new_id()) + masked(Opcode.BINARY, b"?"),
                b"",
            )
            leg.send(random.choice(endings))
        yield


def is_ended(gang: Gang) -> Turns:
    """The local connections of the friend whose host that is."""
    with contextlib.ExitStack() as stack:
        for _ in range(VICTIMS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", gang.victims), timeout=5))
            sock.sendall(os.urandom(100))
        for _ in range(30):
            yield
            gang.wait(1)


ALL: Final = {
    attack.__name__: attack
    for attack in (
        opens_after_the_end,
        claims_an_instance,
        never_reads,
        says_nothing,
        says_nothing_to_the_operator,
        pings_and_never_reads,
        has_no_token,
        opens_and_ends,
        resumes_nothing,
        comes_back,
        ends_every_resume,
        is_ended,
    )
}
SEVERAL: Final = {"opens_after_the_end": 2, "opens_and_ends": 2, "ends_every_resume": 4}  # do it at once


class Attackers:
    """Each attack in a process of its own, from here until `stop`."""

    def __init__(self, gang: Gang) -> None:
        self._gang = gang
        self._children: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        known = {each.name: getattr(self._gang, each.name) for each in fields(Gang)[:8]}
        for name in ALL:
            child = self._children[name] = subprocess.Popen(
                [sys.executable, "-m", "support.attacks", name, str(SEVERAL.get(name, 1))],
                env=with_tests(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        for child in self._children.values():
            assert child.stdout is not None
            assert child.stdout.readline() == READY
        for child in self._children.values():
            assert child.stdin is not None
            child.stdin.write(json.dumps(known) + "\n")
            child.stdin.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.kill()
            child.communicate()

    def stop(self) -> dict[str, int]:
        """End all attacks. Returns how many turns of each there were; what succeeded goes to the gang's list."""
        for child in self._children.values():
            assert child.stdin is not None
            child.stdin.close()
            child.stdin = None
        turns = {}
        for name, child in self._children.items():
            printed, _ = child.communicate(timeout=60)
            assert child.returncode == 0, f"{name}: {child.returncode}"
            told = json.loads(printed)
            turns[name] = told["turns"]
            self._gang.successes.extend(told["successes"])
        return turns


def main() -> None:
    """One attack, whose name and number of threads are the arguments; what it has to know is the first line."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    print(READY, end="", flush=True)
    gang = Gang(**json.loads(sys.stdin.readline()))
    name, times = sys.argv[1:]
    gang.attack(name, int(times))
    print(json.dumps({"turns": gang.turns[name], "successes": gang.successes}))


if __name__ == "__main__":
    main()
