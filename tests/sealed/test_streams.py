"""Sealed streams through legs that are cut at every step, and through a relay that changes what they carry."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.seals import seals
from support.simulation import (
    WINDOW,
    Leg,
    Simulation,
    all_finished,
    begun,
    nothing_is_kept,
    run_with_cuts,
    torn,
)
from tunnel_core.protocol.control import MAX_REPLACED, Fin
from tunnel_core.protocol.seal.errors import Fault
from tunnel_core.protocol.seal.local import SealedLocal
from tunnel_core.protocol.seal.tls import RECORD
from tunnel_core.protocol.stream import Outcome, Phase

pytestmark = pytest.mark.sealed


def opened() -> Simulation:
    """A simulation whose seal holds at both ends, and whose target has answered."""
    simulation = Simulation(seals=seals())
    simulation.dial()
    simulation.settle()
    assert all(isinstance(end, SealedLocal) and end.is_sealed for end in (simulation.client_end, simulation.host_end))
    return simulation


def carried_all(simulation: Simulation) -> bool:
    client, host = simulation.client_app, simulation.host_app
    return host.read == client.written and client.read == host.written


def test_carries_both_directions_to_their_end() -> None:
    """And on the leg there is not a word of it."""
    simulation = opened()
    seen: list[bytes] = []
    simulation.client_app.says(300_000)
    simulation.host_app.says(500_000)
    leg = simulation.legs[0]
    for count in range(2000):
        seen += [item for queue in (leg.to_relay, leg.to_client) for item in queue if isinstance(item, bytes)]
        steps = simulation.steps()
        if not steps:
            break
        steps[count % len(steps)]()
    wire = b"".join(seen)
    assert len(wire) > 800_000
    assert b"client" not in wire  # of every word that they say
    assert b"host" not in wire or len(wire.split(b"host")) < 3  # four bytes may be chance
    simulation.client_app.ended = simulation.host_app.ended = True
    simulation.settle()
    assert carried_all(simulation)
    assert all_finished(simulation)
    nothing_is_kept(simulation)


def test_one_half_goes_on_after_the_other_has_ended() -> None:
    """Half-close, either end first."""
    for first in ("client", "host"):
        simulation = opened()
        mine, other = simulation.client_app, simulation.host_app
        if first == "host":
            mine, other = other, mine
        mine.says(10)
        mine.ended = True
        simulation.settle()
        assert other.saw_eof
        other.says(100_000)
        simulation.settle()
        assert mine.read == other.written
        assert not simulation.outcomes
        other.ended = True
        simulation.settle()
        assert all_finished(simulation)


def test_what_an_application_says_at_once_waits_for_the_seal() -> None:
    """Though its socket is held: uvloop reads a new connection all the same. Its end waits, too."""
    simulation = Simulation(seals=seals())
    said = b"x" * simulation.client_end.credit
    simulation.client_end.local_data(said)
    assert simulation.client_end.credit == 1  # what comes now is a few bytes, for which there is room
    simulation.client_end.local_data(b"y")
    simulation.client_end.local_eof()
    simulation.client_app.ended = simulation.client_app.eof_taken = True
    simulation.client_app.written += said + b"y"
    simulation.client_app.taken = len(simulation.client_app.written)
    simulation.host_app.ended = True
    simulation.dial()
    simulation.settle()
    assert simulation.host_app.read == said + b"y"
    assert all_finished(simulation)


def test_the_target_is_not_connected_before_the_client_has_shown_its_key() -> None:
    """A ClientHello that somebody has heard before and says again leads to no connection."""
    simulation = begun(seals())
    leg = simulation.legs[0]
    for _ in range(2):  # `open` and the ClientHello
        simulation.relay_gets(leg)
        simulation.host_gets(leg)
    assert simulation.host is not None
    assert simulation.host.phase is Phase.LIVE  # it has answered
    assert simulation.connections == 0
    simulation.settle()
    assert simulation.connections == 1


def test_a_reader_that_stops_stalls_the_writer_within_the_window() -> None:
    """The end of the stream still fits into it: no ciphertext is ever more than the window."""
    simulation = opened()
    simulation.client_app.says(1_000_000)
    leg = simulation.legs[0]
    for _ in range(200):
        simulation.takes(simulation.client_app, simulation.client_end)
        while leg.to_relay:
            simulation.relay_gets(leg)
            simulation.host_gets(leg)
        simulation.tick()
    assert simulation.client_app.holds
    assert simulation.client.replay.end - simulation.client.replay.start <= WINDOW
    simulation.client_end.local_eof()
    assert simulation.client.replay.end - simulation.client.replay.start <= WINDOW
    simulation.client_app.eof_taken = simulation.client_app.ended = True
    del simulation.client_app.written[simulation.client_app.taken :]
    simulation.host_app.ended = True
    simulation.settle()
    assert simulation.host_app.read == simulation.client_app.written
    assert all_finished(simulation)


@pytest.mark.parametrize(
    ("deliver", "move"),
    [("nothing", False), ("to relay", False), ("to host", False), ("to client", False), ("to client", True)],
)
def test_survives_a_cut_at_every_step(deliver: str, move: bool) -> None:
    """The same records are sent again: everything arrives once, in order, at one target."""
    both = seals()
    steps = run_with_cuts(set(), seals=both)[1]
    assert steps > 50
    for step in range(2 if move else 0, steps):
        cuts = {step, step + 9} if move else {step}
        simulation, _ = run_with_cuts(cuts, deliver=deliver, move=move, seals=both)
        assert carried_all(simulation), step
        assert simulation.connections == 1, step
        assert not simulation.faults, step
        if "host" not in simulation.outcomes:
            assert simulation.host is not None
            simulation.host.expire("no resume")
        assert all_finished(simulation), step
        nothing_is_kept(simulation)


@given(choices=st.lists(st.integers(0, 10**6), max_size=300))
def test_whatever_happens_what_comes_out_is_a_prefix_of_what_went_in(choices: list[int]) -> None:
    """Cuts, moves and resets in any order; no honest relay is ever taken for a false one."""
    simulation = begun(SEALS)
    broke = torn(simulation, choices)
    assert not simulation.faults
    assert simulation.connections <= 1
    if not broke and simulation.outcomes["client"] == (Outcome.LOST, "lost before paired"):
        assert len(simulation.legs) > MAX_REPLACED
    elif not broke:
        assert all_finished(simulation)
        assert carried_all(simulation)


@given(sizes=st.lists(st.integers(1, 3 * RECORD), min_size=1, max_size=6), cut=st.integers(100, 2 * RECORD))
@settings(max_examples=40)
def test_any_segmentation_carries_the_same(sizes: list[int], cut: int) -> None:
    """Records that come in pieces of any size. What has left is never overstated, and in the end it is all."""
    simulation = opened()
    leg = simulation.legs[0]
    told = simulation.host_acknowledges()
    for size in sizes:
        simulation.client_app.says(size)
        while simulation.client_app.taken < len(simulation.client_app.written) and not simulation.client_app.holds:
            simulation.takes(simulation.client_app, simulation.client_end)
        items = [leg.to_relay.popleft() for _ in range(len(leg.to_relay))]
        wire = b"".join(item for item in items if isinstance(item, bytes))
        for at in range(0, len(wire), cut):
            leg.to_host.append(wire[at : at + cut])
            simulation.host_gets(leg)
            now = simulation.host_acknowledges()
            assert now >= told, "an acknowledgement was taken back"
            told = now
            if simulation.host_app.has_unread:
                simulation.host_app.reads(1 << 20)
        simulation.settle()
    assert simulation.host_app.read == simulation.client_app.written
    assert simulation.host_end.pending == 0  # type: ignore[union-attr]


# A relay that is not honest. Whatever it does, it can but end the stream.


def flip(items: list[bytes], number: int) -> list[bytes]:
    whole = b"".join(items)
    at = number % len(whole)
    return [whole[:at] + bytes([whole[at] ^ (1 << number % 8)]) + whole[at + 1 :]]


def drop(items: list[bytes], number: int) -> list[bytes]:
    whole = b"".join(items)
    at = number % len(whole)
    return [whole[:at] + whole[at + 1 + number % 5000 :]]


def repeat(items: list[bytes], number: int) -> list[bytes]:
    whole = b"".join(items)
    at, size = number % len(whole), 1 + number % 5000
    return [whole[: at + size] + whole[at : at + size] + whole[at + size :]]


def swap(items: list[bytes], number: int) -> list[bytes]:
    whole = b"".join(items)
    at = number % len(whole)
    return [whole[at:] + whole[:at]]


def cut_off(items: list[bytes], number: int) -> list[bytes]:
    whole = b"".join(items)
    return [whole[: number % len(whole)]]


def invent(items: list[bytes], number: int) -> list[bytes]:
    whole = b"".join(items)
    at = number % len(whole)
    return [whole[:at] + bytes([number % 256]) * (1 + number % 300) + whole[at:]]


CHANGES = (flip, drop, repeat, swap, cut_off, invent)
SEALS = seals()
MUTATIONS = int(os.environ.get("MUTATIONS") or 200)  # 100,000 in the long run


@given(
    change=st.sampled_from(CHANGES),
    number=st.integers(0, 2**40),
    to_host=st.booleans(),
    when=st.integers(0, 4),
    forge=st.booleans(),
)
@settings(max_examples=MUTATIONS)
def test_a_relay_that_changes_bytes_can_but_end_the_stream(
    change: Callable[[list[bytes], int], list[bytes]], number: int, to_host: bool, when: int, forge: bool
) -> None:
    """No application gets a wrong byte or a false end; without the whole handshake there is no connection."""
    mutate(change, number, to_host=to_host, when=when, forge=forge)


def mutate(
    change: Callable[[list[bytes], int], list[bytes]], number: int, *, to_host: bool, when: int, forge: bool
) -> None:
    simulation = begun(SEALS)
    leg = simulation.legs[0]
    client, host = simulation.client_app, simulation.host_app
    client.says(20_000)
    host.says(20_000)
    client.ended = host.ended = bool(number % 2)
    queue = leg.to_host if to_host else leg.to_client
    changed = False
    for count in range(1000):
        items = [item for item in queue if isinstance(item, bytes)]
        if items and not changed and when <= count // 4:
            altered = [item for item in change(items, number) if item]
            changed = b"".join(altered) != b"".join(items)
            first = next(place for place, item in enumerate(queue) if isinstance(item, bytes))
            messages = [item for item in queue if not isinstance(item, bytes)]
            queue.clear()
            queue.extend(messages[:first])
            queue.extend(altered)
            receiver = simulation.host if to_host else simulation.client
            if forge and changed and receiver is not None:  # the end that the relay would have the receiver believe in
                queue.append(Fin(receiver.id, receiver.received + sum(map(len, altered))))
            queue.extend(messages[first:])
        steps = simulation.steps()
        if not steps:
            break
        steps[(count * 7 + number) % len(steps)]()
        simulation.check()  # a prefix of the truth, and no end that was not meant
    if changed:
        hurt = host if to_host else client
        assert not hurt.saw_eof or hurt.aborted or hurt.read == (client if to_host else host).written
        if not hurt.aborted and simulation.connections:
            # It waits for what does not come, as with a relay that merely stops.
            assert simulation.faults or (client if to_host else host).written.startswith(hurt.read)
    for stream in (simulation.client, simulation.host):
        if stream is not None:
            stream.expire("over")
            stream.expire("over")
    for fault in simulation.faults.values():
        assert fault in (
            Fault.CHANGED, Fault.TRUNCATED, Fault.WRONG_KEY, Fault.OLD_KEY, Fault.UNSEALED_CLIENT, Fault.FALSE_HOST
        )  # fmt: skip


@pytest.mark.parametrize("to_host", [True, False])
def test_a_false_end_reaches_the_application_as_a_reset(to_host: bool) -> None:
    """A FIN that the relay makes up, at the right offset."""
    simulation = opened()
    stream, app = (simulation.host, simulation.host_app) if to_host else (simulation.client, simulation.client_app)
    assert stream is not None
    stream.on_message(Fin(stream.id, stream.received))
    assert app.aborted
    assert not app.saw_eof
    assert simulation.faults == {"host" if to_host else "client": Fault.TRUNCATED}
    simulation.settle()
    assert simulation.outcomes["host" if to_host else "client"][0] is Outcome.SEAL_BROKEN


def test_a_stream_that_is_said_again_as_a_whole_connects_to_nothing() -> None:
    """What the relay has heard of one stream, under a new id."""
    simulation = begun(SEALS)
    leg = simulation.legs[0]
    heard: list[bytes] = []
    for count in range(500):
        heard += [item for item in leg.to_relay if isinstance(item, bytes)]
        steps = simulation.steps()
        if not steps:
            break
        steps[count % len(steps)]()
    assert simulation.connections == 1
    again = Simulation(seals=SEALS)
    replayed = Leg()
    again.legs.append(replayed)
    again.client.open(replayed.end(replayed.to_host))
    first = True
    while replayed.to_host:
        if isinstance(replayed.to_host[0], bytes) and first:
            first = False
            replayed.to_host.clear()
            replayed.to_host.extend(dict.fromkeys(heard))
        again.host_gets(replayed)
    assert again.connections == 0
    assert again.faults["host"] is Fault.CHANGED
