"""Who gets through the handshake of a sealed tunnel: whoever has the key, and nobody else."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from support.seals import SEAL_SECRET, TOKEN_ID, host_tls, key, seals
from tunnel_core.protocol.seal.errors import Fault, SealError
from tunnel_core.protocol.seal.keys import Key
from tunnel_core.protocol.seal.tls import ClientTls, Tls

pytestmark = pytest.mark.sealed

AUTHORITY = trustme.CA()


class Stranger(Tls):
    """An end by a context that a test makes up."""

    def __init__(self, context: ssl.SSLContext, *, is_server: bool) -> None:
        super().__init__(context)
        self.is_server = is_server

    def _fault_of(self, exc: ssl.SSLError) -> Fault:
        return Fault.CHANGED


def impostor() -> Stranger:
    """A host with a certificate, which everybody else would trust, and no key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("relay.example.com").configure_cert(context)
    return Stranger(context, is_server=True)


def keyless(*, certificate: bool) -> Stranger:
    """A client without a key, which takes any host for the true one."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        AUTHORITY.issue_cert("alex@example.com").configure_cert(context)
    return Stranger(context, is_server=False)


def knowing(psk: bytes, identity: str) -> Stranger:
    """A client by Python's own example of pre-shared keys, which shows whatever it likes."""
    context: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_psk_client_callback(lambda hint: (identity, psk))
    return Stranger(context, is_server=False)


def meet(client: Tls, host: Tls, change: Callable[[int, bytes], bytes] = lambda number, flight: flight) -> list[bool]:
    """Have two ends shake hands over a line on which `change` is made to each flight. Raises SealError."""
    ends = [(client, client.new_end()), (host, host.new_end())]
    over = [False, False]
    flight = b""
    for number in range(4):
        tls, end = ends[number % 2]
        tls.incoming.write(flight)
        over[number % 2] = tls.handshake(end)
        flight = change(number, tls.outgoing.read())
    assert not tls.incoming.pending
    return over


def test_the_key_makes_the_handshake_in_one_round_trip() -> None:
    client, host = seals()
    assert meet(client, host) == [True, True]
    assert host.shown is None  # that was in the step before


def test_a_certificate_is_worth_nothing() -> None:
    """The trap: to a client that asks for none, as Python's example of pre-shared keys is, OpenSSL says yes."""
    trusting, host = knowing(key().psk, key().identity), impostor()
    end, other = trusting.new_end(), host.new_end()
    with pytest.raises(ssl.SSLWantReadError):
        end.do_handshake()
    host.incoming.write(trusting.outgoing.read())
    assert not host.handshake(other)
    trusting.incoming.write(host.outgoing.read())
    end.do_handshake()  # no error: the man in the middle is in
    assert not end.session_reused
    with pytest.raises(SealError) as told:  # the first guard: what made the handshake is looked at
        meet(knowing(key().psk, key().identity), impostor())
    assert told.value.fault is Fault.FALSE_HOST
    with pytest.raises(SealError) as told:  # the second, which is asked first: no certificate will do
        meet(ClientTls(key()), impostor())
    assert told.value.fault is Fault.FALSE_HOST
    assert isinstance(told.value.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("certificate", [False, True])
def test_a_client_without_a_key_gets_nowhere(certificate: bool) -> None:
    with pytest.raises(SealError) as told:
        meet(keyless(certificate=certificate), host_tls())
    assert told.value.fault is Fault.UNSEALED_CLIENT


@pytest.mark.parametrize(
    ("shown", "fault"),
    [
        (key(secret="an-older-secret-of-the-same-owner's"), Fault.OLD_KEY),
        (key(token="f" * 32), Fault.REVOKED),
        (key(tunnel="db"), Fault.WRONG_KEY),
        (Key(key().secret, TOKEN_ID, b"guessed!" * 4), Fault.WRONG_KEY),
    ],
)
def test_a_friend_hears_what_is_wrong_with_a_key(shown: Key, fault: Fault) -> None:
    with pytest.raises(SealError) as told:
        meet(ClientTls(shown), host_tls(revoked=frozenset(["f" * 32])))
    assert told.value.fault is fault
    assert str(told.value) == fault.line


@pytest.mark.parametrize("identity", ["x", "0" * 16, f"{'0' * 16}.", f"{'0' * 16}.a b", "..", "\x7f", "ä" * 100])
def test_an_identity_of_somebody_elses_is_refused(identity: str) -> None:
    with pytest.raises(SealError) as told:
        meet(knowing(b"k" * 32, identity), host_tls())
    assert told.value.fault is Fault.OLD_KEY


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\0\0"])
def test_an_identity_that_is_no_text_is_refused(bad: bytes) -> None:
    """Quietly: no traceback comes from within OpenSSL's call."""
    shown = key().identity.encode()

    def change(number: int, flight: bytes) -> bytes:
        return flight.replace(shown, bad + shown[len(bad) :]) if number == 0 else flight

    with pytest.raises(SealError):
        meet(ClientTls(key()), host_tls(), change)


def test_all_secrets_of_an_owner_are_good() -> None:
    """While a new one replaces an old one."""
    old, new = "an-older-secret-of-the-same-owner's", SEAL_SECRET
    host = host_tls(new, old)
    for secret in (old, new):
        assert meet(ClientTls(key(secret=secret)), host) == [True, True]


def flights() -> list[bytes]:
    """What an honest handshake says: three flights, and nothing for a fourth."""
    out: list[bytes] = []

    def hear(number: int, flight: bytes) -> bytes:
        out.append(flight)
        return flight

    meet(*seals(), hear)
    return out


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_handshake_that_is_changed_anywhere_fails(number: int) -> None:
    """Each byte of each flight, at whichever end notices, but for those that TLS ignores (RFC 8446 section 5.1)."""
    flight = flights()[number]
    ignored = set()
    start = 0
    while start < len(flight):
        ignored |= {start + 1, start + 2}  # legacy_record_version
        start += 5 + int.from_bytes(flight[start + 3 : start + 5])
    for at in set(range(0, len(flight), 1 if number else 3)) - ignored:

        def flip(now: int, flight: bytes, at: int = at) -> bytes:
            if now != number or at >= len(flight):
                return flight
            return flight[:at] + bytes([flight[at] ^ 0x41]) + flight[at + 1 :]

        client, host = seals()
        try:
            assert meet(client, host, flip) != [True, True], at
        except SealError as exc:
            assert exc.fault in (Fault.CHANGED, Fault.WRONG_KEY, Fault.OLD_KEY, Fault.UNSEALED_CLIENT, Fault.FALSE_HOST)


def test_a_handshake_that_was_recorded_is_worth_nothing() -> None:
    """The host's answer is fresh each time: what the client said to another does not finish it."""
    recorded = flights()
    host = host_tls()
    end = host.new_end()
    host.incoming.write(recorded[0])
    assert not host.handshake(end)
    host.outgoing.read()
    host.incoming.write(recorded[2])
    with pytest.raises(SealError):
        host.handshake(end)


def test_a_ticket_is_neither_given_nor_taken() -> None:
    assert [bool(flight) for flight in flights()] == [True, True, True, False]
