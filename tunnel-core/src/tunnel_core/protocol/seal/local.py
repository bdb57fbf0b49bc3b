"""The seal of one stream: it stands between the TCP connection and the stream, and looks to each like the other.

    TCP connection ── local_data ──▶ seal ── local_data ──▶ stream        bytes ──▶ records
    TCP connection ◀────── write ─── seal ◀────── write ─── stream        bytes ◀── records

So the stream's offsets, window and replay count ciphertext, and a resume sends the same records again. The end of a
direction is a `close_notify` before its FIN: a FIN without one is a cut, and reaches the application as RST.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from ..local import HOLD_SEAL, Carrier, Local, Payload
from .errors import Fault, SealError
from .keys import Identity
from .tls import PLAIN, RECORD, HostTls, Tls

OVERHEAD: Final = 22  # bytes that a record adds to its plaintext: header 5, type 1, tag 16 (RFC 8446 section 5.2)
RESERVE: Final = 64  # bytes of the window kept free of plaintext: a `close_notify` and a key update fit
FLIGHTS: Final = 1024  # bytes of the window that the rest of a client's handshake may take: 64, or a second ClientHello
MOST_HELLO: Final = 4096  # bytes of a ClientHello: 280 of ours, 1,500 of one with a post-quantum key


class SealedLocal:
    """Seals what `tcp` reads for `carrier`, and unseals what that brings.

    `largest` is the most ciphertext that one read may become. At a host `answers` is called before the answer to the
    ClientHello goes out, and `sealed`, at either end, once the other end has shown that it has the key. `failed` is
    called once if something is wrong; it is to reset the stream, or to refuse it. Nothing is carried after that.
    """

    carrier: Carrier

    def __init__(
        self,
        tls: Tls,
        tcp: Local,
        *,
        largest: int,
        failed: Callable[[SealError], None],
        sealed: Callable[[], None] = lambda: None,
        answers: Callable[[], None] = lambda: None,
    ) -> None:
        self._tls = tls
        self._end: ssl.SSLObject | None = tls.new_end()
        self._tcp = tcp
        self._largest = largest
        self._failed = failed
        self._sealed = sealed
        self._answers = answers
        self._hello = MOST_HELLO if tls.is_server else 0  # bytes allowed before the host's answer
        self.is_sealed = False  # the handshake is over
        self.identity: Identity | None = None  # shown by the client
        # What was read before there was a seal: by a gateway, or since uvloop reads a new connection once, held or not.
        self.early = bytearray()
        self._early_eof = False
        self._peer_closed = False  # by `close_notify`
        self._partial = 0  # bytes of an incomplete record
        if not tls.is_server:
            tcp.hold(HOLD_SEAL)

    def start(self) -> None:
        """At a client: say the ClientHello. It is the stream's first data."""
        if self._end is not None:
            self._tls.handshake(self._end)
            self.carrier.local_data(self._tls.outgoing.read())

    # Called by the TCP connection.

    @property
    def credit(self) -> int:
        """Bytes that may be read now: as many as fit, sealed, into what the stream may send and into one read."""
        room = min(self.carrier.credit, self._largest) - RESERVE
        room -= (room // (RECORD + OVERHEAD) + 1) * OVERHEAD
        return room if self.is_sealed else max(1, room - FLIGHTS - len(self.early))

    def local_data(self, data: Payload) -> None:
        if not self.is_sealed:
            self.early += data
        elif self._end is not None:
            written = self._end.write(data)
            assert written == len(data), "memory takes all"
            self.carrier.local_data(self._tls.outgoing.read())

    def local_eof(self) -> None:
        if not self.is_sealed:
            self._early_eof = True
        elif self._end is not None:
            with contextlib.suppress(ssl.SSLWantReadError):  # the other end has not sent its own
                self._end.unwrap()  # only sends a `close_notify`: the other direction stays open
            self.carrier.local_data(self._tls.outgoing.read())
            self.carrier.local_eof()

    def local_broken(self, reason: str) -> None:
        self._end = None
        self.carrier.local_broken(reason)

    def local_drained(self) -> None:
        self.carrier.local_drained()

    # Called by the stream, as its local socket.

    @property
    def pending(self) -> int:
        """Bytes that have not left: at most so many of ciphertext, since a record is longer than what is in it."""
        return self._tcp.pending + self._partial

    def write(self, pieces: Sequence[Payload]) -> None:
        if self._end is None:
            return
        incoming = self._tls.incoming
        for piece in pieces:
            incoming.write(piece)
        try:
            if self.is_sealed:
                self._unseal(self._end)
            elif self._handshake(self._end, sum(map(len, pieces))):
                self._unseal(self._end)
                self._say_early()
        except SealError as exc:
            self._fail(exc)

    def write_eof(self) -> None:
        if self._peer_closed:
            self._tcp.write_eof()
        elif self._end is not None:
            self._fail(SealError(Fault.TRUNCATED))

    def close(self) -> None:
        self._end = None
        self._tcp.close()

    def abort(self) -> None:
        self._end = None
        self._tcp.abort()

    def set_window(self, window: int) -> None:
        self._tcp.set_window(window)

    def hold(self, reason: int) -> None:
        self._tcp.hold(reason)

    def release(self, reason: int) -> None:
        self._tcp.release(reason)

    # Internals.

    def _handshake(self, end: ssl.SSLObject, size: int) -> bool:
        """Continue the handshake with `size` bytes. Returns whether the seal is complete. Raises SealError."""
        if self._tls.is_server and self.identity is None:
            self._hello -= size
            if self._hello < 0:
                raise SealError(Fault.CHANGED)
        over = self._tls.handshake(end)
        if isinstance(self._tls, HostTls) and self._tls.shown is not None:
            self.identity = self._tls.shown
        if self._tls.outgoing.pending:
            answer = self._tls.outgoing.read()
            if self._tls.is_server:
                self._answers()
            self.carrier.local_data(answer)
        if over:
            self.is_sealed = True
            self._sealed()
            self._tcp.release(HOLD_SEAL)
        return over

    def _say_early(self) -> None:
        if self.early:
            data, self.early = bytes(self.early), bytearray()
            self.local_data(data)
        if self._early_eof:
            self.local_eof()

    def _unseal(self, end: ssl.SSLObject) -> None:
        """Decrypt the records in `incoming` and write their contents. Raises SealError."""
        incoming, plain = self._tls.incoming, self._tls.plain
        size = 0
        try:
            while left := incoming.pending:
                if self._peer_closed:
                    raise SealError(Fault.CHANGED)
                try:
                    # The type stubs do not know that any buffer works, nor what is returned for one.
                    count: int = end.read(RECORD, plain[size:])  # type: ignore[assignment, arg-type, unused-ignore]
                except ssl.SSLWantReadError:
                    self._partial += left
                    return
                except ssl.SSLZeroReturnError:
                    count = 0  # a `close_notify`, after this end has sent its own
                except ssl.SSLError as exc:
                    raise SealError(Fault.CHANGED) from exc
                self._partial = 0
                self._peer_closed = not count
                size += count
                if size > PLAIN - RECORD:
                    self._tcp.write((plain[:size],))
                    size = 0
        finally:
            if size:
                self._tcp.write((plain[:size],))

    def _fail(self, error: SealError) -> None:
        self._end = None
        self._tls.incoming.read()  # the buffer is shared: leave nothing for the next end
        self._tls.outgoing.read()
        self._failed(error)
