"""Streams, resumed or not, through legs that are cut at every point."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.diagram import PAGE, drawn
from support.simulation import (
    BLOCK,
    SUBJECT,
    WINDOW,
    App,
    Leg,
    Simulation,
    all_finished,
    begun,
    nothing_is_kept,
    run_with_cuts,
    torn,
)
from tunnel_core.errors import InvalidTransition
from tunnel_core.protocol import resume
from tunnel_core.protocol.control import (
    EARLY_DATA,
    MAX_REPLACED,
    MIN_WINDOW,
    Ack,
    Fin,
    Gone,
    Open,
    Reset,
    Resume,
    Resumed,
)
from tunnel_core.protocol.endpoints import new_id
from tunnel_core.protocol.identity import resume_proof, resumed_proof
from tunnel_core.protocol.local import HOLD_MEMORY, HOLD_WINDOW
from tunnel_core.protocol.replay import GATHER, ReplayBuffer, ReplayMemory
from tunnel_core.protocol.resume import HostStream, Refusal
from tunnel_core.protocol.stream import ALWAYS, TRANSITIONS, Outcome, Phase, Trigger

FINISHED = {"client": (Outcome.FINISHED, ""), "host": (Outcome.FINISHED, "")}


def opened(*, memory: int = 1 << 30, window: int = WINDOW) -> Simulation:
    """A simulation whose stream is live at both ends."""
    simulation = Simulation(memory=memory, window=window)
    simulation.dial()
    simulation.settle()
    assert simulation.client.phase is simulation.host.phase is Phase.LIVE  # type: ignore[union-attr]
    return simulation


def finish(simulation: Simulation) -> None:
    """Both applications end, and everything settles."""
    simulation.client_app.ended = simulation.host_app.ended = True
    simulation.settle()


def test_carries_both_directions_to_their_end() -> None:
    """Bytes, half-close each way, and both ends finished."""
    simulation = opened()
    simulation.client_app.says(300_000)
    simulation.host_app.says(500_000)
    finish(simulation)
    assert simulation.host_app.read == simulation.client_app.written
    assert simulation.client_app.read == simulation.host_app.written
    assert simulation.outcomes == FINISHED
    assert simulation.client_app.closed
    assert simulation.host_app.closed
    nothing_is_kept(simulation)


def test_early_data_waits_for_the_target() -> None:
    """Up to 64 KiB follow `open` at once, and reach a target that answers late."""
    simulation = Simulation()
    simulation.client_app.says(200_000)
    simulation.client_app.ended = True
    simulation.dial()
    while not simulation.client_app.holds:
        simulation.takes(simulation.client_app, simulation.client)
    leg = simulation.legs[0]
    assert sum(len(item) for item in leg.to_relay if isinstance(item, bytes)) == 64 * 1024
    finish(simulation)
    assert simulation.host_app.read == simulation.client_app.written
    assert simulation.outcomes == FINISHED


def test_one_half_goes_on_after_the_other_has_ended() -> None:
    """Half-close: the host still answers long after the client's FIN."""
    simulation = opened()
    simulation.client_app.says(10)
    simulation.client_app.ended = True
    simulation.settle()
    assert simulation.host_app.saw_eof
    simulation.host_app.says(100_000)
    simulation.settle()
    assert simulation.client_app.read == simulation.host_app.written
    assert not simulation.outcomes
    finish(simulation)
    assert simulation.outcomes == FINISHED


def test_a_reader_that_stops_stalls_the_writer_at_the_window() -> None:
    """No more than the window piles up at the reader's end, and no more is read at the writer's."""
    simulation = opened()
    assert simulation.host is not None
    simulation.client_app.says(1_000_000)
    for _ in range(200):
        simulation.takes(simulation.client_app, simulation.client)
        while simulation.legs[0].to_relay:
            simulation.relay_gets(simulation.legs[0])
            simulation.host_gets(simulation.legs[0])
        simulation.tick()
    assert simulation.client_app.taken <= WINDOW
    assert simulation.host_app.pending == simulation.client_app.taken
    assert simulation.client_app.holds
    finish(simulation)
    assert simulation.host_app.read == simulation.client_app.written


@pytest.mark.parametrize("end", ["client", "host"])
def test_a_reset_reaches_the_other_end(end: str) -> None:
    """RST in, RST out; and nothing is kept."""
    simulation = opened()
    assert simulation.host is not None
    simulation.client_app.says(1000)
    simulation.settle()
    stream, far = (
        (simulation.client, simulation.host_app) if end == "client" else (simulation.host, simulation.client_app)
    )
    stream.local_broken("gone")
    simulation.settle()
    assert far.aborted
    other = "host" if end == "client" else "client"
    assert simulation.outcomes == {end: (Outcome.RESET_LOCAL, "gone"), other: (Outcome.RESET_PEER, "gone")}
    nothing_is_kept(simulation)


def test_a_reset_that_is_not_answered_does_not_wait_for_ever() -> None:
    """Five seconds of ticks."""
    simulation = opened()
    simulation.client.local_broken("gone")
    simulation.legs[0].to_relay.clear()
    for _ in range(20):
        simulation.tick()
    assert simulation.outcomes["client"] == (Outcome.RESET_LOCAL, "gone")
    assert not simulation.clock


@pytest.mark.parametrize(
    "message",
    [
        lambda sim: Ack(sim.client.id, 1),
        lambda sim: Fin(sim.client.id, 1),
        lambda sim: Fin(sim.client.id, 10**9),
    ],
    ids=["ack of nothing", "fin ahead", "fin far ahead"],
)
def test_a_peer_that_breaks_the_protocol_ends_the_stream(message: Callable[[Simulation], Ack | Fin]) -> None:
    """And only by a reset: nothing false is delivered."""
    simulation = opened()
    assert simulation.host is not None
    simulation.host.on_message(message(simulation))
    assert simulation.outcomes["host"][0] is Outcome.VIOLATION
    simulation.settle()
    assert simulation.client_app.aborted


def test_more_than_the_window_is_a_violation() -> None:
    """A peer cannot make this end hold more than it said it would."""
    simulation = opened()
    assert simulation.host is not None
    simulation.host.link_data((bytes(WINDOW),), WINDOW)
    assert "host" not in simulation.outcomes
    simulation.host.link_data((b"x",), 1)
    assert simulation.outcomes["host"][0] is Outcome.VIOLATION


def test_a_window_grows_with_what_is_read_and_shrinks_when_idle() -> None:
    """Up to what both ends will hold, whichever way the bytes go; and nothing is paid for what nobody uses."""
    simulation = opened(window=8 * WINDOW)
    assert simulation.host is not None
    for app, reader, writer in (
        (simulation.client_app, simulation.host, simulation.client),
        (simulation.host_app, simulation.client, simulation.host),
    ):
        most = 0
        app.says(2_000_000)
        for count in range(3000):
            steps = [step for step in simulation.steps() if step != simulation.tick]
            if steps:  # in no time
                steps[count % len(steps)]()
                simulation.check()
                most = max(most, reader.inbound.size)
        assert most == 8 * WINDOW
        simulation.settle()
        assert reader.inbound.size == writer.limit == EARLY_DATA
        nothing_is_promised = simulation.client_memory.used + simulation.host_memory.used
        assert nothing_is_promised == 0
    finish(simulation)
    assert all_finished(simulation)


def test_a_window_stays_small_for_a_reader_that_stops() -> None:
    """However long, and however much it might have: what waits for it is taken from its share."""
    simulation = opened(window=8 * WINDOW)
    assert simulation.host is not None
    simulation.client_app.says(1_000_000)
    for _ in range(200):
        simulation.takes(simulation.client_app, simulation.client)
        while simulation.legs[0].to_relay:
            simulation.relay_gets(simulation.legs[0])
            simulation.host_gets(simulation.legs[0])
        simulation.tick()
    assert simulation.host_app.pending == EARLY_DATA
    assert simulation.host.share.used == EARLY_DATA
    finish(simulation)
    assert simulation.host_app.read == simulation.client_app.written


def test_a_sender_without_memory_is_acknowledged_in_time() -> None:
    """It gives its window back, so that a quarter of what it has left falls due; with memory again it grows."""
    simulation = opened(window=8 * WINDOW)
    assert simulation.host is not None
    for end in range(2):
        simulation.squeeze(end, full=True)
    simulation.client_app.says(1_000_000)
    acked = 0
    while simulation.client_app.taken < 500_000:
        for step in simulation.steps():
            if step != simulation.tick:
                step()
        acked += 1
        assert acked < 500, "it waits for the clock"
    assert simulation.client.replay.end - simulation.client.replay.start <= ALWAYS + BLOCK
    assert simulation.host.inbound.size <= EARLY_DATA
    for end in range(2):
        simulation.squeeze(end, full=False)
    finish(simulation)
    assert simulation.host_app.read == simulation.client_app.written
    nothing_is_kept(simulation)


@pytest.mark.parametrize("older", ["client", "host"])
def test_a_peer_that_does_not_adapt_has_one_window_for_ever(older: str) -> None:
    """What it says it has, as long as there is room for it; and it is neither asked nor told of another."""
    simulation = Simulation(window=8 * WINDOW)
    simulation.older = older
    simulation.dial()
    simulation.settle()
    assert simulation.host is not None
    simulation.client_app.says(2_000_000)
    simulation.host_app.says(2_000_000)
    finish(simulation)
    assert {stream.limit for stream in (simulation.client, simulation.host)} == {8 * WINDOW}
    assert simulation.windows == set()
    assert all_finished(simulation)
    nothing_is_kept(simulation)


def test_messages_of_other_streams_are_ignored() -> None:
    """They name their stream."""
    simulation = opened()
    assert simulation.host is not None
    for message in (Ack(new_id(), 5), Fin(new_id(), 0), Reset(new_id(), "x")):
        simulation.host.on_message(message)
    finish(simulation)
    assert simulation.outcomes == FINISHED


def test_the_table_leaves_nothing_out() -> None:
    """Each phase but the last has a way to the last."""
    assert {phase for phase, _ in TRANSITIONS} == set(Phase) - {Phase.CLOSED}
    for phase in set(Phase) - {Phase.CLOSED}:
        assert TRANSITIONS[phase, Trigger.END] is Phase.CLOSED


def test_an_impossible_transition_names_phase_and_trigger() -> None:
    simulation = opened()
    finish(simulation)
    with pytest.raises(InvalidTransition, match="closed has no transition for 'accept'"):
        simulation.client._transition(Trigger.ACCEPT)


def test_the_documented_diagram_is_that_of_the_table() -> None:
    """Drawn by support/diagram.py."""
    page = PAGE.read_text()
    assert page == drawn(page)


# Resume.


STEPS = run_with_cuts(set())[1]


@pytest.mark.parametrize("deliver", ["nothing", "to relay", "to host", "to client"])
def test_survives_a_cut_at_every_step(deliver: str) -> None:
    """Whatever was on its way then: everything arrives once, in order, and the target is connected to once."""
    for step in range(STEPS):
        simulation, _ = run_with_cuts({step}, deliver=deliver)
        where = f"cut at step {step} of {STEPS}"
        assert simulation.host_app.read == simulation.client_app.written, where
        assert simulation.client_app.read == simulation.host_app.written, where
        assert simulation.connections == 1, where
        if "host" not in simulation.outcomes:
            # Only the client's last ack was lost: the resume window ends it, quietly.
            assert simulation.host is not None
            simulation.host.expire("no resume")
        assert all_finished(simulation), where
        nothing_is_kept(simulation)


@pytest.mark.parametrize("deliver", ["nothing", "to relay", "to host", "to client"])
def test_survives_a_planned_move_at_every_step(deliver: str) -> None:
    """Make before break: what the old leg still brings is not delivered twice."""
    moved = 0
    for step in range(2, STEPS):
        simulation, _ = run_with_cuts({step, step + 9}, deliver=deliver, move=True)
        moved += len(simulation.legs) > 1
        assert simulation.host_app.read == simulation.client_app.written, step
        assert simulation.client_app.read == simulation.host_app.written, step
        assert simulation.outcomes["client"] == (Outcome.FINISHED, "")
        assert simulation.connections == 1
    assert moved > STEPS // 2


@given(choices=st.lists(st.integers(0, 10**6), max_size=300))
def test_whatever_happens_what_comes_out_is_a_prefix_of_what_went_in(choices: list[int]) -> None:
    """From the first byte on; then the legs come back, and all of it is there, at one target."""
    simulation = begun()
    broke = torn(simulation, choices)
    if not broke and simulation.outcomes["client"] == (Outcome.LOST, "lost before paired"):
        assert len(simulation.legs) > MAX_REPLACED
        assert simulation.connections <= 1
    elif not broke:
        assert simulation.connections == 1
        assert all_finished(simulation)
        assert simulation.host_app.read == simulation.client_app.written
        assert simulation.client_app.read == simulation.host_app.written
    else:
        assert simulation.connections <= 1
        assert "client" in simulation.outcomes


@given(choices=st.lists(st.integers(0, 10**6), max_size=300), window=st.sampled_from((WINDOW, 4 * WINDOW)))
def test_windows_grow_and_shrink_through_anything(choices: list[int], window: int) -> None:
    """Memory comes and goes at both ends, legs are cut: no end sends more than the other has promised to keep."""
    simulation = begun(window=window)
    broke = torn(simulation, choices, squeezed=True)
    assert Outcome.VIOLATION not in [outcome for outcome, _ in simulation.outcomes.values()]
    if not broke and all_finished(simulation):
        assert simulation.host_app.read == simulation.client_app.written
        assert simulation.client_app.read == simulation.host_app.written


@given(choices=st.lists(st.integers(0, 10**6), max_size=200))
def test_a_relay_that_forgets_gives_nothing_to_two_targets(choices: list[int]) -> None:
    """It may then be that a stream is refused, since nobody knows what became of it."""
    simulation = begun()
    broke = torn(simulation, choices, restarts=True)
    assert simulation.connections <= 1
    refused = simulation.outcomes["client"][0] in (Outcome.REFUSED, Outcome.LOST)
    if not broke and not refused:
        assert simulation.host_app.read == simulation.client_app.written
        assert simulation.client_app.read == simulation.host_app.written


def detach(simulation: Simulation) -> None:
    """Cut the attached leg, and have both ends know it."""
    (leg,) = (leg for leg in simulation.legs if not leg.cut)
    simulation.cut(leg)
    simulation.client_learns(leg)
    simulation.host_learns(leg)


LEG = new_id()


def asks(simulation: Simulation, *, stream: str = "", key: str = "", attempt: int = 1, received: int = 0) -> Resume:
    """A `resume` as the client of the simulation says it on the leg `LEG`, but for what is said otherwise."""
    stream, key = stream or simulation.client.id, key or simulation.client.key
    proof = resume_proof(key, stream=stream, leg=LEG, attempt=attempt, received=received)
    return Resume(stream, proof, new_id(), attempt, received)


def finds(simulation: Simulation, message: Resume, leg: str = LEG) -> HostStream[Any] | Resumed | Gone | Refusal:
    """What the host finds for it."""
    return simulation.hosts.find(message, leg, SUBJECT, simulation.now)


def test_a_detached_stream_leaves_the_clock_until_it_is_resumed() -> None:
    """It can tell nobody what it has delivered. The resume does, and what is delivered later is told as ever."""
    simulation = opened()
    (leg,) = simulation.legs
    simulation.client_app.says(50)
    simulation.takes(simulation.client_app, simulation.client)
    simulation.relay_gets(leg)
    simulation.host_gets(leg)
    detach(simulation)
    simulation.tick()
    assert not simulation.clock
    simulation.dial()
    while not simulation.clock:
        simulation.steps()[0]()
    simulation.settle()
    assert simulation.client.replay.start == 50


def test_a_resume_needs_the_key() -> None:
    """A stream's id alone is worth nothing: the answer is the same as for no stream at all."""
    simulation = opened()
    detach(simulation)
    genuine = asks(simulation)
    forged = asks(simulation, key=new_id())
    unknown = asks(simulation, stream=new_id())
    changed = [msgspec.structs.replace(genuine, **change) for change in ({"attempt": 2}, {"received": 1})]
    assert isinstance(finds(simulation, genuine), HostStream)
    answers = {
        (type(answer), getattr(answer, "reason", ""), getattr(answer, "unknown", ""))
        for answer in (finds(simulation, message) for message in (forged, unknown, *changed))
    }
    assert answers == {(Gone, "no such stream", True)}


def test_a_proof_is_worth_nothing_on_another_leg() -> None:
    """Somebody who has heard a `resume`, or an answer to one, cannot use it."""
    simulation = opened()
    detach(simulation)
    answer = finds(simulation, asks(simulation), leg=new_id())
    assert isinstance(answer, Gone)
    assert answer.unknown
    finish(simulation)
    late = asks(simulation)
    assert isinstance(finds(simulation, late), Resumed)
    assert isinstance(finds(simulation, late, leg=new_id()), Gone)


def test_only_the_holder_of_the_key_can_answer_a_resume() -> None:
    """Any other answer is none: the stream stays as it is."""
    for done in (False, True):
        simulation = opened()
        detach(simulation)
        stream, leg = simulation.client, Leg()
        stream.resume(leg.end(leg.to_host), leg.id)
        right = resumed_proof(stream.key, stream=stream.id, leg=leg.id, received=0, done=done)
        other_leg = resumed_proof(stream.key, stream=stream.id, leg=new_id(), received=0, done=done)
        for false in (
            Resumed(stream.id, new_id(), 0, done),
            Resumed(stream.id, other_leg, 0, done),
            Resumed(stream.id, right, 1, done),
            Resumed(stream.id, right, 0, not done),
            Resumed(new_id(), right, 0, done),
        ):
            assert not stream.on_answer(false)
            assert (stream.phase, stream.link) == (Phase.LIVE, None)
        stream.candidate_lost()
        finish(simulation)
        assert all_finished(simulation)


def test_only_a_newer_attempt_counts() -> None:
    """A `resume` that was held up on the way cannot take the stream back."""
    simulation = opened()
    for attempt in (1, 2):
        detach(simulation)
        simulation.dial()
        simulation.settle()
        assert simulation.host is not None
        assert simulation.host.attempt == attempt
    assert finds(simulation, asks(simulation, attempt=2)) is Refusal.STALE


def test_a_finished_stream_answers_done_and_forgets_later() -> None:
    """Tombstones: for the resume window, and with the key only."""
    simulation = opened()
    finish(simulation)
    stream = simulation.client
    late = asks(simulation)
    proof = resumed_proof(stream.key, stream=stream.id, leg=LEG, received=0, done=True)
    assert finds(simulation, late) == Resumed(stream.id, proof, done=True)
    assert simulation.hosts.knows(stream.id)
    simulation.now += 1001
    forgotten = finds(simulation, late)
    assert isinstance(forgotten, Gone)
    assert forgotten.unknown


def test_a_flood_of_ended_streams_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client that lost an answer still gets it, whatever another subject asks meanwhile."""
    monkeypatch.setattr(resume, "MAX_REMEMBERED", 50)
    simulation = opened()
    finish(simulation)
    for _ in range(1000):
        simulation.hosts.find(asks(simulation, stream=new_id()), new_id(), "mallory", simulation.now)
    answer = finds(simulation, asks(simulation))
    assert isinstance(answer, Resumed)
    assert answer.done


def test_an_open_that_its_resume_overtook_connects_to_nothing() -> None:
    """Two legs have no order. The client was told that its `open` never arrived: the data must not come twice."""
    simulation = Simulation()
    simulation.client_app.written += b"once"
    simulation.dial()
    first = simulation.legs[0]
    simulation.takes(simulation.client_app, simulation.client)
    while first.to_relay:
        simulation.relay_gets(first)
    simulation.client_gets(first)  # paired
    simulation.cut(first, deliver=True)
    simulation.client_learns(first)
    simulation.dial()
    second = simulation.legs[1]
    simulation.relay_gets(second)  # resume
    simulation.host_gets(second)
    simulation.client_gets(second)  # paired
    simulation.client_gets(second)  # gone, unknown
    simulation.settle()
    assert simulation.connections == 1
    finish(simulation)
    assert simulation.host_app.read == b"once"
    assert all_finished(simulation)
    nothing_is_kept(simulation)


def test_an_open_names_the_legs_that_nobody_has_explained() -> None:
    """Under the same id, as long as there are any, and no more than so many; else under another."""
    simulation = begun()
    stream, legs = simulation.client, [new_id() for _ in range(MAX_REPLACED + 1)]
    opens = []

    def open_again() -> Open:
        leg = Leg()
        stream.open(leg.end(leg.to_relay))
        message = leg.to_relay[0]
        assert isinstance(message, Open)
        assert leg.to_relay[1] == bytes(simulation.client_app.written)
        opens.append(message.stream)
        stream.link_lost()
        return message

    stream.link_lost()
    assert stream.lost_unpaired(legs[0], passed_nothing=False)
    assert open_again().replaces == (legs[0],)
    assert stream.lost_unpaired(legs[1], passed_nothing=True)
    assert open_again().replaces == (legs[0],)
    assert stream.turned_away()
    assert open_again().replaces == ()
    assert opens[0] == opens[1] != opens[2]
    assert [stream.lost_unpaired(leg, passed_nothing=False) for leg in legs] == [True] * MAX_REPLACED + [False]
    stream.passed_on(new_id())
    stream.local_broken("gone")
    assert not stream.turned_away()


def test_a_reset_that_was_cut_off_is_delivered_by_the_next_resume() -> None:
    """From the host: `gone`. From the client: `reset`, after `resumed`."""
    for end in ("host", "client"):
        simulation = opened()
        leg = simulation.legs[0]
        stream, far = {
            "host": (simulation.host, simulation.client_app),
            "client": (simulation.client, simulation.host_app),
        }[end]
        assert stream is not None
        simulation.cut(leg, deliver=True)
        stream.local_broken("power cut")
        for queue in (leg.to_relay, leg.to_host, leg.to_client):
            queue.clear()
        known_before = far.aborted
        simulation.settle()
        assert (known_before, far.aborted) == (False, True), end
        assert set(simulation.outcomes) == {"client", "host"}


def test_an_offset_out_of_range_resets_the_stream() -> None:
    """Whoever names it."""
    for received in (1, 10**9):  # nothing was sent
        simulation = opened()
        detach(simulation)
        assert simulation.host is not None
        leg = Leg()
        simulation.host.resume(leg.end(leg.to_client), asks(simulation, received=received), LEG)
        assert simulation.outcomes["host"][0] is Outcome.VIOLATION


def test_a_writer_is_read_as_far_as_its_share_goes() -> None:
    """Then it is held, and goes on as acks come. With nothing unacknowledged it is never held, even with no memory."""
    for limit in (MIN_WINDOW, 16 * BLOCK + BLOCK // 2, 100 * BLOCK):
        simulation = opened(memory=limit)
        for memory in (simulation.client_memory, simulation.host_memory):
            memory.share("another").take(limit // 2)
        share = simulation.client.share
        simulation.client_app.says(500_000)
        while not simulation.client_app.holds:
            simulation.takes(simulation.client_app, simulation.client)
        if limit == 100 * BLOCK:
            assert simulation.client_app.holds == HOLD_WINDOW
        else:
            assert simulation.client_app.holds & HOLD_MEMORY
            assert share.room <= 0
            assert simulation.client_memory.starved == 1
        assert share.used <= max(limit // 6, ALWAYS) + BLOCK
        finish(simulation)
        assert simulation.host_app.read == simulation.client_app.written
        assert simulation.client_memory.starved == 0
        assert simulation.client_memory.used == limit // 2


@given(
    steps=st.lists(st.tuples(st.integers(1, 40_000), st.floats(0, 1), st.floats(0, 1)), max_size=30),
    block_size=st.sampled_from((1_000, 10_000, 40_000)),
)
def test_the_replay_buffer_gives_back_what_was_put_in(steps: list[tuple[int, float, float]], block_size: int) -> None:
    """From any offset, after any release, whatever the sizes of what was read; and the memory has its blocks back."""
    memory = ReplayMemory(1 << 30, block_size)
    buffer = ReplayBuffer(memory, memory.share("somebody"))
    whole = b""
    for number, (size, release, since) in enumerate(steps):
        piece = bytes([number]) * min(size, block_size)
        whole += piece
        memory.block[: len(piece)] = piece
        buffer.append(memory.block[: len(piece)])
        offset = buffer.start + int(release * (buffer.end - buffer.start))
        buffer.release(offset)
        begin = offset + int(since * (buffer.end - offset))
        assert b"".join(buffer.since(begin)) == whole[begin:]
        # Blocks are half full at least, and the first may be released in part.
        assert memory.used <= 2 * (buffer.end - buffer.start) + max(block_size, 2 * GATHER)
    buffer.clear()
    assert memory.used == 0


def test_apps_are_told_apart() -> None:
    """The simulation's own words: what one application writes cannot pass for the other's."""
    first, second = App("client"), App("host")
    for app in (first, second):
        app.says(100)
    assert not set(bytes(first.written).split()) & set(bytes(second.written).split())
    assert len(list(itertools.islice(first.written, 100))) == 100
