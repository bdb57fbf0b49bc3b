"""Access control by tokens and revocation, before the upgrade."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from tunnel_core.errors import AccessDenied
from tunnel_core.net.http import Request, Response
from tunnel_core.protocol.endpoints import Role
from tunnel_core.protocol.tokens import LEEWAY, Grant, verify
from tunnel_core.service.logs import Logger
from tunnel_core.service.revoked import Revoked
from tunnel_core.service.signing import signing_secrets

from .settings import RelaySettings

ANYBODY: Final = "anybody"  # everybody's subject with --auth none


class Denied(Exception):
    """The request is refused with `response`, and counted under `label`."""

    def __init__(self, status: HTTPStatus, reason: str, label: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        self.response = Response(status, f"{reason}\n", headers)
        self.reason = reason
        self.label = label


class Access:
    """Checks the tokens of requests. `clock` returns seconds since the epoch."""

    def __init__(self, settings: RelaySettings, log: Logger, clock: Callable[[], float] = time.time) -> None:
        self._open = settings.auth == "none"
        self._secrets = () if self._open else signing_secrets(settings.secret)
        self._clock = clock
        self._revoked = Revoked(settings.revoked, log)

    def judge(self, request: Request, role: Role, tunnel: str, address: str) -> Grant | None:
        """The grant of the request's token, or None with --auth none. Raises Denied."""
        if self._open:
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = request.query.get("token", "")
        if not token:
            raise Denied(HTTPStatus.UNAUTHORIZED, "a token is needed", "no-token")
        try:
            grant = verify(token.strip(), self._secrets, self._clock())
        except AccessDenied as exc:
            raise Denied(HTTPStatus.UNAUTHORIZED, str(exc), "bad-token") from exc
        if grant.id in self._revoked:
            raise Denied(HTTPStatus.FORBIDDEN, "the token was revoked: ask for a new one", "revoked")
        if grant.leg_role != role or not grant.is_for(tunnel) or not grant.admits_address(address):
            # One answer for all three, which reveals nothing about other tunnels.
            raise Denied(HTTPStatus.FORBIDDEN, "the token does not allow this", "not-allowed")
        return grant

    def expired(self, grant: Grant | None) -> bool:
        """Whether `grant` no longer allows new streams."""
        return grant is not None and grant.expires + LEEWAY < self._clock()

    def revoked(self, grant: Grant | None) -> bool:
        return grant is not None and grant.id in self._revoked

    def reread(self) -> bool:
        """Reread the file of revoked ids if it changed. Returns whether it did."""
        return self._revoked.reread()
