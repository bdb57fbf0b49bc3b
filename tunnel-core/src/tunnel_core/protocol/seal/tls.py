"""TLS 1.3 by a pre-shared key, over memory (RFC 8446 section 2.2). Nothing here is cryptography of our own.

The contexts require a certificate and trust no CA, so a peer that shows any certificate instead of the key is
refused. With `CERT_NONE`, OpenSSL would accept it, and a man in the middle could read everything. After each
handshake we check that the pre-shared key was used.

A key is always combined with a fresh Diffie-Hellman exchange (`psk_dhe_ke`, OpenSSL's default): a key
leaked later does not decrypt recorded traffic.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from typing import Final

from .errors import Fault, SealError, SealUnavailable
from .keys import Identity, Key, Keyring, parse_identity

PYTHON: Final = (3, 13)  # the first whose `ssl` knows pre-shared keys
RECORD: Final = 16 * 1024  # bytes of plaintext in a full record (RFC 8446 section 5.1)
PLAIN: Final = 8 * RECORD  # bytes decrypted before each write: what one read of a leg brings
NO_KEY: Final = "NO_SUITABLE_SIGNATURE_ALGORITHM"  # OpenSSL's, if a client shows none: there is no certificate to sign


def require() -> None:
    """Raise SealUnavailable if this Python cannot seal."""
    if sys.version_info < PYTHON:
        raise SealUnavailable(
            f"sealed tunnels need Python 3.13 or later at both ends: this is {sys.version.split()[0]}"
        )
    if not (getattr(ssl, "HAS_PSK", False) and ssl.HAS_TLSv1_3):
        raise SealUnavailable(f"sealed tunnels need TLS 1.3 with pre-shared keys, which {ssl.OPENSSL_VERSION} lacks")


class Tls:
    """Makes the TLS ends of one tunnel in this process. Subclasses provide the context.

    All ends share their buffers, since each call of an end uses up or hands on what is in them before it returns:
    the half of a record waits in the end itself.
    """

    is_server: bool

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.plain = memoryview(bytearray(PLAIN))  # decrypted bytes, until they are written

    def new_end(self) -> ssl.SSLObject:
        return self._context.wrap_bio(self.incoming, self.outgoing, server_side=self.is_server)

    def handshake(self, end: ssl.SSLObject) -> bool:
        """Continue the handshake of `end` with what is in `incoming`. Returns whether it is done. Raises SealError."""
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as exc:
            raise SealError(self._fault_of(exc)) from exc
        if not end.session_reused:
            raise SealError(Fault.FALSE_HOST)  # made without the key
        return True

    def _fault_of(self, exc: ssl.SSLError) -> Fault:
        raise NotImplementedError


class ClientTls(Tls):
    """Makes a client-agent's ends, which show `key`."""

    is_server = False

    def __init__(self, key: Key) -> None:
        super().__init__(_context(ssl.PROTOCOL_TLS_CLIENT))
        identity, psk = key.identity, key.psk
        if sys.version_info >= (3, 13):
            self._context.set_psk_client_callback(lambda hint: (identity, psk))

    def _fault_of(self, exc: ssl.SSLError) -> Fault:
        return Fault.FALSE_HOST if isinstance(exc, ssl.SSLCertVerificationError) else Fault.CHANGED


class HostTls(Tls):
    """Makes a host-agent's ends, which take the keys of `keyring` whose tokens are not `revoked`."""

    is_server = True

    def __init__(self, keyring: Keyring, revoked: Callable[[str], bool] = lambda token: False) -> None:
        super().__init__(_context(ssl.PROTOCOL_TLS_SERVER))
        self._context.num_tickets = 0  # a ticket would be another key to protect, and costs bytes and memory
        self._keyring = keyring
        self._revoked = revoked
        # OpenSSL asks for the key in mid-handshake, naming only the identity, not the end. Only one end at a time
        # continues its handshake, so the identity is that end's.
        self.shown: Identity | None = None  # in the step of a handshake that is over, if it was taken
        self._refused: Fault | None = None
        if sys.version_info >= (3, 13):
            self._context.set_psk_server_callback(self._psk)

    def handshake(self, end: ssl.SSLObject) -> bool:
        self.shown = self._refused = None
        return super().handshake(end)

    def _psk(self, text: str | None) -> bytes:
        """The key for the identity `text`; empty to refuse it."""
        identity = parse_identity(text)
        key = self._keyring.find(identity) if identity is not None else None
        if identity is None or key is None:
            self._refused = Fault.OLD_KEY
            return b""
        if self._revoked(identity.token):
            self._refused = Fault.REVOKED
            return b""
        self.shown = identity
        return key.psk

    def _fault_of(self, exc: ssl.SSLError) -> Fault:
        if self._refused is not None:
            return self._refused
        if self.shown is not None:
            return Fault.WRONG_KEY
        return Fault.UNSEALED_CLIENT if exc.reason == NO_KEY else Fault.CHANGED


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # the host is known by its key
    context.verify_mode = ssl.CERT_REQUIRED  # and no CA is loaded: every certificate fails
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    return context
