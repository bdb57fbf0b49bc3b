"""Where the links of `join` come from, and where they are kept."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import pytest
from client_agent.join import cli, link
from client_agent.join.kept import KeptInvites
from tunnel_core.errors import UsageError
from tunnel_core.protocol import tokens
from tunnel_core.protocol.invite import Invite

SECRET = b"0123456789abcdef0123456789abcdef"


def made(relay: str = "wss://relay.example.com", tunnel: str = "mc", subject: str = "alex", key: bytes = b"") -> Invite:
    token = tokens.issue(SECRET, role="client", tunnels=[tunnel], subject=subject, expires=time.time() + 3600)
    return Invite(relay=relay, token=token, tunnel=tunnel, port=25565, key=key)


MC, DB = made(), made(tunnel="db")


class Typed(io.StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


def piped(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()))


@pytest.fixture
def kept(tmp_path: Path) -> KeptInvites:
    return KeptInvites(tmp_path / "tcp-ws-tunnel/invites")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> KeptInvites:
    """Of a user of the commands."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return KeptInvites(tmp_path / "tcp-ws-tunnel/invites")


def fails(*arguments: str, given: str = "", **environ: str) -> str:
    """Why `join` does not begin: one line, and exit code 2."""
    with pytest.raises(UsageError) as error:
        cli.join(arguments, environ, piped(given), io.StringIO())
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


# Keeping.


def test_an_invite_is_kept_for_its_user_alone(kept: KeptInvites) -> None:
    """By the name of its tunnel; another link for the same takes its place."""
    assert kept.names() == []
    assert kept.keep(MC) == ("mc", True)
    assert kept.keep(MC) == ("mc", False)
    (file,) = kept.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    later = made(subject="alex again")
    assert kept.keep(later) == ("mc", True)
    assert (kept.names(), kept.read("mc")) == (["mc"], later)
    kept.forget("mc")
    assert list(kept.folder.iterdir()) == []


def test_tunnels_of_one_name_at_several_relays(kept: KeptInvites) -> None:
    """Each is kept by a name of its own, and found again."""
    others = [made(f"wss://relay{number}.example.com") for number in range(3)]
    assert [kept.keep(other)[0] for other in others] == ["mc", "mc-2", "mc-3"]
    assert kept.keep(made(others[1].relay)) == ("mc-2", True)
    long = [made(other.relay, "x" * 63) for other in others]
    assert [kept.keep(other)[0] for other in long] == ["x" * 63, f"{'x' * 59}-2", f"{'x' * 59}-3"]
    assert kept.read(f"{'x' * 59}-3") == long[2]


def test_useless_links_are_reported(kept: KeptInvites) -> None:
    """What is missing or damaged, and what to do; a damaged one makes room for a new one."""
    with pytest.raises(UsageError, match="no invite 'mc' is stored here: run tcp-ws-tunnel join"):
        kept.read("mc")
    kept.keep(DB)
    for act in (kept.read, kept.forget):
        with pytest.raises(UsageError, match="no invite 'mc' is stored here: choose from db"):
            act("mc")
    (kept.folder / "mc.invite").write_bytes(b"\xff" + MC.link().encode()[:-5])
    (kept.folder / "No.invite").touch()
    assert kept.names() == ["db", "mc"]
    with pytest.raises(UsageError, match="the invite 'mc' is damaged: paste your link again"):
        kept.read("mc")
    assert kept.keep(MC) == ("mc", True)
    assert kept.read("mc") == MC


# Finding.


def test_where_a_link_is_looked_for(kept: KeptInvites) -> None:
    """A name, the variable, standard input, what is kept, and the prompt: in this order."""
    kept.keep(DB)
    environ = {link.VARIABLE: MC.link(), "PATH": "/bin"}
    assert link.find("db", kept, environ, piped(""), new=False) == (DB, False)
    assert environ == {"PATH": "/bin"}, "whatever is used, no child gets it"
    other = made(tunnel="web").link()
    assert link.find(None, kept, {link.VARIABLE: MC.link()}, piped(other)) == (MC, True)
    assert link.find(None, kept, {}, piped(f"Here it is:\n\n{MC.link()}\n")) == (MC, True)
    assert link.find(None, kept, {}, piped(MC.link()), new=True) == (MC, True)
    assert link.find(None, kept, {}, piped(" \n")) == (DB, False)
    assert link.find(None, kept, {}, None) == (DB, False)
    assert link.find(None, kept, {}, Typed(MC.link())) == (DB, False)
    assert link.find(None, kept, {}, Typed(MC.link()), new=True) == (MC, True)
    kept.keep(MC)
    with pytest.raises(UsageError, match="which invite\\? add its name: db, mc \\(or --new"):
        link.find(None, kept, {}, Typed(""))


def test_a_file_of_the_variables_twin(kept: KeptInvites, tmp_path: Path) -> None:
    """As secrets are mounted; PowerShell's files, too."""
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "link").write_text(f"{MC.link()}\n", encoding=encoding)
        assert link.find(None, kept, {f"{link.VARIABLE}_FILE": str(tmp_path / "link")}, None) == (MC, True)
    assert link.find(None, kept, {}, io.TextIOWrapper(io.BytesIO(MC.link().encode("utf-16")))) == (MC, True)


def test_the_prompt_asks_again(kept: KeptInvites, capsys: pytest.CaptureFixture[str]) -> None:
    """And understands a link that was broken into lines."""
    text = MC.link()
    lines = "\n".join(["", "what?", text[:80], text[80:200], text[200:]])
    assert link.find(None, kept, {}, Typed(f"{lines}\n")) == (MC, True)
    told = capsys.readouterr().err.replace(link.PROMPT, "").splitlines()
    assert [line.partition(":")[0] for line in told] == [
        "this is not the link of an invite",
        "the link is not whole",
        "the link is not whole",
    ]
    for nothing in ("", "\n" * 20, "nothing\n" * 20):
        with pytest.raises(UsageError, match="there is no link"):
            link.find(None, kept, {}, Typed(nothing))


def test_without_a_link_nothing_begins(home: KeptInvites) -> None:
    """And one for a sealed tunnel is not used without its key."""
    assert "there is no link: pass it on standard input" in fails()
    assert fails("--new") == "there is no link: paste the one that you were sent"
    assert "the key of the sealed tunnel is not whole" in fails(given=made(key=b"k" * 32).link())
    assert home.names() == []


@pytest.mark.parametrize("command", [("join",), ("doctor",), ("leave",)])
@pytest.mark.parametrize("part", ["whole", "fragment", "cut", "encoded", "after a name", "after a flag"])
def test_a_link_is_no_argument(home: KeptInvites, command: tuple[str], part: str) -> None:
    """It is refused with the reason, whatever is left of it, and not shown."""
    text = MC.link()
    words = {
        "whole": [text],
        "fragment": [text.partition("/join")[2]],
        "cut": [text.partition("#")[2]],
        "encoded": [text.replace(":", "%3A").replace("/", "%2F").replace("#", "%23")],
        "after a name": ["mc", text],
        "after a flag": [f"--invite={text}"],
    }[part]
    with pytest.raises(UsageError) as error:
        if command == ("leave",):
            cli.leave(words, io.StringIO())
        else:
            {"join": cli.join, "doctor": cli.doctor}[command[0]](words, {}, piped(""), io.StringIO())
    assert str(error.value) == link.AN_ARGUMENT
    for wrong in (["mc", "db"], ["MC"], ["../mc"]):
        with pytest.raises(UsageError, match="that is not the name of an invite"):
            cli.leave(wrong, io.StringIO())


def test_leaving(home: KeptInvites) -> None:
    """The only one needs no name."""
    home.keep(MC)
    out = io.StringIO()
    assert cli.leave([], out) == 0
    assert out.getvalue() == "forgotten: mc\n"
    assert home.names() == []
    with pytest.raises(UsageError, match="no invite is stored here"):
        cli.leave([], out)
    for kept in (MC, DB):
        home.keep(kept)
    with pytest.raises(UsageError, match="which invite\\? add its name: db, mc"):
        cli.leave([], out)
    assert cli.leave(["db"], out) == 0
    assert home.names() == ["mc"]


def test_damaged_links_are_one_line_each(home: KeptInvites) -> None:
    """On standard input or in the variable, exit code 2, and nothing is kept. 10,000 where there is time."""
    chance = random.Random(15)
    letters = "ABCxyz019-_.#/:%=<>\u200b \n"
    text = MC.link()
    for number in range(10_000 if hypothesis.settings().max_examples > 1000 else 200):
        # Two places at least in what the checksum covers, so that none is whole by chance.
        damaged = list(text)
        for at in chance.sample(range(text.index("#") + 3, len(text)), chance.randint(2, 4)):
            damaged[at] = chance.choice([letter for letter in letters if letter != damaged[at]])
        damaged = damaged[: chance.choice((len(damaged), chance.randrange(len(damaged))))]
        given = "".join(damaged)
        if not given.strip():
            continue
        reason = fails(given=given) if number % 2 else fails(**{link.VARIABLE: given})
        assert not any(part in reason for part in MC.token.split("."))
    assert home.names() == []


def test_children_do_not_inherit_the_link(home: KeptInvites) -> None:
    """The process itself was given it, and hands it to nobody."""
    code = (
        "import io, os, subprocess, sys\n"
        "from client_agent.join import link, kept\n"
        "link.find(None, kept.KeptInvites(kept.default_folder()), os.environ, None)\n"
        "print(subprocess.run(['env'], capture_output=True, text=True, check=True).stdout)\n"
    )
    environ = os.environ | {link.VARIABLE: MC.link(), "MARK": "here"}
    told = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout
    assert "MARK=here" in told
    assert "#1." not in told
    assert link.VARIABLE not in told


def test_a_folder_that_cannot_be_written(home: KeptInvites) -> None:
    """Whoever pasted the link is told that they will be asked again."""
    home.folder.parent.mkdir(parents=True)
    home.folder.write_text("a file")
    assert (
        cli._keep(home, MC, asked=True) == f"your link is not stored, as {home.folder} cannot be written: File exists"
    )
    assert cli._keep(home, MC, asked=False) == ""


def test_one_that_says_the_same_is_not_written_again(kept: KeptInvites) -> None:
    """The label of a newer link counts, though."""
    kept.keep(MC)
    assert kept.keep(dataclasses.replace(MC, label="Kim's")) == ("mc", True)
    assert kept.read("mc").label == "Kim's"
