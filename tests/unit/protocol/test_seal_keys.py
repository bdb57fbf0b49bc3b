"""Keys of sealed tunnels: the test vectors of PROTOCOL.md, and what cannot be a key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.errors import UsageError
from tunnel_core.protocol.invite import Invite, parse
from tunnel_core.protocol.seal import keys
from tunnel_core.protocol.seal.keys import Identity, Keyring

SECRET = b"0123456789abcdef0123456789abcdef"
TOKEN = "000102030405060708090a0b0c0d0e0f"
PROTOCOL = (Path(__file__).parents[3] / "PROTOCOL.md").read_text()

token_ids = st.from_regex(r"[!-~]{1,64}", fullmatch=True)
secrets = st.binary(min_size=32, max_size=64)
tunnels = st.sampled_from(["mc", "mc2", "db"])


def test_the_vectors_of_the_specification() -> None:
    """Whoever writes an agent can check theirs against these."""
    key = keys.derive(SECRET, "mc", TOKEN)
    table = dict(re.findall(r"^\| (identity|PSK|key) \| `(\S+)` \|$", PROTOCOL, re.MULTILINE))
    assert table == {"identity": key.identity, "PSK": key.psk.hex(), "key": str(key)}


@given(first=st.tuples(secrets, tunnels, token_ids), second=st.tuples(secrets, tunnels, token_ids))
def test_secret_tunnel_and_token_all_count(first: tuple[bytes, str, str], second: tuple[bytes, str, str]) -> None:
    assert (keys.derive(*first).psk == keys.derive(*second).psk) == (first == second)


@given(secrets, tunnels, token_ids)
def test_the_host_finds_the_key_that_a_friend_was_given(secret: bytes, tunnel: str, token: str) -> None:
    """By the identity alone, in whatever form the key was handed out."""
    key = keys.derive(secret, tunnel, token)
    identity = keys.parse_identity(key.identity)
    assert identity == Identity(key.secret, token)
    assert Keyring([SECRET, secret], tunnel).find(identity) == key
    assert Keyring([b"x" * 32], tunnel).find(identity) is None
    assert keys.parse(f" {key}\n", token) == keys.decode(key.encoded, token) == key


@given(st.text(max_size=100))
def test_what_is_no_identity_names_nothing(text: str) -> None:
    identity = keys.parse_identity(text)
    assert identity is None or str(identity) == text


def test_an_identity_fits_into_what_tls_has_for_it() -> None:
    """Python takes up to 256 bytes."""
    assert len(keys.derive(SECRET, "mc", "~" * 64).identity) < 256


@pytest.mark.parametrize("text", ["", "x", "eyJhbGciOiJIUzI1NiJ9", "ä" * 54, "A" * 52, "A" * 54 + "\0", "A" * 60])
def test_an_invalid_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(UsageError) as told:
        keys.parse(text, TOKEN)
    assert text not in str(told.value) or not text


@pytest.mark.parametrize("token", ["", "with space", "ä", "x" * 65, "a\n", "a\0"])
def test_a_token_id_that_no_identity_can_hold_has_no_key(token: str) -> None:
    with pytest.raises(UsageError):
        keys.derive(SECRET, "mc", token)


def test_a_key_is_shown_nowhere() -> None:
    key = keys.derive(SECRET, "mc", TOKEN)
    assert key.psk.hex() not in repr(key)
    assert repr(key.psk) not in repr(key)


def test_an_invite_holds_the_key() -> None:
    """Beside a token whose id the key is for; the link stays short enough."""
    link = re.findall(r"^    (https://relay\.example\.com/join#1\.\S{40,})$", PROTOCOL, re.MULTILINE)[0]
    invite = parse(link)
    key = keys.derive(SECRET, invite.tunnel, invite.grant.id)
    given_out = Invite(relay=invite.relay, token=invite.token, tunnel="mc", port=25565, key=key.encoded).link()
    assert keys.decode(parse(given_out).key, invite.grant.id) == key
