"""Admits or refuses requests for a leg at the public port."""

from __future__ import annotations

import functools
import time
from http import HTTPStatus

from tunnel_core.net.http import Request, Response, Upgrade
from tunnel_core.protocol.endpoints import (
    INSTANCE_KEY_HEADER,
    LEG_HEADER,
    PROBE,
    PROTOCOL_FAMILY,
    SUBPROTOCOL,
    Role,
    is_id,
    new_id,
    parse_leg_path,
)
from tunnel_core.protocol.identity import instance_of
from tunnel_core.protocol.tokens import Grant
from tunnel_core.service.logs import Throttle

from .access import ANYBODY, Access, Denied
from .addresses import ClientAddress
from .leg import RelayLeg
from .limits import Limits
from .metrics import RelayMetrics
from .pairing import Pairing
from .probe import ProbeLeg


class Admission:
    """Answers each request, before any upgrade."""

    def __init__(
        self,
        access: Access,
        addresses: ClientAddress,
        limits: Limits,
        pairing: Pairing,
        metrics: RelayMetrics,
        log: Throttle,
    ) -> None:
        self._access = access
        self._addresses = addresses
        self._limits = limits
        self._pairing = pairing
        self._metrics = metrics
        self._log = log
        self.probes: set[ProbeLeg] = set()
        self.closed = False  # the relay is draining

    def answer(self, request: Request) -> Response | Upgrade:
        """The answer to one request."""
        address = self._addresses.of(request.peer, request.headers)
        wanted = parse_leg_path(request.path.removeprefix(PROBE))
        try:
            return self._upgrade(request, address, wanted)
        except Denied as denied:
            self._metrics.refused(denied.label)
            # Do not log other paths: some people put their token there.
            path = "unknown" if wanted is None else request.path
            self._log.warning("leg refused", path=path, address=address, reason=denied.reason)
            return denied.response

    def _upgrade(self, request: Request, address: str, wanted: tuple[Role, str] | None) -> Upgrade:
        if self.closed:
            raise Denied(HTTPStatus.SERVICE_UNAVAILABLE, "the relay is about to stop: try again", "draining", 1)
        if wanted is None:
            raise Denied(HTTPStatus.NOT_FOUND, "legs are at /host/TUNNEL and /client/TUNNEL", "path")
        role, tunnel = wanted
        try:
            grant = self._access.judge(request, role, tunnel, address)
        except Denied as denied:
            # Others may share this address behind a NAT or proxy: valid tokens from it are still accepted.
            wait = self._limits.login_failed(address, time.monotonic())
            if wait:
                raise Denied(
                    HTTPStatus.TOO_MANY_REQUESTS, "too many bad tokens: wait", "failed-logins", wait
                ) from denied
            raise
        self._limits.check_leg(address, grant)
        leg_id = new_id()
        headers = {LEG_HEADER: leg_id}
        if request.path.startswith(PROBE):
            return Upgrade(functools.partial(self._probe, tunnel, address, grant), SUBPROTOCOL, headers)
        subject = grant.subject if grant is not None else ANYBODY
        v1 = SUBPROTOCOL in request.subprotocols
        if not v1 and any(name.startswith(PROTOCOL_FAMILY) for name in request.subprotocols):
            raise Denied(HTTPStatus.BAD_REQUEST, f"this relay speaks {SUBPROTOCOL} and no other version", "subprotocol")
        instance = _instance(request) if v1 and role == "host" else ""

        pairing, settings = self._pairing, self._pairing.settings

        def make_leg() -> RelayLeg:
            return RelayLeg(
                pairing,
                pairing.monitor,
                max_message=settings.max_message,
                max_rate=settings.max_message_rate,
                role=role,
                tunnel=tunnel,
                v1=v1,
                leg_id=leg_id if v1 else "",
                instance=instance,
                address=address,
                grant=grant,
                subject=subject,
            )

        return Upgrade(make_leg, SUBPROTOCOL, headers) if v1 else Upgrade(make_leg, None)

    def _probe(self, tunnel: str, address: str, grant: Grant | None) -> ProbeLeg:
        return ProbeLeg(self._pairing, self._limits, self.probes, tunnel=tunnel, address=address, grant=grant)


def _instance(request: Request) -> str:
    """The instance that a host leg belongs to, proven by the instance key."""
    key = request.headers.get(INSTANCE_KEY_HEADER.lower(), "")
    if not is_id(key):
        raise Denied(HTTPStatus.BAD_REQUEST, f"{INSTANCE_KEY_HEADER}: 32 hexadecimal digits are needed", "instance-key")
    return instance_of(key)
