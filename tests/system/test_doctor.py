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
from tunnel_core.net import names, proxies
from tunnel_core.net.address import Address
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
        """What a check told, and the advice, which one that is well has not."""
        for number, line in enumerate(self.lines):
            match = re.fullmatch(rf"  (ok  |warn|FAIL)  {check} +(.*)", line)
            if match is not None:
                advised = match[1] != "ok  "
                return match[2], self.lines[number + 1].partition("→ ")[2] if advised else ""
        raise AssertionError(f"no check '{check}' in {self.lines}")

    def checks(self) -> list[str]:
        """The checks that were made."""
        return [match[1] for line in self.lines if (match := re.match(r"  (?:ok  |warn|FAIL)  (.{12}) ", line))]


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
    assert [name.strip() for name in visit.checks()] == ["name", "proxy", "token"]


def resolving(monkeypatch: pytest.MonkeyPatch, places: dict[str, str]) -> None:
    """Have these names, and no others that end in .test."""
    resolve = names.resolve

    async def resolves(host: str, port: int) -> Any:
        if not host.endswith(".test"):
            return await resolve(host, port)
        if host not in places:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (places[host], port))]

    monkeypatch.setattr(names, "resolve", resolves)


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
            assert what.startswith(f"the certificate of 127.0.0.1:{port} is not trusted (")
            assert advice == "give its CA with --ca-file"
        async with terminating(system.relay.port, authority.context("relay.test")) as port:
            url = f"wss://127.0.0.1:{port}"
            visit = await Visit().host(url, ca_file=str(authority.file))
            assert visit.found("tls")[1] == (
                "write the name that it is for in --relay, or give that name with --relay-host"
            )
            visit = await Visit().host(url, system.relay.port, ca_file=str(authority.file), relay_host="relay.test")
            assert visit.code == 0, visit.lines
        visit = await Visit().host(f"wss://127.0.0.1:{system.relay.port}")
        assert visit.code == 1
        what, advice = visit.found("tls")
        assert re.match(rf"no TLS with 127.0.0.1:{system.relay.port} \(\w+\)", what)
        assert advice == "is it ws:// there, or another port?"


async def test_a_token_in_clear(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """ws:// to another machine shows the token to all on the way: that is told, and the other checks are made."""
    resolving(monkeypatch, {"relay.test": "127.0.0.1"})
    async with System() as system:
        await system.host({"mc": 1})
        visit = await Visit().host(f"ws://relay.test:{system.relay.port}", system.relay.port)
        assert visit.code == 0, visit.lines
        assert "  warn  tls" in "\n".join(visit.lines)
        assert visit.found("tls") == ("none: all on the way can read the token", "use the wss:// URL of the relay")
        assert "target" in "".join(visit.checks())


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
        assert visit.found("upgrade") == (
            f"the proxy 127.0.0.1:{by.port} refuses the user name or the password",
            "write both in the variable that names it: http://USER:PASSWORD@HOST:PORT",
        )
        assert "wrong" not in "".join(visit.lines)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        visit = await Visit().host(system.url)
        assert visit.found("tcp") == ("the proxy 127.0.0.1:1 does not answer: Connection refused", proxies.ADVICE)
        resolving(monkeypatch, {})
        monkeypatch.setenv("http_proxy", "http://proxy.test:1")
        visit = await Visit().host(system.url)
        assert visit.found("name") == ("the proxy proxy.test is not found: Name or service not known", proxies.ADVICE)
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
        (lambda: "nonsense", "", "ask whoever runs the relay for a token: relay token …"),
    ],
)
async def test_an_invalid_token(loop_factory: Any, given: Callable[[], str], what: str, advice: str) -> None:
    """Seen without asking the relay."""
    async with System() as system:
        visit = await Visit().host(system.url, secret=Secret(), token=Secret(given()))
        assert visit.code == 1
        told, advised = visit.found("token")
        assert told.startswith(what)
        assert advised == advice
        assert NOT_NOW in visit.lines


async def test_an_invalid_secret(loop_factory: Any) -> None:
    """Too short to be one."""
    visit = await Visit().host("ws://127.0.0.1:1", secret=Secret("short"))
    what, advice = visit.found("token")
    assert "32 bytes" in what
    assert advice == "give the relay's own secret, or a token of whoever runs it"


async def test_a_token_that_the_relay_refuses(loop_factory: Any) -> None:
    """Another relay's, or one that is over: only this one can tell."""
    other = "another-secret-for-tests-of-more-than-32-bytes"
    async with System() as system:
        for given, what, advice in (
            (
                {"secret": Secret(), "token": Secret(token("client", secret=other))},
                "the token is not valid",
                "it was made with another secret than this relay's: ask whoever runs this relay for one",
            ),
            ({"secret": Secret(other)}, "the token is not valid", "the secret is not this relay's"),
            ({"secret": Secret()}, "a token is needed", "give one with --token-file"),
            (
                {"secret": Secret(), "token": Secret(token("client", lasts=-7200))},
                "the token has expired",
                "ask for a new one",
            ),
        ):
            visit = await Visit().client(system.url, **given)
            assert visit.code == 1
            assert visit.found("token")[1] == ""
            assert visit.found("upgrade") == (f"the relay refuses this client: {what}", advice)
        assert visit.found("expiry") == ("the token has been over for 2 h, by the relay's clock", "ask for a new one")


@pytest.mark.parametrize(
    ("lasts", "told", "advice"),
    [
        (7.06 * 86400, "the token is good for 7.1 days, by the relay's clock", ""),
        (86400, "the token is good for 24 h, by the relay's clock", credentials.RENEW),
    ],
)
async def test_the_end_of_a_token(loop_factory: Any, lasts: float, told: str, advice: str) -> None:
    """How long it is still good; a warning in the last days."""
    async with System() as system:
        await system.host({"mc": 1})
        given = Secret(token("host", lasts=lasts))
        visit = await Visit().host(system.url, system.relay.port, secret=Secret(), token=given)
        assert visit.code == 0, visit.lines
        assert visit.found("expiry") == (told, advice)


@pytest.mark.parametrize(
    ("answer", "what", "advice"),
    [
        ("404 Not Found", "answered HTTP 404: Not Found", "there is nothing of a relay at this address"),
        ("429 Too Many Requests", "answered HTTP 429: Too Many Requests", "something before the relay limits"),
        ("502 Bad Gateway", "answered HTTP 502: Bad Gateway", "the proxy there does not reach the relay"),
        (
            "301 Moved\r\nLocation: wss://relay.example.com/probe/host/mc",
            "it sends to",
            "give --relay wss://relay.example",
        ),
    ],
)
async def test_a_server_other_than_a_relay(loop_factory: Any, answer: str, what: str, advice: str) -> None:
    """It answers, but with something else: each has its own advice."""

    async def serves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = "<html><body>x</body></html>"
        writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: {len(page)}\r\n\r\n{page}".encode())

    async with serve(serves) as port:
        visit = await Visit().host(f"ws://127.0.0.1:{port}")
        assert visit.code == 1
        told, advised = visit.found("upgrade")
        assert what in told
        assert "<" not in told
        assert advised.startswith(advice)


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
    assert visit.found("clock")[0] == "not compared: the relay sent no time"


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


async def test_two_host_agents_on_one_tunnel(loop_factory: Any) -> None:
    """A second one that nobody remembers gets half of the streams: both sides are told."""
    async with serve(echo) as target, System() as system:
        for _ in range(2):
            await system.host({"mc": target})
        for visit in (await Visit().host(system.url, target), await Visit().client(system.url)):
            assert visit.code == 0, visit.lines
            assert visit.found("presence") == (
                "2 host-agents offer this tunnel, and each gets a share of its streams",
                "stop one of them, unless both lead to the same server",
            )


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
        assert what == "no answer through the tunnel within 0.2 s"
        assert advice == "run the host-agent's doctor: it sees the target"


# The clock.


@pytest.mark.parametrize(("ahead", "told"), [(3600, "60 min ahead of"), (-10800, "3 h behind")])
async def test_a_clock_that_is_wrong(loop_factory: Any, monkeypatch: pytest.MonkeyPatch, ahead: int, told: str) -> None:
    """It is named; tokens made from the secret are good nevertheless, since they are made by the relay's clock."""
    monkeypatch.setattr(credentials, "time", SimpleNamespace(time=lambda: time.time() + ahead))
    async with System() as system:
        await system.host({"mc": 1})
        visit = await Visit().host(system.url, system.relay.port)
        assert visit.code == 1
        assert visit.found("upgrade")[1] == ""
        what, advice = visit.found("clock")
        assert what == f"{told} the relay's"
        assert advice == "set this machine's clock (NTP): tokens are good only within their time"
        # A token that is over by our clock alone is good; one that is over by the relay's is not blamed.
        given = Secret(token("host", lasts=1800))
        visit = await Visit().host(system.url, system.relay.port, secret=Secret(), token=given)
        assert visit.found("upgrade")[1] == ""
        assert visit.found("expiry")[0] == "the token is good for 30 min, by the relay's clock"
        given = Secret(token("host", lasts=-60))
        visit = await Visit().host(system.url, secret=Secret(), token=given)
        assert visit.found("upgrade")[1] == (
            f"this machine's clock is {told} the relay's: set it (NTP), or ask for a new token if it is right"
        )


# The commands.


async def test_the_commands_exit_codes(tmp_path: Path) -> None:
    """0 if all is well, 1 if not, 2 for what was said wrong; the report on standard output, and nothing beside it."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        flags = ("--relay", system.url, "--secret-file", str(secret))
        hosts = ("host-agent", "doctor", *flags, "--tunnel")
        # As `docker exec NAME client-agent doctor` finds them.
        container = {
            "CLIENT_AGENT_RELAY": system.url,
            "CLIENT_AGENT_FORWARD": "25565=mc",
            "CLIENT_AGENT_TOKEN": token("client"),
        }
        lines: list[tuple[tuple[str, ...], dict[str, str], int]] = [
            ((*hosts, f"mc=127.0.0.1:{target}"), {}, 0),
            (("client-agent", "doctor"), container, 0),
            ((*hosts, "mc=127.0.0.1:1"), {}, 1),
            (("client-agent", "doctor", *flags, "--forward", "0=nobody"), {}, 1),
            ((*hosts, "nonsense"), {}, 2),
        ]
        ended = await asyncio.gather(*(asyncio.to_thread(run, *line, **environ) for line, environ, _ in lines))
        for done, (_, _, code) in zip(ended, lines, strict=True):
            assert done.returncode == code, done
            if code < 2:
                assert done.stderr == ""
                assert ("FAIL" in done.stdout) == (code == 1)
            else:
                assert (done.stdout, done.stderr.count("\n")) == ("", 1)
