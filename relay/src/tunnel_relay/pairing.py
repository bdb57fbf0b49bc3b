"""Pairs legs as the registry chooses, and bounds the wait."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from tunnel_core.net.liveness import LegMonitor
from tunnel_core.protocol.control import Goaway, Open, Resume, encode
from tunnel_core.protocol.frames import CloseCode
from tunnel_core.service.logs import Throttle

from .access import Access
from .history import History
from .leg import RelayLeg
from .limits import Limits
from .metrics import RelayMetrics
from .offers import Offers
from .registry import Registry
from .settings import RelaySettings

NO_HOST: Final = "no host-agent offers this tunnel now"
TOO_MANY_STREAMS: Final = "too many streams with this token"
REMEMBER: Final = 120.0  # seconds to remember what became of a client leg: twice the resume window
MOST_REMEMBERED: Final = 20_000  # legs: 8 MB


class Pairing:
    """Knows every leg from its upgrade to its end."""

    def __init__(
        self,
        settings: RelaySettings,
        access: Access,
        limits: Limits,
        monitor: LegMonitor,
        metrics: RelayMetrics,
        log: Throttle,
    ) -> None:
        self.settings = settings
        self.monitor = monitor
        self._limits = limits
        self.legs: set[RelayLeg] = set()
        self.offers = Offers()
        self._leaving = False  # draining: all legs were asked to move
        self.moved = False  # a stream moved since then, so there is another relay
        self._access = access
        self._metrics = metrics
        self._log = log
        self._registry: Registry[RelayLeg] = Registry(
            lambda leg: not leg.open or monitor.silence(leg) > monitor.times.doubtful
        )
        self._history: History[RelayLeg] = History(REMEMBER, MOST_REMEMBERED)
        self._waits: dict[RelayLeg, tuple[asyncio.TimerHandle, float]] = {}

    def add(self, leg: RelayLeg) -> None:
        """A leg was opened. Raw clients pair now, v1 clients when they open a stream."""
        self.legs.add(leg)
        self._limits.add_leg(leg.address, leg.grant)
        self._metrics.leg_came(leg)
        if leg.v1 and leg.role == "client":
            self._history.began(leg)
        self._log.debug(
            "leg opened", tunnel=leg.tunnel, role=leg.role, address=leg.address, subject=leg.subject, raw=not leg.v1
        )
        if leg.role == "host":
            if self.offers.add(leg.tunnel, leg.instance):
                self._tell_hosts("host came", leg)
            client = self._registry.add_host(leg, leg.tunnel, leg.instance)
            if client is not None:
                self._pair(client, leg)
        elif not leg.v1 and not self._limits.may_open(leg.grant):
            self._refuse(leg, "streams-per-token", TOO_MANY_STREAMS)
        elif not leg.v1:
            self._seek(leg, "")

    def go_away(self, grace: float) -> None:
        """Ask all agents to move within `grace` seconds. Waiting clients are closed at once."""
        self._leaving = True
        for leg in tuple(self.legs):
            if leg in self._waits:
                leg.close(CloseCode.SERVICE_RESTART, "the relay stops")
            elif leg.v1:
                leg.send_text(encode(Goaway(grace)))

    def begin(self, leg: RelayLeg, message: Open | Resume) -> bool:
        """Start or resume a stream on a client leg. Returns False if the leg was refused."""
        if isinstance(message, Open):
            if message.replaces and not self._replace(leg, message):
                return False
            if self._access.expired(leg.grant):
                # An agent with a newer token has opened another leg with it.
                return self._turn_away(leg, message, "expired", "the token has expired: ask for a new one")
        may = self._limits.may_open if isinstance(message, Open) else self._limits.may_resume
        if leg.asked is None and not may(leg.grant):
            return self._turn_away(leg, message, "streams-per-token", TOO_MANY_STREAMS)
        log, tunnel, client = self._log.by(leg.owner), leg.tunnel, leg.client
        if isinstance(message, Open):
            log.info("stream opening", tunnel=tunnel, stream=message.stream, client=client, subject=leg.subject)
        else:
            log.info("stream resuming", tunnel=tunnel, stream=message.stream, client=client, attempt=message.attempt)
        return True

    def _replace(self, leg: RelayLeg, message: Open) -> bool:
        """Close the legs that `message` replaces, or refuse it if anything of them was passed on."""
        instance = self._history.passed_on_to(message.replaces, leg, time.monotonic())
        if instance is not None:
            reason = "a host has this stream already" if instance else "nobody knows whether a host has this stream"
            leg.asked = message
            self._refuse(leg, "passed-on", reason, CloseCode.POLICY_VIOLATION, instance=instance)
            return False
        for old in tuple(self._history.still_open(message.replaces)):
            old.lost("its stream was opened anew on another leg")
        return True

    def _turn_away(self, leg: RelayLeg, message: Open | Resume, label: str, reason: str) -> bool:
        """Refuse a stream of which nothing was passed on, so that it may be opened again."""
        leg.asked = message
        self._refuse(leg, label, reason, retry=True)
        return False

    def seek(self, leg: RelayLeg, message: Open | Resume) -> None:
        """A v1 client leg wants its host."""
        self._seek(leg, message.instance if isinstance(message, Resume) else "")

    def _seek(self, leg: RelayLeg, instance: str) -> None:
        if self._leaving:  # its host legs were asked to move as well
            leg.close(CloseCode.SERVICE_RESTART, "the relay stops")
            return
        leg.sought = True
        self._limits.add_stream(leg.grant)
        host = self._registry.add_client(leg, leg.tunnel, instance)
        if host is not None:
            self._pair(leg, host)
        else:
            timer = asyncio.get_running_loop().call_later(self.settings.wait, self._waited, leg)
            self._waits[leg] = timer, time.monotonic()

    def hold(self, leg: RelayLeg, size: int) -> bool:
        """Count `size` more bytes held for `leg`. Returns False if the leg was refused."""
        if self._limits.hold(leg.owner, size):
            return True
        self.stop_waiting(leg)
        self._refuse(leg, "waiting-memory", "too much waits for hosts: try again", retry=True)
        return False

    def let_go(self, leg: RelayLeg, size: int) -> None:
        """`size` fewer bytes are held for `leg`."""
        self._limits.let_go(leg.owner, size)

    def _waited(self, leg: RelayLeg) -> None:
        self.stop_waiting(leg)
        self._refuse(leg, "no-host", NO_HOST)

    def stop_waiting(self, leg: RelayLeg) -> None:
        """`leg` is closing or was refused: do not pair it."""
        self._registry.remove(leg, leg.tunnel, leg.instance)
        if leg in self._waits:
            self._waits.pop(leg)[0].cancel()

    def _refuse(
        self,
        leg: RelayLeg,
        label: str,
        reason: str,
        code: int = CloseCode.TRY_AGAIN_LATER,
        *,
        instance: str = "",
        retry: bool = False,
    ) -> None:
        self._metrics.refused(label)
        self._log.by(leg.owner).warning("client refused", tunnel=leg.tunnel, address=leg.address, reason=reason)
        leg.refuse(reason, code, instance=instance, retry=retry)

    def _pair(self, client: RelayLeg, host: RelayLeg) -> None:
        waited = 0.0
        if client in self._waits:
            timer, since = self._waits.pop(client)
            timer.cancel()
            waited = time.monotonic() - since
        self._limits.host_paired(host.address, host.grant)
        self._metrics.paired(client.tunnel, waited)
        self._log.by(client.owner).info(
            "paired",
            tunnel=client.tunnel,
            stream=client.asked.stream if client.asked is not None else "raw",
            client=client.client,
            host=host.address,
            waited_ms=round(waited * 1000),
        )
        client.pair(host, self._registry.waiting_for_instance(client.tunnel, host.instance))

    def _tell_hosts(self, event: str, leg: RelayLeg) -> None:
        """Log that a host-agent started or stopped offering the tunnel of its `leg`."""
        hosts = self.offers.hosts(leg.tunnel)
        self._log.by(leg.owner).info(event, tunnel=leg.tunnel, host=leg.address, subject=leg.subject, hosts=hosts)

    def leg_ended(self, leg: RelayLeg, code: int, reason: str) -> None:
        """`leg` brings no more input: do not choose it."""
        self.moved |= self._leaving and code == CloseCode.MOVED
        self.stop_waiting(leg)
        if leg.role == "host" and self.offers.remove(leg.tunnel, leg.instance):
            self._tell_hosts("host left", leg)
        if leg.sought:
            self._limits.remove_stream(leg.grant)
        self._history.ended(leg, time.monotonic())
        self._log.debug("leg ended", tunnel=leg.tunnel, role=leg.role, address=leg.address, code=code, reason=reason)

    def leg_gone(self, leg: RelayLeg) -> None:
        """The socket of `leg` is closed."""
        self.legs.discard(leg)
        self._limits.remove_leg(leg.address, leg.grant, paired_host=leg.carrying and leg.role == "host")
        self._metrics.leg_left(leg)

    def host_legs(self, tunnel: str) -> int:
        """The number of warm host legs of `tunnel`."""
        return self._registry.host_legs(tunnel)

    def waiting_in_tunnel(self, tunnel: str) -> int:
        """The number of clients of `tunnel` that wait."""
        return self._registry.waiting_in_tunnel(tunnel)

    @property
    def waiting(self) -> int:
        """The number of clients that wait for a host."""
        return self._registry.waiting
