"""Tokens: what is accepted, what is not, and that nothing else is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import re
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.errors import AccessDenied, UsageError
from tunnel_core.protocol import tokens

SECRET, OTHER = b"0123456789abcdef0123456789abcdef", b"fedcba9876543210fedcba9876543210"
NOW = 1_800_000_000.0
CLAIMS: dict[str, Any] = {"sub": "alex", "role": "client", "tunnels": ["mc"], "exp": int(NOW) + 60, "jti": "1"}


def signed(secret: bytes = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token of these claims, of which None is left out."""
    merged = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return jwt.encode(merged, secret, algorithm=algorithm)


def refused(token: str, *secrets: bytes, now: float = NOW) -> str:
    """Why a token is refused."""
    with pytest.raises(AccessDenied) as denied:
        tokens.verify(token, secrets or (SECRET,), now)
    return str(denied.value)


def test_what_is_issued_is_granted() -> None:
    """Every field comes back as it was given; each token has an id of its own."""
    token = tokens.issue(
        SECRET,
        role="host",
        tunnels=["mc", "db"],
        subject="alex",
        expires=NOW + 60.9,
        streams=5,
        networks=["192.0.2.0/24"],
    )
    grant = tokens.verify(token, [SECRET], NOW)
    assert (grant.role, grant.tunnels, grant.subject, grant.expires) == ("host", ("mc", "db"), "alex", NOW + 60)
    assert (grant.streams, grant.networks) == (5, ("192.0.2.0/24",))
    assert tokens.read(token) == grant
    plain = [tokens.issue(SECRET, role="client", tunnels=["mc"], subject="x", expires=NOW) for _ in range(2)]
    first, second = (tokens.verify(token, [SECRET], NOW) for token in plain)
    assert first.id != second.id
    assert (first.streams, first.networks) == (None, ())


@pytest.mark.parametrize(
    "wanted", [{"subject": "x" * 201}, {"tunnels": ["t"] * 51}, {"tunnels": ["*"]}, {"networks": ["x"]}]
)
def test_nothing_is_issued_that_no_relay_takes(wanted: dict[str, Any]) -> None:
    """Whoever asks for it learns so, and not the one who is given it."""
    plain: dict[str, Any] = {"role": "client", "tunnels": ["mc"], "subject": "x", "expires": NOW}
    with pytest.raises(UsageError, match="the token would be too long"):
        tokens.issue(SECRET, **plain | wanted)


def test_a_gateway_may_use_tunnels_and_name_visitors() -> None:
    """It dials legs as a client does, to the tunnels of its token, or with `*` alone to all; nobody else has that."""
    some, anywhere = (
        tokens.verify(
            tokens.issue(SECRET, role="gateway", tunnels=tunnels, subject="x", expires=NOW + 60), [SECRET], NOW
        )
        for tunnels in (["mc", "db"], ["*"])
    )
    assert (some.leg_role, some.may_name_visitors) == ("client", True)
    assert [some.is_for("db"), some.is_for("web"), anywhere.is_for("web")] == [True, False, True]
    assert refused(signed(role="client", tunnels=["*"])) == tokens.NOT_VALID
    assert refused(signed(role="gateway", tunnels=["mc", "*"])) == tokens.NOT_VALID
    client = tokens.verify(signed(), [SECRET], NOW)
    assert not client.may_name_visitors


# As tokens and secrets arrive. `{}` is the thing itself.
DELIVERED = [
    "{}\n", "{}\r\n", "  {} ", "\ufeff{}", "\udcff\udcfe{}\r", '"{}"', "'{}'\n", "“{}”", "`{}`", " '\"{}\"' ", "<{}>",
    "Bearer {}", "bearer  {}", "Authorization: Bearer {}", '"Bearer {}"', "CLIENT_AGENT_TOKEN={}", "RELAY_SECRET='{}'",
    "export TOKEN={}", "token: {}",
]  # fmt: skip


@pytest.mark.parametrize("delivered", DELIVERED)
def test_a_token_or_secret_is_taken_as_people_deliver_it(delivered: str) -> None:
    """With quotes, labels, line ends and byte order marks around it."""
    token = signed()
    assert tokens.clean(delivered.replace("{}", token)) == token
    assert tokens.parse_secrets(delivered.replace("{}", SECRET.decode())) == (SECRET,)


def test_a_token_is_found_among_words() -> None:
    """Wrapped by a mail program, or with a remark beside it."""
    token = signed()
    assert tokens.clean(f"{token[:70]}\r\n{token[70:]}\r\n") == token
    assert tokens.clean(f"for alex: {token} (good for a week)") == token
    assert tokens.clean(f"{token}\nalex\n") == token


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "this is not a token: ask whoever runs the relay for one"),
        ("garbage", "this is not a token: ask whoever runs the relay for one"),
        ("a.b.c", "this is not a token: ask whoever runs the relay for one"),
        (SECRET.decode(), "this is not a token: ask whoever runs the relay for one"),
        (signed()[:-1], "the token is not whole: copy all of it, from eyJ on"),
        (signed().rpartition(".")[0], "the token is not whole"),
        (f"{signed()} {signed(jti='2')}", "there are 2 tokens: give one"),
    ],
)
def test_an_invalid_token_is_explained(text: str, expected: str) -> None:
    """Without showing it: it may be most of one."""
    with pytest.raises(AccessDenied) as denied:
        tokens.clean(text)
    assert str(denied.value).startswith(expected)
    assert len(text) < 10 or text not in str(denied.value)


@given(st.text(), st.sampled_from(["", SECRET.decode(), signed()]), st.text())
def test_cleaning_never_breaks(before: str, middle: str, after: str) -> None:
    """Any text is a clean token, or refused."""
    try:
        token = tokens.clean(before + middle + after)
    except AccessDenied:
        return
    assert tokens.clean(token) == token
    assert token.isascii()


def test_it_is_a_plain_jwt() -> None:
    """HS256 by RFC 7515, checked here with the standard library alone."""
    token = tokens.issue(SECRET, role="client", tunnels=["mc"], subject="alex", expires=NOW)
    head, body, signature = token.split(".")
    mac = hmac.new(SECRET, f"{head}.{body}".encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64encode(mac).rstrip(b"=").decode() == signature
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims.pop("jti")
    assert claims == {"sub": "alex", "role": "client", "tunnels": ["mc"], "exp": NOW}


def test_expiry_has_thirty_seconds_of_leeway() -> None:
    """Clocks differ; more than that is expired."""
    token = signed(exp=NOW)
    assert tokens.verify(token, [SECRET], NOW + 30).subject == "alex"
    assert refused(token, now=NOW + 30.1) == "the token has expired: ask for a new one"


def test_secrets_rotate() -> None:
    """Old and new are accepted while both are known; a third is not."""
    for secret in (SECRET, OTHER):
        assert tokens.verify(signed(secret), [SECRET, OTHER], NOW).subject == "alex"
    assert refused(signed(OTHER), SECRET) == "the token is not valid"
    assert refused(signed(b"x" * 32), SECRET, OTHER) == "the token is not valid"


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_no_other_algorithm(algorithm: str) -> None:
    """Even with the right secret."""
    assert refused(signed(b"x" * 64, algorithm), b"x" * 64) == "the token is not valid"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "RS256", "ES256", "HS1", "", None, 5])
@pytest.mark.parametrize("signature", ["", "AAAA", "right"])
def test_the_header_decides_nothing(name: object, signature: str) -> None:
    """`alg: none` and its kin, unsigned or signed as HS256 would be."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    unsigned = f"{part({'alg': name, 'typ': 'JWT'})}.{part(CLAIMS)}"
    if signature == "right":
        mac = hmac.new(SECRET, unsigned.encode(), hashlib.sha256).digest()
        signature = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    assert refused(f"{unsigned}.{signature}") == "the token is not valid"


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None}, {"sub": ""}, {"sub": 5}, {"sub": "x" * 201},
        {"role": None}, {"role": "admin"}, {"role": ["host"]},
        {"tunnels": None}, {"tunnels": []}, {"tunnels": "mc"}, {"tunnels": ["MC"]}, {"tunnels": ["a/b"]},
        {"tunnels": ["mc"] * 51}, {"tunnels": ["mc", ""]},
        {"exp": None}, {"exp": "tomorrow"}, {"exp": True}, {"exp": float("nan")},
        {"jti": None}, {"jti": ""}, {"jti": "x" * 65},
        {"streams": 0}, {"streams": "many"}, {"net": ["everywhere"]}, {"net": "192.0.2.0/24"},
    ],
    ids=str,
)  # fmt: skip
def test_each_claim_is_checked(claims: dict[str, Any]) -> None:
    """A signature alone makes no grant: whoever signed it may have had another program in mind."""
    assert refused(signed(**claims)) in ("the token is not valid", "the token has expired: ask for a new one")


def test_unknown_claims_are_no_matter() -> None:
    """A later version may add some."""
    assert tokens.verify(signed(colour="blue"), [SECRET], NOW).subject == "alex"


@given(st.one_of(st.text(), st.text(alphabet="eyJ.-_AZaz09="), st.binary().map(lambda data: data.decode("latin-1"))))
def test_garbage_is_refused(token: str) -> None:
    """With the one reason that there is, whatever it is."""
    assert refused(token) == "the token is not valid"
    with pytest.raises(AccessDenied, match="not a token"):
        tokens.read(token)


@given(st.data())
def test_one_bit_makes_a_token_worthless(data: st.DataObject) -> None:
    """In the header, the claims or the signature."""
    parts = [base64.urlsafe_b64decode(part + "==") for part in signed().split(".")]
    which = data.draw(st.integers(0, 2))
    bit = data.draw(st.integers(0, len(parts[which]) * 8 - 1))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    assert refused(".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts))


def test_a_token_of_any_length_is_answered() -> None:
    """No length costs anything."""
    assert refused("e" * 5000) == "the token is not valid"
    assert refused(signed(sub="x" * 3000)) == "the token is not valid"


def test_networks() -> None:
    """IPv4, IPv6, and IPv4 as a dual-stack socket shows it; none means anywhere."""
    grant = tokens.verify(signed(net=["192.0.2.0/24", "2001:db8::/32"]), [SECRET], NOW)
    for address in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"):
        assert grant.admits_address(address)
    for address in ("192.0.3.7", "::1", "unix", ""):
        assert not grant.admits_address(address)
    assert tokens.verify(signed(), [SECRET], NOW).admits_address("unix")


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_any_network_admits_its_own(address: ipaddress.IPv4Address, bits: int) -> None:
    """And what `--network` accepts, a token can carry."""
    network = tokens.parse_network(str(ipaddress.ip_network((address, bits), strict=False)))
    assert tokens.verify(signed(net=[network]), [SECRET], NOW).admits_address(str(address))


def test_networks_are_written_in_full() -> None:
    """A host's address with a shorter mask is a slip."""
    assert tokens.parse_network("192.0.2.7") == "192.0.2.7/32"
    for text in ("192.0.2.7/24", "everywhere", "", "192.0.2.0/33"):
        with pytest.raises(UsageError, match=re.escape("write one like 192.0.2.0/24")):
            tokens.parse_network(text)


def test_secrets_have_32_bytes_or_more() -> None:
    """Fewer can be guessed from one token; bytes count, not characters."""
    assert tokens.parse_secrets(f" {SECRET.decode()}\n{OTHER.decode()} ") == (SECRET, OTHER)
    assert tokens.parse_secrets("ü" * 16) == ("ü".encode() * 16,)
    assert tokens.parse_secrets(f'"{SECRET.decode()}"\r\n"{OTHER.decode()}"\r\n') == (SECRET, OTHER)
    assert tokens.parse_secrets("x" * 32 + "\udcffx") == (b"x" * 32 + b"\xffx",)
    for text in ("", " \n", "''", "x" * 31, f"{SECRET.decode()} short"):
        with pytest.raises(UsageError, match=r"the secret is empty|must have 32 bytes"):
            tokens.parse_secrets(text)
    with pytest.raises(UsageError, match="this is a token, not the secret that signs tokens"):
        tokens.parse_secrets(signed())
