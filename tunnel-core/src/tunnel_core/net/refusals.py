"""Why a dial failed, and what its user can do about it.

Converts each foreign exception, and each response that opens no leg, into an error of ours.
Messages repeat nothing that may be secret: no URL query, no proxy password.
"""

from __future__ import annotations

import re
import ssl
import urllib.parse
from typing import Final

from websockets.exceptions import InvalidMessage, ProxyError
from websockets.http11 import Response

from ..errors import AccessDenied, RelayUnavailable
from ..protocol.endpoints import RELAY_HEADER, Role
from . import sockets

LONGEST: Final = 200  # characters of a stranger's text that a message repeats

# X509_V_ERR_… of OpenSSL's x509_vfy.h, as `SSLCertVerificationError.verify_code` has them.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNKNOWN_ISSUER: Final = (2, 18, 19, 20, 21)
_OTHER_NAME: Final = (62, 63, 64)
# OpenSSL's reasons when the peer does not speak TLS.
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")

_LET_IN: Final = "let agents pass there, or give what it asks for with --header"
_CHECK_URL: Final = "is the URL the relay's, with its path?"
# What to do about responses from a proxy, firewall or platform in front of the relay.
_ADVICE: Final = {
    200: f"a web page is no relay: {_CHECK_URL}",
    400: "a proxy on the way may take the WebSocket headers away: have it pass on Upgrade and Connection",
    401: f"not the relay, but something before it asks for a login: {_LET_IN}",
    403: f"not the relay, but something before it forbids this, a firewall or a login: {_LET_IN}",
    404: f"there is nothing of a relay at this address: {_CHECK_URL}",
    426: "a proxy on the way takes the WebSocket headers away: have it pass on Upgrade and Connection",
    429: "something before the relay limits how often one may dial: wait, or have that limit raised",
    500: "the proxy before the relay has a fault: its log tells",
    502: "the proxy there does not reach the relay: is the relay running?",
    503: "the relay is not running there, or is just starting",
    504: "the proxy there gets no answer from the relay: is the relay running?",
    505: "a proxy on the way speaks HTTP/1.0: have it use HTTP/1.1 (nginx: proxy_http_version), and pass on Upgrade",
}


def of_answer(response: Response, relay: str, path: str, role: Role) -> RelayUnavailable | AccessDenied:
    """The error for a response other than 101 to a dial of `path` at the URL `relay`.

    Only the relay itself can refuse a token. A refusal by a firewall or login page is no reason to give up.
    """
    status = response.status_code
    said = _said(response).removeprefix(f"{status} ")  # pages often repeat it
    ours = RELAY_HEADER in response.headers
    if ours and status in (401, 403):
        return AccessDenied(f"the relay refuses this {role}: {said or response.reason_phrase}")
    what = f"{relay} answered HTTP {status}: {said or response.reason_phrase}"
    location = response.headers.get("Location", "")
    if 300 <= status < 400 and location:
        what, advice = _moved(status, location, relay, path)
    elif ours and status == 404:
        added = urllib.parse.urlsplit(relay).path or "what it adds"
        advice = f"have the proxy before the relay take {added} off the path"
    elif ours:
        advice = _ADVICE[426] if status in (400, 426) and "WebSocket" in said else ""
    else:
        advice = _ADVICE.get(status, _ADVICE[500] if status >= 500 else _CHECK_URL)
    wish = response.headers.get("Retry-After", "")
    return RelayUnavailable(what, advice, float(wish) if wish.isascii() and wish.isdigit() else None)


def _said(response: Response) -> str:
    """The first line of a body, or the title of a page."""
    text = response.body[:65536].decode(errors="replace").strip()
    if "html" in response.headers.get("Content-Type", "") or text.startswith("<"):
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        text = " ".join(title[1].split()) if title is not None else ""
    return _printable(text.partition("\n")[0])


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:LONGEST].strip()


def _moved(status: int, location: str, relay: str, path: str) -> tuple[str, str]:
    """The message and advice for a redirect. The dialer follows none: only --relay says who may see the token."""
    asked = urllib.parse.urlsplit(relay + path)
    try:
        there = urllib.parse.urlsplit(urllib.parse.urljoin(f"http{relay[2:]}{path}", location))
        host = there.netloc.rpartition("@")[2]
    except ValueError:
        return f"{relay} answered HTTP {status}", _CHECK_URL
    scheme = {"http": "ws", "https": "wss"}.get(there.scheme, there.scheme)
    shown = _printable(f"{there.scheme}://{host}{there.path}")
    what = f"{relay} answered HTTP {status}: it sends to {shown}"
    if host == asked.netloc and there.path == asked.path + "/":
        return what, "a proxy on the way adds a slash to the path: have it pass the path on as it is"
    if scheme in ("ws", "wss") and there.path.endswith(path) and (scheme, host, there.path) != (*asked[:2], asked.path):
        if (asked.scheme, scheme) == ("wss", "ws"):
            return what, "it leads away from TLS: have that redirect mended"
        found = _printable(f"{scheme}://{host}{there.path.removesuffix(path)}")
        return what, f"give --relay {found}"
    return what, f"something before the relay asks for a login: {_LET_IN}"


def of_certificate(exc: ssl.SSLCertVerificationError, whose: str, ca_file: str | None) -> RelayUnavailable:
    """The error for an untrusted certificate. `whose` names its owner."""
    what = f"the certificate of {whose} is not trusted ({exc.verify_message})"
    if exc.verify_code in _UNKNOWN_ISSUER:
        return RelayUnavailable(what, "its CA is not the one of --ca-file" if ca_file else "give its CA with --ca-file")
    if exc.verify_code == _EXPIRED:
        return RelayUnavailable(what, "it has to be renewed there, unless this machine's clock is wrong")
    if exc.verify_code == _NOT_YET_VALID:
        return RelayUnavailable(what, "set this machine's clock, if that is behind")
    if exc.verify_code in _OTHER_NAME:
        return RelayUnavailable(what, "write the name that it is for in --relay, or give that name with --relay-host")
    return RelayUnavailable(what, "have it mended there")


def of_tls(exc: ssl.SSLError, whose: str) -> RelayUnavailable:
    """The error for a TLS handshake that failed for a reason other than the certificate."""
    reason = exc.reason or sockets.why(exc)
    if reason in _NO_TLS:
        return RelayUnavailable(f"no TLS with {whose} ({reason})", "is it ws:// there, or another port?")
    return RelayUnavailable(
        f"no TLS with {whose} ({reason})", "does it serve this host name? does something on the way cut TLS?"
    )


def of_error(exc: Exception, relay: str, ca_file: str | None) -> RelayUnavailable:
    """The error for any other exception from a dial."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return of_certificate(exc, relay, ca_file)
    if isinstance(exc, ssl.SSLError):
        return of_tls(exc, relay)
    if isinstance(exc, ProxyError):  # from a proxy reached over TLS
        return RelayUnavailable(f"the proxy to {relay} failed: {exc}", "have it let you out to there")
    if isinstance(exc, InvalidMessage | EOFError):
        return RelayUnavailable(f"cannot reach {relay}: what answers there speaks no HTTP, or hangs up", _CHECK_URL)
    return RelayUnavailable(f"cannot reach {relay}: {sockets.why(exc)}")
