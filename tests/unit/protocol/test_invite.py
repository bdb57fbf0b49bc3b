"""Invites: the right one, or one line that says what is wrong; never half of one."""

from __future__ import annotations

import dataclasses
import random
import re
import urllib.parse
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.errors import UsageError
from tunnel_core.protocol import invite, tokens
from tunnel_core.protocol.invite import Invite, parse

SECRET = b"0123456789abcdef0123456789abcdef"
RELAY = "wss://relay.example.com"


def token(subject: str = "alex", **fields: Any) -> str:
    given: dict[str, Any] = {"role": "client", "tunnels": ["mc"], "expires": 1_800_000_000.0} | fields
    return tokens.issue(SECRET, subject=subject, **given)


def made(**fields: Any) -> Invite:
    """An invite like most."""
    usual: dict[str, Any] = {"relay": RELAY, "token": token(), "tunnel": "mc", "port": 25565}
    return Invite(**(usual | {"label": "Kim's server", "app": invite.MINECRAFT} | fields))


USUAL = made()
LINK = USUAL.link()


def refused(text: str) -> str:
    """Why a text is refused: one line, with nothing of the secret in it."""
    with pytest.raises(UsageError) as error:
        parse(text)
    line = str(error.value)
    assert error.value.exit_code == 2
    assert "\n" not in line
    assert not any(part in line for part in USUAL.token.split("."))
    return line


def test_a_link_has_room_to_spare() -> None:
    """A usual one is half as long as it may be, and a tunnel's key fits in."""
    assert len(LINK) < 350
    assert len(made(key=b"k" * 40).link()) < 420


@given(
    st.sampled_from((RELAY, "ws://127.0.0.1:8080", "wss://[2001:db8::1]:8443/a/tunnel", "wss://xn--mller-kva.example")),
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20),
    st.integers(1, 65535),
    st.text(st.characters(exclude_categories=("C", "Z")), max_size=invite.MAX_LABEL // 3),
    st.sampled_from(("", invite.MINECRAFT)),
    st.binary(max_size=64),
)
def test_what_goes_in_comes_out(relay: str, subject: str, port: int, label: str, app: str, key: bytes) -> None:
    """Every field, whatever is in it."""
    given = made(relay=relay, token=token(subject), port=port, label=label, app=app, key=key)
    link = given.link()
    assert len(link) <= invite.MAX_LINK
    assert parse(link) == given
    assert parse(link).grant.subject == subject


WRAPPINGS = {
    "with space around it": "  {}\r\n",
    "in angle brackets": "<{}>",
    "in quotes": '"{}"',
    "in typographic quotes": "„{}“",
    "in a sentence": "Here you are: {}. See you!",
    "in brackets": "(the link: {})",
    "as Markdown": "[join us]({})",
    "in bold": "**{}**",
    "in italics": "_{}_",
    "in code": "`{}`",
    "as HTML": '<a href="{}">join</a>',
    "with a comma": "{}, or later",
    "doubled": "{}{}",
    "twice": "{}\n{}",
    "after its page": "https://relay.example.com/join {}",
    "with invisible characters": "\ufeff{}\u200b",
    "percent-encoded in another link": "https://safe.example/?url={percent}&data=05",
    "percent-encoded twice": "https://safe.example/?url={twice}",
    "with only its # encoded": "{hash}",
    "with its dashes joined": "{dashes}",
    "broken into lines by a mail": "{wrapped}\nSee you!",
    "in a mail that was quoted": "{quoted}\n> See you!",
    "in capitals": "{loud}",
    "with the usual port": "{port}",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_it_is_understood_as_it_was_passed_on(wrapping: str) -> None:
    """Of many links, so that each character has been where the wrapping touches it."""
    for number in range(50):
        given = made(token=token(f"friend{number}"))
        link = given.link()
        percent = urllib.parse.quote(link, safe="")
        lines = [link[start : start + 76] for start in range(0, len(link), 76)]
        text = wrapping.replace("{}", link)
        for name, value in {
            "percent": percent,
            "twice": urllib.parse.quote(percent, safe=""),
            "hash": link.replace("#", "%23"),
            "dashes": link.replace("--", "—"),
            "wrapped": "\n".join(lines),
            "quoted": "> " + "\n> ".join(lines),
            "loud": link.replace("https://relay.example.com", "HTTPS://Relay.Example.COM"),
            "port": link.replace("example.com/", "example.com:443/"),
        }.items():
            text = text.replace(f"{{{name}}}", value)
        assert parse(text) == given


def test_damage_is_noticed() -> None:
    """Links, each damaged in one or several places: one line, or the invite as it was. 10,000 where there is time."""
    chance = random.Random(15)
    letters = "ABCxyz019-_.#/:%= \n"
    refusals = 0
    count = 10_000 if hypothesis.settings().max_examples > 1000 else 1000
    for _ in range(count):
        text = list(LINK)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(text))
            kind = chance.randrange(4)
            if kind == 0:
                text[at] = chance.choice(letters)
            elif kind == 1:
                text.insert(at, chance.choice(letters))
            elif kind == 2:
                del text[at : at + chance.choice((1, 2, 50))]
                text = text or ["x"]
            else:
                text[at], text[-at - 1] = text[-at - 1], text[at]
        try:
            assert parse("".join(text)) == USUAL
        except UsageError as exc:
            refusals += 1
            assert "\n" not in str(exc)
    assert refusals > count * 0.9


def test_a_link_that_was_cut() -> None:
    """Anywhere."""
    for end in range(len(LINK)):
        refused(LINK[:end])
    assert refused(LINK[:-1]) == refused(LINK[:100]) == invite.NOT_WHOLE


@given(st.text(max_size=40))
def test_invalid_invites(text: str) -> None:
    """Whatever is there instead."""
    refused(text)


@given(st.binary(max_size=60))
def test_invalid_invites_with_a_good_checksum(packed: bytes) -> None:
    """Somebody made it by hand."""
    assert refused(signed(packed)) == invite.NOT_WHOLE


def signed(packed: bytes) -> str:
    return f"{USUAL.page}#1.{invite._encode(packed + invite._checksum(RELAY, packed))}"


BODY: dict[str, Any] = {"t": invite._parts(USUAL.token), "n": "mc", "p": 25565}


@pytest.mark.parametrize(
    "changes",
    [
        {"n": "other"},
        {"n": "../mc"},
        {"p": 0},
        {"p": "25565"},
        {"l": "\x1b[2J"},
        {"l": "x" * 100},
        {"t": invite._parts(token(role="host"))},
        {"t": invite._parts(token("\x1b[2J"))},
        {"t": (b"", b"", b"")},
        {"k": b"x" * 65},
        {"x": msgspec.Raw(b"\x91" * 480 + b"\xc0")},
    ],
    ids=",".join,
)
def test_a_contradictory_invite_is_refused(changes: dict[str, Any]) -> None:
    """It is refused as a whole, also with a good checksum."""
    assert parse(signed(msgspec.msgpack.encode(BODY))).tunnel == "mc"
    refused(signed(msgspec.msgpack.encode(BODY | changes)))


def test_unknown_fields_are_ignored() -> None:
    """Fields to come; another version is told apart from damage."""
    assert parse(signed(msgspec.msgpack.encode(BODY | {"x": 1, "later": [1, 2]}))).tunnel == "mc"
    assert "newer version" in refused(LINK.replace("#1.", "#2."))


def test_the_reasons() -> None:
    """Each says what to do about it."""
    other = made(token=token("robin")).link()
    assert refused(f"{LINK} {other}") == "there are 2 different links: give one"
    assert refused(" \n") == "there is no link: paste the one that you were sent"
    assert refused("https://relay.example.com/join") == invite.NOT_WHOLE
    for text in (USUAL.token, "https://example.com", "hello", LINK.replace("/join", "/")):
        assert "not the link of an invite" in refused(text)


def test_long_texts_are_read_in_little_time() -> None:
    """And no further than they may reach."""
    for text in ("https://" * 5000, "http://a/" * 5000, f"http://{'a' * 60} " * 500, "%25" * 20_000, "/a" * 20_000):
        refused(text)
    assert parse(f"{'word ' * 2000}{LINK}") == USUAL
    refused(f"{'word ' * 5000}{LINK}")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": "x" * 61}, "a label has up to 60 characters, all of them printable"),
        ({"label": "a\nb"}, "a label has up to 60 characters, all of them printable"),
        ({"token": token("x" * 200), "label": "é" * 60, "key": b"x" * 64}, "the link would have "),
        ({"token": "abc"}, "this is not a token"),
        ({"token": token(role="host")}, "its token is for a host, and not for a client"),
        ({"tunnel": "db"}, "its token is for mc, and not for db"),
        ({"token": token("a\x07b")}, "its subject cannot be printed"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_what_no_link_can_hold(changes: dict[str, Any], reason: str) -> None:
    """Told to the owner, who makes it."""
    with pytest.raises(UsageError) as error:
        made(**changes).link()
    assert reason in str(error.value)


def test_nothing_secret_is_shown() -> None:
    """Where an invite comes into a log or a traceback."""
    shown = repr(made(key=b"hunter2"))
    assert "hunter2" not in shown
    assert USUAL.token[-43:] not in repr(USUAL)


def test_addresses_have_one_form() -> None:
    """The checksum is made of it."""
    for url, expected in {
        "wss://Relay.Example.com/": RELAY,
        "wss://relay.example.com:443": RELAY,
        "ws://127.0.0.1:80": "ws://127.0.0.1",
        "wss://[2001:DB8::1]:8443/Tunnel/": "wss://[2001:db8::1]:8443/Tunnel",
        "wss://müller.example": "wss://xn--mller-kva.example",
    }.items():
        address = invite.relay_address(url)
        assert address == expected
        there = dataclasses.replace(USUAL, relay=address)
        assert parse(there.link()) == there
    for wrong in ("wss://", "wss://a b", "wss://a:x", "wss://[::", "wss://a/ü"):
        with pytest.raises(UsageError):
            invite.relay_address(wrong)


def test_the_example_of_the_protocol() -> None:
    """Made and read as PROTOCOL.md has it."""
    page = (Path(__file__).parents[3] / "PROTOCOL.md").read_text()
    (link,) = re.findall(r"^    (https://relay\.example\.com/join#1\.\w\S{20,})$", page, re.MULTILINE)
    (its_token,) = re.findall(r"^    (eyJ\S+)$", page, re.MULTILINE)
    given = Invite(
        relay=RELAY, token=its_token, tunnel="mc", port=25565, label="Kim's server", app=invite.MINECRAFT
    )  # fmt: skip
    assert given.link() == link
    assert parse(link) == given
