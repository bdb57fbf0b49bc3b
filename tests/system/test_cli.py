"""The three commands: their flags and variables, their help, and what they say to what they cannot use."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import os
import re
import socket
import subprocess
import sys
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from client_agent.settings import Allowed, Announced, ClientSettings, Forward
from host_agent.settings import HostSettings, Offer
from support.apps import echo, exchange, serve, until
from support.commands import PREFIXES, environment, run, running
from support.system import SECRET, System, token
from tunnel_core import __version__
from tunnel_core.net.address import Address
from tunnel_core.protocol import tokens
from tunnel_core.protocol.routes import Route
from tunnel_core.service import settings
from tunnel_core.service.settings import Secret
from tunnel_relay.settings import RelaySettings

MODELS: dict[str, type] = {"relay": RelaySettings, "host-agent": HostSettings, "client-agent": ClientSettings}
COMMANDS = pytest.mark.parametrize("command", MODELS)
# What to write for each setting, and what that means; for one that repeats, of two words or lines.
LOGS = {"log_level": ("warning", "warning"), "log_format": ("console", "console")}
ADMIN = {"admin_host": ("[::1]", "::1"), "admin_port": ("9999", 9999)}
AGENTS = LOGS | ADMIN | {
    "relay": ("https://relay.example.com/", "wss://relay.example.com"),
    "relay_host": ("tunnel.example.com", "tunnel.example.com"),
    "header": ("X-Key:a-key", "X-Key:a-key"),
    "token": ("a-token", "a-token"),
    "secret": (SECRET, SECRET),
    "ca_file": ("/etc/ca.pem", "/etc/ca.pem"),
    "window": ("2MiB", 2 << 20),
    "replay_memory": ("1g", 1 << 30),
    "resume_window": ("1.5m", 90.0),
    "stop_timeout": ("2", 2.0),
    "warm": ("7", 7),
}  # fmt: skip
SAMPLES: dict[str, dict[str, tuple[str, Any]]] = {
    "relay": LOGS | ADMIN | {
        "host": ("[2001:db8::1]", "2001:db8::1"),
        "port": ("0", 0),
        "secret": (SECRET, SECRET),
        "auth": ("none", "none"),
        "revoked": ("/run/revoked", "/run/revoked"),
        "wait": ("1s", 1.0),
        "drain": ("1h", 3600.0),
        "drain_alone": ("3s", 3.0),
        "max_legs": ("3", 3),
        "max_legs_per_token": ("4", 4),
        "max_streams_per_token": ("5", 5),
        "max_legs_per_address": ("6", 6),
        "max_handshakes": ("7", 7),
        "max_handshakes_per_address": ("21", 21),
        "handshake_timeout": ("0.5", 0.5),
        "max_header": ("8KiB", 8192),
        "max_message": ("1k", 1024),
        "max_message_rate": ("11", 11),
        "max_failed_logins": ("12", 12),
        "failed_login_refill": ("0.25s", 0.25),
        "trusted_proxy": ("192.0.2.0/24 2001:db8::/32", ("192.0.2.0/24", "2001:db8::/32")),
        "client_address_header": ("Fly-Client-IP", "Fly-Client-IP"),
        "max_waiting_memory": ("1MiB", 1 << 20),
        "join_page": ("off", False),
        "join_wheel": ("/run/a.whl", "/run/a.whl"),
        "max_pages": ("31", 31),
        "max_pages_per_address": ("32", 32),
        "page_refill": ("3s", 3.0),
    },
    "host-agent": AGENTS | {
        "tunnel": (
            "mc=[::1]:25565 db=unix:/run/db",
            (Offer("mc", Address("::1", 25565)), Offer("db", Address("/run/db", 0))),
        ),
        "target_timeout": ("3s", 3.0),
        "proxy_protocol": ("mc db", ("mc", "db")),
        "e2e_secret": (SECRET, SECRET),
        "sealed": ("mc db", ("mc", "db")),
        "revoked": ("/run/revoked", "/run/revoked"),
    },
    "client-agent": AGENTS | {
        "forward": ("25565=mc [::1]:0=db", (Forward("", 25565, "mc"), Forward("::1", 0, "db"))),
        "listen_address": ("0.0.0.0", "0.0.0.0"),
        "e2e_key": ("mc=key", "mc=key"),
        "e2e_secret": (SECRET, SECRET),
        "announce": ("mc=Our server\ndb=x", (Announced("mc", "Our server"), Announced("db", "x"))),
        "public": ("25565=mc [::1]:0=db", (Forward("", 25565, "mc"), Forward("::1", 0, "db"))),
        "shared": ("25565 127.0.0.1:443", (Forward("", 25565, ""), Forward("127.0.0.1", 443, ""))),
        "route": ("mc.example.com=mc *.play.net", (Route("mc.example.com", "mc"), Route("play.net", ""))),
        "allow": (
            "mc=192.0.2.0/24 db=::/0",
            (Allowed("mc", ip_network("192.0.2.0/24")), Allowed("db", ip_network("::/0"))),
        ),
        "max_connections": ("3", 3),
        "max_per_tunnel": ("4", 4),
        "max_per_address": ("5", 5),
        "rate_per_address": ("6", 6),
        "first_byte_timeout": ("1s", 1.0),
        "drain": ("1h", 3600.0),
        "proxy_protocol_from": ("192.0.2.0/24 ::1", (ip_network("192.0.2.0/24"), ip_network("::1"))),
    },
}  # fmt: skip
EACH = pytest.mark.parametrize(
    ("command", "name"),
    [(command, field.name) for command, model in MODELS.items() for field in dataclasses.fields(model)],
)


def load(command: str, *arguments: str, **environ: str) -> Any:
    """The settings of a command."""
    parser = settings.parser(command, "")
    settings.add_flags(parser, MODELS[command], PREFIXES[command])
    return settings.load(MODELS[command], PREFIXES[command], parser.parse_args(arguments), environ)


def plain(value: Any) -> Any:
    """A value, of a secret what it holds."""
    return value.read() if isinstance(value, Secret) else value


@EACH
def test_each_setting_is_a_flag_a_variable_and_a_file(command: str, name: str, tmp_path: Path) -> None:
    """In this order of precedence; the default is the last."""
    text, expected = SAMPLES[command][name]
    default = plain(getattr(MODELS[command](), name))
    repeats = isinstance(expected, tuple)
    words = text.splitlines() if "\n" in text else text.split()
    flag, variable = "--" + name.replace("_", "-"), f"{PREFIXES[command]}_{name.upper()}"
    flags = [part for word in (words if repeats else [text]) for part in (flag, word)]
    file, other = tmp_path / "value", tmp_path / "other"
    file.write_text(f"  {text}\n")
    other.write_text("must not be read")

    def value(*arguments: str, **environ: str) -> Any:
        return plain(getattr(load(command, *arguments, **environ), name))

    assert expected != default, "else this test shows nothing"
    assert value() == default
    assert value(**{variable: "", f"{variable}_FILE": ""}) == default, "empty is as good as not set"
    assert value(*flags) == expected
    assert value(**{variable: text}) == expected
    assert value(**{f"{variable}_FILE": str(file)}) == expected
    assert value(*flags, **{variable: "wrong!", f"{variable}_FILE": str(other)}) == expected
    if name != "header":  # of which both count: test_headers_are_lines
        assert value(**{variable: text, f"{variable}_FILE": str(other)}) == expected
    if isinstance(getattr(MODELS[command](), name), Secret):
        assert value(f"{flag}-file", str(file)) == expected
        assert value(f"{flag}-file", str(file), **{variable: "wrong!"}) == expected
        if name != "header":
            assert value(*flags, f"{flag}-file", str(other)) == expected
        file.write_text("renewed\n")
        assert value(f"{flag}-file", str(file)) == "renewed"


def test_headers_are_lines(tmp_path: Path) -> None:
    """Of flags that repeat, and of the file beside them; or of the variable and its file, if there is no flag."""
    file = tmp_path / "headers"
    file.write_text("X-Three: c\r\n")
    flags = ("--header", "X-One: a b", "--header", "X-Two: b")
    variables = {"CLIENT_AGENT_HEADER": "X-Four: d\nX-Five: e", "CLIENT_AGENT_HEADER_FILE": str(file)}

    def headers(*arguments: str, **environ: str) -> list[tuple[str, str]]:
        loaded: ClientSettings = load("client-agent", *arguments, **environ)
        return loaded.headers()

    assert headers() == []
    assert headers(*flags, **variables) == [("X-One", "a b"), ("X-Two", "b")]
    assert headers(*flags, "--header-file", str(file)) == [("X-One", "a b"), ("X-Two", "b"), ("X-Three", "c")]
    assert headers(**variables) == [("X-Four", "d"), ("X-Five", "e"), ("X-Three", "c")]
    file.write_text("X-Renewed: f")
    assert headers("--header-file", str(file)) == [("X-Renewed", "f")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("::", "::"), ("[::]", "::"), ("*", "::"), ("::1", "::1"), ("0.0.0.0", "0.0.0.0"), ("localhost", "localhost")],
)
def test_addresses_to_listen_on(text: str, expected: str) -> None:
    """As help shows them, with brackets or without, and `*` for all."""
    assert load("relay", "--host", text, "--admin-host", text).host == expected
    assert load("client-agent", "--listen-address", text).listen_address == expected
    if text[:1] != ":":  # a port follows
        assert load("client-agent", "--forward", f"{text}:5=mc").forward == (Forward(expected, 5, "mc"),)


def test_port_of_the_platform() -> None:
    """$PORT counts where RELAY_PORT says nothing, in any form."""
    assert load("relay", PORT="5000").port == 5000
    assert load("relay", PORT="5000", RELAY_PORT="6000").port == 6000
    assert load("relay", "--port", "7000", PORT="5000", RELAY_PORT="6000").port == 7000
    assert load("relay", PORT="").port == 8080
    assert load("relay", PORT="5000").admin_port == 9090


def test_port_file_beats_the_platform(tmp_path: Path) -> None:
    """As the variable does whose twin it is."""
    (tmp_path / "port").write_text("6000")
    assert load("relay", PORT="5000", RELAY_PORT_FILE=str(tmp_path / "port")).port == 6000


def test_a_secret_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """So that a mounted secret can be renewed."""
    file = tmp_path / "token"
    file.write_text("one\n")
    held = load("host-agent", HOST_AGENT_TOKEN_FILE=str(file)).token
    assert held.read() == "one"
    file.write_text("two\n")
    assert held.read() == "two"
    assert "two" not in f"{held!r} {held}"


# Help.


@COMMANDS
def test_help_tells_of_every_setting(command: str) -> None:
    """Its flag, its variable and its default; with examples at the end."""
    ended = run(command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    text = " ".join(ended.stdout.split())
    for field in dataclasses.fields(MODELS[command]):
        assert f"--{field.name.replace('_', '-')} " in text
        assert f"[{PREFIXES[command]}_{field.name.upper()}" in text
    assert "_FILE" in text
    assert "examples:" in text
    assert max(map(len, ended.stdout.splitlines())) <= 120
    assert "--version" in text


@pytest.mark.parametrize(
    "line",
    ["relay secret", "relay token", "relay health", "host-agent health", "client-agent health",
     "host-agent doctor", "client-agent doctor"],
)  # fmt: skip
def test_help_of_each_command(line: str) -> None:
    """It names itself, and what it takes."""
    ended = run(*line.split(), "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"usage: {line} ")


@COMMANDS
def test_version(command: str) -> None:
    """One line."""
    ended = run(command, "--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{command} {__version__}\n", "")


def test_output_that_nobody_reads() -> None:
    """`relay --help | head -1` is no reason for a traceback."""
    shell = f"{sys.executable} -m tunnel_relay --help | head -1"

    ended = subprocess.run(["sh", "-c", shell], env=environment(), capture_output=True, text=True, check=False)
    assert ended.stderr == ""


# Bad input.

HOST = ("--relay", "ws://127.0.0.1:1", "--tunnel", "mc=127.0.0.1:1")
CLIENT = ("--relay", "ws://127.0.0.1:1", "--forward", "0=mc")
URL = "write wss://relay.example.com, or ws://127.0.0.1:8080 for one on this machine"
NAME = "is not a tunnel's name: write up to 63 of a-z, 0-9 and -"
BAD: list[tuple[str, tuple[str, ...], str]] = [
    ("relay", (), "no secret: set RELAY_SECRET or write --secret-file FILE"),
    ("relay", ("--auth", "maybe"), "--auth: 'maybe' is not one of token, none"),
    ("relay", ("--colour", "blue"), "unrecognized arguments: --colour (see relay --help)"),
    ("relay", ("--po", "1"), "unrecognized arguments: --po (see relay --help)"),
    ("relay", ("--prot=1", "secret"), "unrecognized arguments: --prot (see relay --help)"),
    ("relay", ("token", "--rule", "host"), "unrecognized arguments: --rule (see relay --help)"),
    ("relay", ("serve",), "argument COMMAND: invalid choice: 'serve'"),
    ("relay", ("--port",), "argument --port: expected one argument"),
    ("relay", ("--port", "http"), "--port: 'http' is not a port: write a number from 0 to 65535"),
    ("relay", ("--port", "65536"), "--port: '65536' is not a port"),
    ("relay", ("--port", "-1"), "--port: '-1' is not a port"),
    ("relay", ("--port", "٣"), "--port: '٣' is not a port"),
    ("relay", ("--admin-port", "1.5"), "--admin-port: '1.5' is not a port"),
    ("relay", ("--host", "::x"), "--host: '::x' is not a host: write a name, an IPv4 address, or an IPv6 address in"),
    ("relay", ("--host", "[127.0.0.1]"), "--host: '[127.0.0.1]' is not a host"),
    ("relay", ("--host", "a b"), "--host: 'a b' is not a host: write a name"),
    ("relay", ("--host", "a..b"), "--host: 'a..b' is not a host"),
    ("relay", ("--host", ""), "--host: '' is not a host"),
    ("relay", ("--wait", "soon"), "--wait: 'soon' is not a duration: write seconds, or a number and s, m, h, d or w"),
    ("relay", ("--wait", "2m"), "--wait: '2m' is not a duration from 0 to 60 seconds"),
    ("relay", ("--max-header", "many"), "--max-header: 'many' is not a size: write bytes, or a number and KiB"),
    ("relay", ("--max-header", "1GiB"), "--max-header: '1GiB' is not a size from 1KiB to 1MiB"),
    ("relay", ("--max-legs-per-token", "0"), "--max-legs-per-token: '0' is not a number from 1 to 1000000"),
    ("relay", ("--trusted-proxy", "home"), "--trusted-proxy: 'home' is not a network: write one like 192.0.2.0/24"),
    ("relay", ("--secret", "x" * 31), "a secret must have 32 bytes or more"),
    ("relay", ("--secret-file", "/nowhere"), "cannot read /nowhere: No such file or directory"),
    ("relay", ("--secret-file", "/dev/null"), "/dev/null is empty"),
    ("relay", ("--log-level", "loud"), "--log-level: 'loud' is not one of debug, info, warning, error"),
    ("relay", ("--auth", "none", "health"), "write health first: relay health --admin-port PORT"),
    ("relay", ("token",), "--role: write host, client or gateway"),
    ("relay", ("token", "--role", "client"), "no secret: set RELAY_SECRET or write --secret-file FILE"),
    ("relay", ("secret", "please"), "unrecognized arguments: please"),
    ("host-agent", (), "no relay is given: write --relay wss://relay.example.com"),
    ("host-agent", HOST[:2], "no tunnel is offered: write --tunnel mc=127.0.0.1:25565"),
    ("host-agent", (*HOST, *HOST[2:]), "a tunnel is offered twice: give each its own name"),
    ("host-agent", (*HOST, "health"), "write health first: host-agent health --admin-port PORT"),
    ("host-agent", (*HOST, "--window", "63KiB"), "--window: '63KiB' is not a size from 64KiB to 64MiB"),
    ("host-agent", (*HOST, "--warm", "0"), "--warm: '0' is not a number from 1 to 1000"),
    ("host-agent", (*HOST, "--warm"), "argument --warm: expected one argument"),
    ("client-agent", (), "no relay is given: write --relay wss://relay.example.com"),
    ("client-agent", CLIENT[:2], "nothing is forwarded: write --forward 25565=mc"),
    ("client-agent", (*CLIENT, "--header", "Host: hunter2"), "--header: Host cannot be given: write --relay-host NAME"),
    ("client-agent", (*CLIENT, "--header", "hunter2"), "--header: number 1 is no header: write 'NAME: VALUE'"),
    ("client-agent", (*CLIENT, "--relay-host", "a b"), "--relay-host: 'a b' is not a host"),
    ("client-agent", (*CLIENT, "health"), "write health first: client-agent health --admin-port PORT"),
    *(
        ("client-agent", ("--relay", url, *CLIENT[2:]), f"--relay: '{url}' is not a relay's URL: {URL}")
        for url in (
            "relay.example.com", "ftp://h", "ws://", "ws://:80", "ws://h:99999", "ws://h:x", "ws://a b", "ws://a..b",
            "ws://[::1",
        )
    ),
    *(
        ("client-agent", ("--relay", url, *CLIENT[2:]), f"--relay: '{shown}' {what}")
        for url, shown, what in (
            ("ws://h?token=hunter2", "ws://h?…", "carries a query or a password: give the token with --token-file"),
            ("wss://me:hunter2@h", "wss://…@h", "carries a query or a password"),
            ("wss://me:hunter2/hunter2@h/", "wss://…@h/", "is not a relay's URL"),
            ("h?token=hunter2", "h?…", "is not a relay's URL"),
            ("https://h/join#hunter2", "https://h/join#…", "is not a relay's URL"),
            ("me:hunter2@h", "…@h", "is not a relay's URL"),
            (token("client"), "eyJ…", "is not a relay's URL"),
        )
    ),
    (
        "client-agent",
        ("--relay", f"wss://h/{token('client')}", *CLIENT[2:]),
        "--relay: there is a token in the path of the URL: give it with --token-file",
    ),
    ("client-agent", (*CLIENT, "--tokne=hunter2"), "unrecognized arguments: --tokne (see"),
    ("client-agent", (*CLIENT, token("client")), "argument COMMAND: invalid choice: 'eyJ…'"),
    *(
        ("host-agent", (*HOST[:2], f"--tunnel={tunnel}"), f"--tunnel: {expected}")
        for tunnel, expected in {
            "mc": "'mc' is not a tunnel: write NAME=HOST:PORT, such as mc=127.0.0.1:25565",
            "MC=h:1": f"'MC' {NAME}",
            "=h:1": f"'' {NAME}",
            "a_b=h:1": f"'a_b' {NAME}",
            "-a=h:1": f"'-a' {NAME}",
            f"{'x' * 64}=h:1": f"'{'x' * 64}' {NAME}",
            "mc=h": "'h' is not an address: write HOST:PORT, such as 127.0.0.1:25565",
            "mc=:1": "':1' is not an address",
            "mc=h:": "'' is not a port: write a number from 1 to 65535",
            "mc=h:0": "'0' is not a port",
            "mc=::1:25565": "'::1' is not a host: write [::1]",
            "mc=unix:run/db": "'unix:run/db' is not a Unix socket: write unix:/the/full/path",
        }.items()
    ),
    *(
        ("client-agent", (*CLIENT[:2], "--forward", forward), f"--forward: {expected}")
        for forward, expected in {
            "mc": "'mc' is not a forward: write [ADDRESS:]PORT=TUNNEL, such as 25565=mc",
            "25565=": f"'' {NAME}",
            "25565=m.c": f"'m.c' {NAME}",
            "x=mc": "'x' is not a port: write a number from 0 to 65535",
            "=mc": "'' is not a port",
            "::1:5=mc": "'::1' is not a host: write [::1]",
            ":5=mc": "':5=mc' names no address: write *:5=mc for all of this machine, or 5=mc",
        }.items()
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    BAD,
    ids=[re.sub(r"eyJ[\w.-]+", "TOKEN", f"{command} {' '.join(arguments)}") for command, arguments, _ in BAD],
)
def test_bad_input_is_one_line(
    command: str,
    arguments: tuple[str, ...],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It says what is wrong and what to write; exit code 2, and nothing has been started."""
    package = {"relay": "tunnel_relay", "host-agent": "host_agent", "client-agent": "client_agent"}[command]
    for name in os.environ.keys() - environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{command}", *arguments])
    monkeypatch.setattr("tunnel_core.service.run.serve", lambda make: pytest.fail("started"))
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"{package}.__main__").run()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"{command}: {expected}")
    assert "hunter2" not in line


def fails(command: str, *arguments: str, code: int = 2, **variables: str) -> str:
    """The one line of a command that ends by itself, before it has started anything."""
    ended = run(command, *arguments, **variables)
    assert ended.returncode == code, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    return line


def test_bad_variables_are_named() -> None:
    """As flags are: by what one has written."""
    assert "HOST_AGENT_WINDOW: '1' is not a size" in fails("host-agent", *HOST, HOST_AGENT_WINDOW="1")
    assert "PORT: 'x' is not a port" in fails("relay", PORT="x")
    assert "cannot read /nowhere: No such file" in fails("relay", RELAY_WAIT_FILE="/nowhere")


def test_bad_files_are_named(tmp_path: Path) -> None:
    """Before anything listens or dials."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    secure = ("--relay", "wss://127.0.0.1:1", *HOST[2:])
    assert "--revoked: cannot read /nowhere: No such file" in fails("relay", "--auth", "none", "--revoked", "/nowhere")
    assert "cannot read /nowhere: No such file" in fails("host-agent", *HOST, "--token-file", "/nowhere")
    assert "is empty" in fails("host-agent", *HOST, "--token-file", str(tmp_path / "empty"))
    assert "cannot read" in fails("client-agent", *CLIENT, "--secret-file", str(tmp_path / "binary"))
    assert "--ca-file: cannot use /nowhere: No such file" in fails("host-agent", *secure, "--ca-file", "/nowhere")
    assert "in PEM format" in fails("host-agent", *secure, "--ca-file", str(tmp_path / "empty"))


def test_bad_tokens_and_secrets_are_named(tmp_path: Path) -> None:
    """As far as one can tell without the relay."""
    file = tmp_path / "token"
    for text, expected in {
        "garbage": "this is not a token: ask whoever runs the relay for one",
        "a.b.c": "this is not a token",
        token("client"): "this token is for a client: ask for one made with --role host",
        token("host", "db", "web"): "this token is for tunnel db, web, not for mc",
    }.items():
        file.write_text(text)
        line = fails("host-agent", *HOST, "--token-file", str(file))
        assert expected in line
        assert text not in line or text == "a.b.c"
    assert "32 bytes or more" in fails("host-agent", *HOST, HOST_AGENT_SECRET="short")
    assert "HOST_AGENT_TOKEN: there is nothing in it" in fails("host-agent", *HOST, HOST_AGENT_TOKEN=" ")
    assert "this is the name of a file, not a token: write --token-file FILE" in fails(
        "host-agent", *HOST, "--token", str(file)
    )
    assert "32 bytes or more" in fails("relay", RELAY_SECRET=f"{SECRET} short")


RELAY = ("--auth", "none", "--host", "127.0.0.1")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("relay", (*RELAY, "--port", "PORT", "--admin-port", "0")),
        ("relay", (*RELAY, "--port", "0", "--admin-port", "PORT")),
        ("host-agent", (*HOST, "--admin-port", "PORT")),
        ("client-agent", (*CLIENT, "--admin-port", "PORT")),
        ("client-agent", (*CLIENT, "--forward", "PORT=db")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-2],
)
def test_a_port_in_use(command: str, arguments: tuple[str, ...]) -> None:
    """One line that says so, exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = fails(command, *(word.replace("PORT", port) for word in arguments), code=1)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use: choose another port, or stop what" in line


def test_an_address_that_is_not_ours() -> None:
    """The same, for an address of another machine."""
    line = fails("relay", "--auth", "none", "--host", "192.0.2.1", "--port", "0", "--admin-port", "0", code=1)
    assert "cannot listen on 192.0.2.1:0: Cannot assign requested address: choose an address of this machine" in line


# Tokens and secrets.


def test_tokens_and_secrets_round_trip(tmp_path: Path) -> None:
    """`relay secret` makes what `relay token` signs with, and both are one line to paste."""
    secret = run("relay", "secret")
    assert re.fullmatch(r"[\w-]{43}\n", secret.stdout)
    assert secret.stdout != run("relay", "secret").stdout
    (tmp_path / "secret").write_text(secret.stdout + SECRET)  # the first signs
    flags = ("--secret-file", str(tmp_path / "secret"), "--role", "client", "--tunnel", "mc", "--tunnel", "db")
    limits = ("--expires", "12h", "--subject", "alex", "--streams", "3", "--network", "192.0.2.0/24")
    made = run("relay", "token", *flags, *limits)
    assert (made.returncode, made.stderr, made.stdout.count("\n")) == (0, "", 1)
    grant = tokens.verify(made.stdout.strip(), [secret.stdout.strip().encode()], time.time())
    assert (grant.subject, grant.role, grant.tunnels) == ("alex", "client", ("mc", "db"))
    assert (grant.streams, grant.networks) == (3, ("192.0.2.0/24",))
    assert 12 * 3600 - 60 < grant.expires - time.time() <= 12 * 3600


def test_tokens_have_defaults() -> None:
    """A week, the default tunnel, and the role for a name; the secret may come before or after the command."""
    for made in (
        run("relay", "token", "--role", "host", RELAY_SECRET=SECRET),
        run("relay", "--secret", SECRET, "token", "--role", "host"),
        run("relay", "token", "--role", "host", "--secret", SECRET),
    ):
        grant = tokens.verify(made.stdout.strip(), [SECRET.encode()], time.time())
        assert (grant.subject, grant.role, grant.tunnels) == ("host", "host", ("default",))
        assert 7 * 86400 - 60 < grant.expires - time.time() <= 7 * 86400


def test_invalid_tokens_are_not_issued() -> None:
    """Whatever is wrong is said at once, and not by the relay a week later."""
    for arguments, expected in {
        ("--role", "admin"): "--role: 'admin' is not one of host, client",
        ("--role", "host", "--tunnel", "M"): f"--tunnel: 'M' {NAME}",
        ("--role", "host", "--expires", "later"): "--expires: 'later' is not a duration",
        ("--role", "host", "--expires", "0"): "--expires: '0' is not a duration from 1 to",
        ("--role", "host", "--streams", "0"): "--streams: '0' is not a number from 1 to 1000000",
        ("--role", "host", "--network", "192.0.2.1/24"): "--network: '192.0.2.1/24' is not a network",
        ("--role", "host", "--subject", "x" * 201): "the token would be too long",
        ("--role", "host", *(f"--tunnel=t{number}" for number in range(51))): "the token would be too long",
    }.items():
        assert f"relay: {expected}" in fails("relay", "token", *arguments, RELAY_SECRET=SECRET)


# Running.


async def test_two_commands_make_a_tunnel(loop_factory: Any, tmp_path: Path) -> None:
    """As the README has it: a token a side, in files; port 0 is told in the log."""
    (tmp_path / "secret").write_text(SECRET)
    for role in ("host", "client"):
        made = run("relay", "token", "--secret-file", str(tmp_path / "secret"), "--role", role, "--tunnel", "mc")
        (tmp_path / role).write_text(made.stdout)
    async with serve(echo) as target, System() as system:
        host = ("--relay", system.url, "--tunnel", f"mc=127.0.0.1:{target}")
        client = ("--relay", system.url, "--forward", "0=mc", "--forward", "[::1]:0=mc")
        with (
            running(tmp_path, "host-agent", *host, environ={"HOST_AGENT_TOKEN_FILE": str(tmp_path / "host")}),
            running(tmp_path, "client-agent", *client, "--token-file", str(tmp_path / "client")) as agent,
        ):
            await until(lambda: len(agent.events("listening")) == 2)
            first, second = (line["address"] for line in agent.events("listening"))
            await until(lambda: len(agent.events("connected")) == 2)
            assert agent.events("connected")[0]["hint"] == f"point your application at {first}"
            assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", first)
            assert re.fullmatch(r"\[::1\]:[1-9]\d*", second)
            await exchange(int(first.rpartition(":")[2]), 100_000)
            await asyncio.wait_for(exchange(int(second.rpartition(":")[2]), 100_000, host="::1"), 20)


async def test_ipv6_everywhere(loop_factory: Any, tmp_path: Path) -> None:
    """In brackets: the relay, its URL, the target and the local port."""
    relay = ("--host", "[::1]", "--port", "0", "--admin-host", "[::1]", "--admin-port", "0", "--auth", "none")
    async with serve(echo, host="::1") as target:
        with running(tmp_path, "relay", *relay) as process:
            await until(lambda: process.events("listening"))
            (line,) = process.events("listening")
            assert line["admin"].startswith("[::1]:")
            to_relay = ("--relay", f"ws://{line['address']}", "--admin-host", "[::1]", "--admin-port", "0")
            with (
                running(tmp_path, "host-agent", *to_relay, "--tunnel", f"mc=[::1]:{target}") as host,
                running(tmp_path, "client-agent", *to_relay, "--forward", "[::1]:0=mc") as agent,
            ):
                await until(lambda: host.events("tunnel offered") and agent.events("listening"))
                assert host.events("tunnel offered")[0]["target"] == f"[::1]:{target}"
                local = agent.events("listening")[0]["address"]
                await exchange(int(local.rpartition(":")[2]), 100_000, host="::1")


def test_one_command_has_all_the_others() -> None:
    """`tcp-ws-tunnel COMMAND` is that command: its output, its errors and its exit code."""
    listed = run("tcp-ws-tunnel")
    assert (listed.returncode, listed.stderr) == (0, "")
    for command in ("relay", "host-agent", "client-agent"):
        assert f"\n  {command} " in listed.stdout
        assert run("tcp-ws-tunnel", command, "--help").stdout == run(command, "--help").stdout
    assert run("tcp-ws-tunnel", "--version").stdout == f"tcp-ws-tunnel {__version__}\n"
    wrong = run("tcp-ws-tunnel", "relay", "--port", "x")
    assert (wrong.returncode, wrong.stderr) == (2, run("relay", "--port", "x").stderr)
    unknown = run("tcp-ws-tunnel", "rely")
    assert unknown.returncode == 2
    assert unknown.stderr == "tcp-ws-tunnel: there is no command 'rely' (see tcp-ws-tunnel --help)\n"
