"""`host-agent doctor` and `client-agent doctor`: each check, how it fails, and what it then advises."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from client_agent import doctor as client_doctor
from client_agent.doctor import ClientDoctor
from client_agent.settings import ClientSettings, Forward
from host_agent.doctor import HostDoctor
from host_agent.settings import HostSettings, Offer
from support.apps import Handler, echo, serve, until
from support.commands import run
from support.proxies import proxy
from support.system import SECRET, System, token
from support.tls import Authority, terminating
from tunnel_core.agent import credentials, doctor
from tunnel_core.errors import UsageError
from tunnel_core.net.sockets import Address
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.service.settings import Secret
from websockets.frames import Frame, Opcode

NOT_NOW = "the rest is not checked before that is mended"


class Visit:
    """What a doctor said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.code = -1

    async def host(self, relay: str, target: int | Address = 1, **settings: Any) -> Visit:
        """Run the host-agent's."""
        to = Address("127.0.0.1", target) if isinstance(target, int) else target
        made = HostSettings(relay=relay, tunnel=(Offer("mc", to),), **({"secret": Secret(SECRET)} | settings))
        self.code = await HostDoctor(made, self.lines.append).run()
        return self

    async def client(self, relay: str, **settings: Any) -> Visit:
        """Run the client-agent's."""
        made = ClientSettings(relay=relay, forward=(Forward("", 0, "mc"),), **({"secret": Secret(SECRET)} | settings))
        self.code = await ClientDoctor(made, self.lines.append).run()
        return self

    def found(self, check: str) -> tuple[str, str]:
        """What failed of a check, and the advice; of one that is well, what it told, and nothing."""
        for number, line in enumerate(self.lines):
            match = re.fullmatch(rf"  (ok  |FAIL)  {check} +(.*)", line)
            if match is not None:
                failed = match[1] == "FAIL"
                return match[2], self.lines[number + 1].partition("→ ")[2] if failed else ""
        raise AssertionError(f"no check '{check}' in {self.lines}")

    def checks(self) -> list[str]:
        """The checks that were made."""
        return [match[1] for line in self.lines if (match := re.match(r"  (?:ok  |FAIL)  (.{12}) ", line))]


FIRST = ["name", "tcp", "tls", "proxy", "token"]


async def test_all_is_well(loop_factory: Any) -> None:
    """Both doctors say ok to everything, with figures, and leave nothing behind."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        for visit in (await Visit().host(system.url, target), await Visit().client(system.url)):
            assert visit.code == 0, visit.lines
            assert [name.strip() for name in visit.checks()] == [
                *FIRST,
                *("upgrade", "presence", "round trip", "throughput", "target"),
                "clock",
            ]
            assert re.match(r"\d+\.\d ms to the relay", visit.found("round trip")[0])
            assert re.match(r"\d+\.\d MB/s", visit.found("throughput")[0])
            assert visit.found("clock") == ("agrees with the relay's", "")
        await until(lambda: all(leg.role == "host" and leg.peer is None for leg in system.relay.pairing.legs))
        await until(lambda: system.relay.pairing.monitor._legs.keys() == system.relay.pairing.legs)


# The way to the relay.


async def test_a_name_that_is_not_found(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what cannot be checked without it is not."""
    resolving(monkeypatch, {})
    visit = await Visit().host("wss://relay.test")
    assert visit.code == 1
    assert visit.found("name") == (
        "relay.test is not found: Name or service not known",
        "check the spelling of --relay, and this machine's DNS",
    )
    assert NOT_NOW in visit.lines
    assert "upgrade" not in "".join(visit.checks())


def resolving(monkeypatch: pytest.MonkeyPatch, places: dict[str, str]) -> None:
    """Have these names, and no others that end in .test."""
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        if not host.endswith(".test"):
            return await resolve(host, port, **options)
        if host not in places:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await resolve(places[host], port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


async def test_a_port_that_does_not_answer(loop_factory: Any) -> None:
    """No relay there, or a firewall before it."""
    visit = await Visit().client("ws://127.0.0.1:1")
    assert visit.code == 1
    what, advice = visit.found("tcp")
    assert what.startswith("127.0.0.1:1 does not answer: ")
    assert advice == "is the relay running there, and does a firewall let you out to that port?"
    assert NOT_NOW in visit.lines


async def test_tls(loop_factory: Any, tmp_path: Path) -> None:
    """A good certificate, one that is not trusted, and no TLS where it is asked for."""
    authority = Authority(tmp_path)
    async with System() as system:
        await system.host({"mc": 1})
        async with terminating(system.relay.port, authority.context("127.0.0.1")) as port:
            url = f"wss://127.0.0.1:{port}"
            visit = await Visit().host(url, system.relay.port, ca_file=str(authority.file))
            assert visit.code == 0, visit.lines
            assert re.match(r"TLSv1\.\d, certificate good until ", visit.found("tls")[0])
            visit = await Visit().host(url)
            assert visit.code == 1
            what, advice = visit.found("tls")
            assert what.startswith("the certificate is not trusted: ")
            assert advice == "give its authority with --ca-file, or have the relay's certificate mended"
        visit = await Visit().host(f"wss://127.0.0.1:{system.relay.port}")
        assert visit.code == 1
        what, advice = visit.found("tls")
        assert re.match(r"no TLS there: \S+", what)
        assert advice == "is this port meant for wss://? try ws://, or port 443"


async def test_a_token_in_clear(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """ws:// to another machine shows the token to all on the way."""
    resolving(monkeypatch, {"relay.test": "127.0.0.1"})
    async with System() as system:
        visit = await Visit().host(f"ws://relay.test:{system.relay.port}")
        assert visit.code == 1
        assert visit.found("tls") == (
            "none: the token crosses the network for all to read",
            "use the wss:// URL of the relay",
        )


# Proxies.


async def test_a_proxy(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named without its password; one that refuses fails the upgrade; one that is none ends the doctor."""
    async with System() as system, proxy("http", login="alex:pass") as by:
        await system.host({"mc": 1})
        monkeypatch.setenv("http_proxy", f"http://alex:pass@127.0.0.1:{by.port}")
        visit = await Visit().host(system.url, system.relay.port)
        assert visit.code == 0, visit.lines
        assert visit.found("proxy")[0] == f"http://127.0.0.1:{by.port}, from the environment"
        monkeypatch.setenv("http_proxy", f"http://alex:wrong@127.0.0.1:{by.port}")
        visit = await Visit().host(system.url)
        assert visit.code == 1
        what, advice = visit.found("upgrade")
        assert what.startswith(f"the proxy to {system.url} failed")
        assert "proxy" in advice
        assert "wrong" not in "".join(visit.lines)
        for url in ("ftp://alex:word@127.0.0.1:1", "http://alex:word@127.0.0.1:x"):
            monkeypatch.setenv("http_proxy", url)
            with pytest.raises(UsageError, match="the proxy in the environment is none") as caught:
                await Visit().host(system.url)
            assert "word" not in str(caught.value)


# The token.


@pytest.mark.parametrize(
    ("given", "what", "advice"),
    [
        (lambda: token("client"), "tester: client of mc", "this is a host-agent: ask for a token with --role host"),
        (lambda: token("host", "db"), "tester: host of db", "ask for a token that has --tunnel mc"),
        (lambda: token("host", lasts=-7200), "tester: host of mc, expired 2.0 hours ago", "ask for a new one"),
        (lambda: "nonsense", "", "ask whoever runs the relay for a token: relay token …"),
    ],
)
async def test_a_token_that_is_no_good(loop_factory: Any, given: Callable[[], str], what: str, advice: str) -> None:
    """Seen without asking the relay."""
    async with System() as system:
        visit = await Visit().host(system.url, secret=Secret(), token=Secret(given()))
        assert visit.code == 1
        told, advised = visit.found("token")
        assert told.startswith(what)
        assert advised == advice
        assert NOT_NOW in visit.lines


async def test_a_secret_that_is_none(loop_factory: Any) -> None:
    """Too short to be one."""
    visit = await Visit().host("ws://127.0.0.1:1", secret=Secret("short"))
    what, advice = visit.found("token")
    assert "32 bytes" in what
    assert advice == "give the relay's own secret, or a token of whoever runs it"


async def test_a_token_that_the_relay_refuses(loop_factory: Any) -> None:
    """Another relay's: only this one can tell."""
    other = "another-secret-for-tests-of-more-than-32-bytes"
    async with System() as system:
        visit = await Visit().client(system.url, secret=Secret(), token=Secret(token("client", secret=other)))
        assert visit.code == 1
        assert visit.found("token")[1] == ""
        assert visit.found("upgrade") == (
            "the relay refuses this client: the token is not valid",
            "ask for a token made with --role client --tunnel mc",
        )


async def test_a_server_that_is_no_relay(loop_factory: Any) -> None:
    """It answers, but with something else."""

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with serve(serves) as port:
        visit = await Visit().host(f"ws://127.0.0.1:{port}")
        assert visit.code == 1
        what, advice = visit.found("upgrade")
        assert "nothing of a relay at this address" in what
        assert advice == "does a proxy on the way cut WebSockets? is the URL the relay's, with its path?"


# The probe.


def fake_relay(*says: Frame) -> Handler:
    """A relay that takes the probe, says this, and then no more."""

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        (key,) = (line.partition(": ")[2] for line in head if line.lower().startswith("sec-websocket-key"))
        accept = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {base64.b64encode(accept).decode()}\r\n"
            f"Sec-WebSocket-Protocol: tcp-ws-tunnel.v1\r\nTunnel-Leg: {new_id()}\r\n\r\n".encode()
            + b"".join(frame.serialize(mask=False) for frame in says)
        )
        while await reader.read(1 << 20):
            pass

    return serves


PROBED = Frame(Opcode.TEXT, b'{"type":"probed","hosts":1,"waiting":0}')
GONE = Frame(Opcode.CLOSE, b"\x03\xf4too busy")
SILENT = "the relay does not tell who is there: "


@pytest.mark.parametrize(
    ("says", "presence"),
    [
        ((), SILENT + "no word from it"),
        ((Frame(Opcode.TEXT, b'{"type":"paired"}'),), SILENT + "protocol violation: "),
        ((GONE,), SILENT + "too busy"),
        ((PROBED,), "1 legs of host-agents and 0 clients wait at the relay"),
    ],
    ids=["silent", "another language", "gone", "deaf"],
)
async def test_something_on_the_way_holds_frames_back(
    loop_factory: Any, monkeypatch: pytest.MonkeyPatch, says: tuple[Frame, ...], presence: str
) -> None:
    """The upgrade works, and then nothing, or not this: each check says so in its time."""
    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    async with serve(fake_relay(*says)) as port:
        visit = await Visit().host(f"ws://127.0.0.1:{port}", port)
    assert visit.code == 1
    assert visit.found("upgrade")[1] == ""
    assert visit.found("presence")[0].startswith(presence)
    assert visit.found("round trip") == (
        f"0 of {doctor.PINGS} pings were answered",
        "something on the way holds WebSocket frames back",
    )
    assert visit.found("throughput") == (
        "no bytes came back from the relay",
        "something on the way holds larger frames back",
    )
    assert visit.found("clock")[0] == "not compared: the relay told no time"


# Beyond the relay.


async def test_nobody_offers_the_tunnel(loop_factory: Any) -> None:
    """The client is told whose turn it is; the target is not asked for."""
    async with System() as system:
        visit = await Visit().client(system.url)
        assert visit.code == 1
        assert visit.found("presence") == (
            "no host-agent waits at the relay",
            "start the host-agent, and run its doctor",
        )
        assert "target" not in "".join(visit.checks())
        assert visit.lines[-1] == "1 of these need looking after"


async def test_the_target_does_not_answer(loop_factory: Any) -> None:
    """Seen from beside it, and through the tunnel."""
    async with System() as system:
        await system.host({"mc": 1})
        visit = await Visit().host(system.url, 1)
        assert visit.code == 1
        what, advice = visit.found("target")
        assert what.startswith("127.0.0.1:1 does not answer: ")
        assert advice == "is the server running, and does it listen on that address and port?"
        visit = await Visit().client(system.url)
        assert visit.code == 1
        assert visit.found("target") == (
            "through the tunnel: the target refused the connection",
            "run the host-agent's doctor: it sees the target",
        )


async def test_the_host_takes_no_stream(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leg waits, but nothing answers on it."""
    monkeypatch.setattr(client_doctor, "PATIENCE", 0.2)
    async with System() as system, await system.dial("host", v1=True):
        visit = await Visit().client(system.url)
        assert visit.code == 1
        what, advice = visit.found("target")
        assert what.startswith("no answer through the tunnel")
        assert advice == "run the host-agent's doctor"


# The clock.


@pytest.mark.parametrize(
    ("ahead", "told"), [(3600, "3600 s ahead of the relay's"), (-3600, "3600 s behind the relay's")]
)
async def test_a_clock_that_is_wrong(loop_factory: Any, monkeypatch: pytest.MonkeyPatch, ahead: int, told: str) -> None:
    """Told also where the relay refuses the token for it: tokens of an hour ago are none."""
    clock = SimpleNamespace(time=lambda: time.time() + ahead, perf_counter=time.perf_counter)
    monkeypatch.setattr(doctor, "time", clock)
    monkeypatch.setattr(credentials, "time", clock)
    async with System() as system:
        visit = await Visit().host(system.url, system.relay.port)
        assert visit.code == 1
        assert (visit.found("upgrade")[1] == "") == (ahead > 0)
        what, advice = visit.found("clock")
        assert re.sub(r"(3599|3601) s", "3600 s", what) == told
        assert advice == "set this machine's clock (NTP): tokens are good only within their time"


# The commands.


async def test_the_commands_exit_codes(loop_factory: Any, tmp_path: Path) -> None:
    """0 if all is well, 1 if not, 2 for what was said wrong; the report on standard output, and nothing beside it."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        flags = ("--relay", system.url, "--secret-file", str(secret))
        hosts = ("host-agent", "doctor", *flags, "--tunnel")
        clients = ("client-agent", "doctor", *flags, "--forward")
        for line, code in (
            ((*hosts, f"mc=127.0.0.1:{target}"), 0),
            ((*clients, "0=mc"), 0),
            ((*hosts, "mc=127.0.0.1:1"), 1),
            ((*clients, "0=nobody"), 1),
            ((*hosts, "nonsense"), 2),
        ):
            done = await asyncio.to_thread(run, *line)
            assert done.returncode == code, done
            if code < 2:
                assert done.stderr == ""
                assert ("FAIL" in done.stdout) == (code == 1)
            else:
                assert (done.stdout, done.stderr.count("\n")) == ("", 1)
