"""Where a client-agent has the keys of sealed tunnels from."""

from __future__ import annotations

import sys

import pytest
from client_agent.seals import Seals
from client_agent.settings import ClientSettings, Forward
from support.seals import SEAL_SECRET, TOKEN_ID, key
from tunnel_core.errors import UsageError
from tunnel_core.protocol.seal.errors import SealUnavailable
from tunnel_core.protocol.seal.tls import require
from tunnel_core.service.settings import Secret


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are found alike, whether this Python can seal or not."""
    monkeypatch.setattr("client_agent.seals.require", lambda: None)


def given(tunnels: tuple[str, ...] = ("mc",), *, e2e_key: str = "", e2e_secret: str = "") -> ClientSettings:
    forwards = tuple(Forward("", 0, tunnel) for tunnel in tunnels)
    return ClientSettings(forward=forwards, e2e_key=Secret(e2e_key), e2e_secret=Secret(e2e_secret))


def test_a_key_is_for_its_tunnel_and_token() -> None:
    """As it was printed, or alone where there is one tunnel."""
    other = key(tunnel="db")
    both = Seals(given(("mc", "db", "web"), e2e_key=f"mc={key()}\ndb={other}\n"), TOKEN_ID)
    assert [both.key(tunnel) for tunnel in ("mc", "db", "web")] == [key(), other, None]
    for text in (f"{key()}", f"{key()}=="):
        assert Seals(given(e2e_key=text), TOKEN_ID).key("mc") == key()
    assert Seals(given(), TOKEN_ID).key("mc") is None


def test_the_owner_has_all_keys() -> None:
    assert Seals(given(e2e_secret=SEAL_SECRET), None).key("mc") == key(token="owner")
    assert Seals(given(e2e_secret=SEAL_SECRET), TOKEN_ID).key("mc") == key()


@pytest.mark.parametrize(
    ("text", "tunnels", "token", "reason"),
    [
        (str(key()), ("mc", "db"), TOKEN_ID, "which tunnel is the key for"),
        (str(key()), ("mc",), None, "--token-file"),
        (f"db={key()}", ("mc",), TOKEN_ID, "the keys are for db, and not for mc"),
        ("mc=short", ("mc",), TOKEN_ID, "not the key of a sealed tunnel"),
        (f"mc={str(key())[:-4]}", ("mc",), TOKEN_ID, "is not whole"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_at_the_start(
    text: str, tunnels: tuple[str, ...], token: str | None, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason) as told:
        Seals(given(tunnels, e2e_key=text), token)
    assert text not in str(told.value)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="this Python can seal")
def test_an_older_python_says_so_in_one_line() -> None:
    with pytest.raises(SealUnavailable, match=r"need Python 3\.13 or later at both ends: this is 3\.1[12]") as told:
        require()
    assert told.value.exit_code == 1
