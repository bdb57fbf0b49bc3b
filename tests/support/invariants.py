"""What holds whenever the event loop is idle, whatever a test or an attacker has done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from client_agent.service import ClientAgent
from host_agent.service import HostAgent
from tunnel_core.agent.session import Session
from tunnel_relay.leg import RelayLeg
from tunnel_relay.pairing import Pairing


def has_deadline(session: Session[Any]) -> bool:
    """Whether a timer ends the stream unless a leg is found."""
    now = asyncio.get_running_loop().time()
    timers = [session._deadline, getattr(session, "_step", None)]
    return any(timer is not None and not timer.cancelled() and timer.when() >= now for timer in timers)


def forgotten_streams(agent: HostAgent | ClientAgent) -> Iterator[str]:
    """Streams that nothing would ever end: they are on no live leg, and no timer runs.

    A leg that has ended is no live one. Only a raw stream stays on it, to finish its other direction.
    """
    for session in agent.sessions():
        stream, leg = session.stream, session.stream.link
        attached = leg is not None and leg.connected and leg.session is session
        if leg is not None and leg.ended and stream.resumable:
            attached = False
        if not attached and not has_deadline(session):
            yield f"{type(agent).__name__}: a stream with no leg and no deadline: {vars(session)}"


def wrong_pairs(pairing: Pairing) -> Iterator[str]:
    """Legs of the relay that are paired with a leg that is gone, or that wait although they are closing."""
    for leg in pairing.legs:
        peer = leg.peer
        if peer is None:
            continue
        assert isinstance(peer, RelayLeg), "legs are paired with legs"
        if peer.peer is not leg or peer not in pairing.legs:
            yield f"relay: a {leg.role} leg whose peer is gone"
        elif leg.v1 and peer.v1 and (leg.ended or peer.ended):
            yield f"relay: a {leg.role} leg is paired although one of the two has ended"
    registry = pairing._registry
    for waiting in (registry._needs, *(legs for known in registry._tunnels.values() for legs in known.hosts.values())):
        for leg in waiting:
            if not leg.open:
                yield f"relay: a {leg.role} leg waits although it is closing"
