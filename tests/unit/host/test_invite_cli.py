"""`host-agent invite`: the link, the record of what was given, and taking it back."""

from __future__ import annotations

import io
import os
import stat
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from host_agent import e2e_key
from host_agent.invite import cli
from tunnel_core.errors import UsageError
from tunnel_core.protocol import invite, tokens
from tunnel_core.protocol.seal import keys

SECRET = "a-secret-for-tests-which-has-more-than-32-bytes"
RELAY = "wss://relay.example.com"


class Terminal(io.StringIO):
    """A text that is read by a person."""

    def isatty(self) -> bool:
        return True


class Owner:
    """Types commands; has a record of their own."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "tunnel/given.jsonl"
        self.environ = {"HOST_AGENT_RELAY": RELAY, "HOST_AGENT_SECRET": SECRET}
        self.out: io.StringIO = io.StringIO()
        self.err: io.StringIO = io.StringIO()

    def types(self, *arguments: str, on_a_terminal: bool = False) -> int:
        """Run the command; `out` and `err` are what it prints."""
        self.out, self.err = (Terminal(), Terminal()) if on_a_terminal else (io.StringIO(), io.StringIO())
        return cli.main(["--record", str(self.record), *arguments], self.environ, self.out, self.err)

    def invites(self, *arguments: str) -> invite.Invite:
        """What is in the link that it prints."""
        assert self.types(*arguments) == 0
        assert self.err.getvalue() == ""
        (line,) = self.out.getvalue().splitlines()
        return invite.parse(line)

    def fails(self, *arguments: str) -> str:
        with pytest.raises(UsageError) as error:
            self.types(*arguments)
        assert self.out.getvalue() == ""
        return str(error.value)


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


def test_a_link_says_what_was_asked_for(owner: Owner) -> None:
    """And its token is the relay's."""
    made = owner.invites("--tunnel", "mc", "--subject", "alex", "--label", "Kim's server")
    assert (made.relay, made.tunnel, made.port, made.label, made.app) == (
        RELAY,
        "mc",
        25565,
        "Kim's server",
        "minecraft",
    )
    grant = tokens.verify(made.token, [SECRET.encode()], time.time())
    assert (grant.subject, grant.role, grant.tunnels, grant.streams, grant.networks) == (
        "alex",
        "client",
        ("mc",),
        None,
        (),
    )
    assert 30 * 86400 - 60 < grant.expires - time.time() <= 30 * 86400

    limits = ("--expires", "2d", "--streams", "3", "--network", "192.0.2.0/24")
    made = owner.invites("--tunnel", "db", "--subject", "robin", "--port", "5432", *limits)
    assert (made.tunnel, made.port, made.app) == ("db", 5432, "")
    grant = made.grant
    assert (grant.streams, grant.networks) == (3, ("192.0.2.0/24",))
    assert 2 * 86400 - 60 < grant.expires - time.time() <= 2 * 86400
    assert owner.invites("--tunnel", "mc", "--subject", "x", "--port", "1", "--app", "minecraft").app == "minecraft"
    assert owner.invites("--tunnel", "mc", "--subject", "x", "--app", "other").app == ""


def test_the_tunnel_of_the_host_agent_is_the_default(owner: Owner) -> None:
    """As its container has it in the environment, where there is one alone."""
    owner.environ["HOST_AGENT_TUNNEL"] = "mc=minecraft:25565"
    assert owner.invites("--subject", "alex").tunnel == "mc"
    owner.environ["HOST_AGENT_TUNNEL"] += " db=db:5432"
    assert owner.fails("--subject", "alex") == "which tunnel? write --tunnel mc"


def test_a_token_of_the_operator_will_do(owner: Owner, tmp_path: Path) -> None:
    """Who has no secret puts a client token into a link; who it is for stands in the token."""
    given: dict[str, Any] = {"tunnels": ["mc"], "subject": "alex", "expires": time.time() + 3600}
    token = tokens.issue(SECRET.encode(), role="client", **given)
    del owner.environ["HOST_AGENT_SECRET"]
    (tmp_path / "alex.token").write_text(f"{token}\n")
    file = ("--client-token-file", str(tmp_path / "alex.token"))
    assert owner.invites("--tunnel", "mc", *file).token == token
    assert "its token is for mc, and not for db" in owner.fails("--tunnel", "db", *file)
    (tmp_path / "alex.token").write_text(tokens.issue(SECRET.encode(), role="host", **given))
    assert "its token is for a host" in owner.fails("--tunnel", "mc", *file)
    (tmp_path / "alex.token").write_text("hunter2")
    assert (
        owner.fails("--tunnel", "mc", *file)
        == "--client-token: this is not a token: ask whoever runs the relay for one"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--subject", "alex"), "which tunnel?"),
        (("--tunnel", "M"), "--tunnel: 'M' is not a tunnel's name"),
        (("--tunnel", "mc"), "whose invite is it? write --subject alex"),
        (("--tunnel", "mc", "--subject", "a" * 101), "is no name: write up to 100 characters"),
        (("--tunnel", "mc", "--subject", "a\x1bb"), "is no name"),
        (("--tunnel", "mc", "--subject", "alex", "--label", "a\nb"), "--label: 'a\\nb' is no label"),
        (("--tunnel", "mc", "--subject", "alex", "--port", "0"), "--port: '0' is not a port"),
        (("--tunnel", "mc", "--subject", "alex", "--expires", "soon"), "--expires: 'soon' is not a duration"),
        (
            ("--tunnel", "mc", "--subject", "alex", "--app", "doom"),
            "--app: 'doom' is not one of auto, minecraft, other",
        ),
        (("--revoke", "alex"), "'alex' has no invite that is still good"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(owner: Owner, arguments: tuple[str, ...], reason: str) -> None:
    """And nothing is noted."""
    assert reason in owner.fails(*arguments)
    assert not owner.record.exists()


def test_a_secret_is_needed(owner: Owner) -> None:
    """Or a token; and a relay."""
    del owner.environ["HOST_AGENT_SECRET"]
    assert "--secret-file FILE" in owner.fails("--tunnel", "mc", "--subject", "alex")
    del owner.environ["HOST_AGENT_RELAY"]
    assert "no relay is given" in owner.fails("--tunnel", "mc", "--subject", "alex")


def test_what_was_given_is_listed(owner: Owner) -> None:
    """To whom and until when, from a file with no secret in it that nobody else can read."""
    assert owner.types("--list") == 0
    assert owner.out.getvalue() == "nobody was given an invite yet\n"
    alex = owner.invites("--tunnel", "mc", "--subject", "alex")
    robin = owner.invites("--tunnel", "mc", "--subject", "robin from school", "--expires", "1s")
    assert stat.S_IMODE(owner.record.stat().st_mode) == 0o600
    assert stat.S_IMODE(owner.record.parent.stat().st_mode) == 0o700
    for secret in (alex.token[-43:], robin.token[-43:], SECRET):
        assert secret not in owner.record.read_text()
    time.sleep(max(0.0, robin.grant.expires - time.time()))
    owner.types("--list")
    head, *rows = owner.out.getvalue().splitlines()
    assert head.split() == ["FOR", "TUNNEL", "GIVEN", "GOOD", "UNTIL", "STATE", "ID"]
    until = time.strftime("%Y-%m-%d", time.gmtime(alex.grant.expires))
    assert rows[0].split()[:2] + rows[0].split()[3:] == ["alex", "mc", until, "good", alex.grant.id]
    assert rows[1].startswith("robin from school  mc")
    assert rows[1].endswith(f"expired  {robin.grant.id}")


def test_invites_are_taken_back(owner: Owner, tmp_path: Path) -> None:
    """In the relay's file, where that is at hand; else by what to put there."""
    file = tmp_path / "revoked"
    file.write_text("# no line end")
    first, second, other = (owner.invites("--tunnel", "mc", "--subject", name) for name in ("alex", "alex", "robin"))
    assert owner.types("--revoke", "alex") == 1
    assert [line.split()[0] for line in owner.out.getvalue().splitlines()] == [first.grant.id, second.grant.id]
    assert "not revoked yet" in owner.err.getvalue()
    assert owner.types("--revoke", "alex", "--revoked", str(file)) == 0
    assert owner.out.getvalue().startswith("revoked 2 of alex")
    lines = file.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["#", first.grant.id, second.grant.id]
    owner.types("--list")
    states = [line.split()[-2] for line in owner.out.getvalue().splitlines()[1:]]
    assert states == ["revoked", "revoked", "good"]
    assert "no invite that is still good" in owner.fails("--revoke", "alex")
    assert owner.types("--revoke", other.grant.id, "--revoked", str(file)) == 0


def test_files_that_are_of_no_use(owner: Owner, tmp_path: Path) -> None:
    """The link is worth more than its note; a broken note is shown by its line."""
    (tmp_path / "tunnel").write_text("a file where a folder should be")
    assert owner.types("--tunnel", "mc", "--subject", "alex") == 0
    made = invite.parse(owner.out.getvalue())
    assert f"cannot be written (File exists): its id is {made.grant.id}" in owner.err.getvalue()
    (tmp_path / "tunnel").unlink()
    owner.invites("--tunnel", "mc", "--subject", "alex")
    assert "cannot write /nowhere/revoked" in owner.fails("--revoke", "alex", "--revoked", "/nowhere/revoked")
    with owner.record.open("a") as record:
        record.write('{"type": "given"}\n')
    assert owner.fails("--list").endswith("line 2 is none of this file's: take it out")


def test_on_a_terminal_there_is_more(owner: Owner) -> None:
    """A code for cameras, and what to think of; what is piped is the link alone."""
    arguments = ("--tunnel", "mc", "--subject", "alex")
    owner.types(*arguments, on_a_terminal=True)
    lines = owner.out.getvalue().splitlines()
    assert invite.parse(lines[-1]).tunnel == "mc"
    assert "▀" in "".join(lines[:-1])
    assert max(map(len, lines[:-1])) < 100
    assert owner.err.getvalue() == (
        "This link is for alex, and good for 30 days. Whoever has it is let in: send it where nobody else reads.\n"
    )
    owner.types(*arguments, "--relay", "ws://127.0.0.1:8080", on_a_terminal=True)
    assert "of use on this machine alone" in owner.err.getvalue()
    owner.types(*arguments, "--relay", "ws://192.0.2.1", on_a_terminal=True)
    assert "use wss://" in owner.err.getvalue()


def test_the_default_record_is_in_the_users_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where programs keep what is theirs."""
    monkeypatch.setitem(os.environ, "XDG_CONFIG_HOME", str(tmp_path))
    out = io.StringIO()
    environ = {"HOST_AGENT_RELAY": RELAY, "HOST_AGENT_SECRET": SECRET}
    assert cli.main(["--tunnel", "mc", "--subject", "alex"], environ, out, io.StringIO()) == 0
    assert (tmp_path / "tcp-ws-tunnel/given-invites.jsonl").exists()


def test_an_invite_to_a_sealed_tunnel_holds_its_key(owner: Owner, tmp_path: Path) -> None:
    """Made by the first secret of the file, for the token beside it; other tunnels have none."""
    (tmp_path / "e2e").write_text(f"{'n' * 40}\n{'o' * 40}\n")
    sealed = ["--e2e-secret-file", str(tmp_path / "e2e"), "--sealed", "mc", "--subject", "alex"]
    made = owner.invites("--tunnel", "mc", *sealed)
    key = keys.decode(made.key, made.grant.id)
    assert key == keys.derive(b"n" * 40, "mc", made.grant.id)
    assert owner.invites("--tunnel", "db", *sealed).key == b""


def test_a_key_is_printed_for_a_token_that_is_there_already(tmp_path: Path) -> None:
    """One line for each of its tunnels, which a client-agent reads."""
    token = tokens.issue(SECRET.encode(), role="client", tunnels=["mc", "db"], subject="alex", expires=2e9)
    (tmp_path / "e2e").write_text("n" * 40)
    (tmp_path / "token").write_text(token)
    flags = ["--e2e-secret-file", str(tmp_path / "e2e"), "--token-file", str(tmp_path / "token")]
    out = io.StringIO()
    assert e2e_key.main(flags, {}, out) == 0
    lines = dict(line.split("=", 1) for line in out.getvalue().splitlines())
    token_id = tokens.read(token).id
    assert lines.keys() == {"mc", "db"}
    for tunnel, text in lines.items():
        assert keys.parse(text, token_id) == keys.derive(b"n" * 40, tunnel, token_id)


@pytest.mark.parametrize(
    ("role", "flags", "reason"),
    [
        ("host", ("e2e", "token"), "a key is for a client's"),
        ("client", ("token",), "write --e2e-secret-file FILE"),
        ("client", ("e2e",), "write --token-file FILE"),
        ("client", ("e2e", "token", "sealed"), "none of the token's tunnels is sealed"),
    ],
)
def test_what_a_key_cannot_be_made_of(
    role: Literal["host", "client"], flags: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "e2e").write_text("n" * 40)
    (tmp_path / "token").write_text(
        tokens.issue(SECRET.encode(), role=role, tunnels=["mc"], subject="alex", expires=2e9)
    )
    given = {
        "e2e": ["--e2e-secret-file", str(tmp_path / "e2e")],
        "token": ["--token-file", str(tmp_path / "token")],
        "sealed": ["--sealed", "db"],
    }
    with pytest.raises(UsageError, match=reason):
        e2e_key.main([word for flag in flags for word in given[flag]], {}, io.StringIO())
