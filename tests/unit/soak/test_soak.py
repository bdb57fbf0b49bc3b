"""The soak's own judgement: it must see what it is there to see."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from soak import chart
from soak.run import PANELS
from soak.streams import KINDS, PERIOD, Corrupt, End, FalseEnd, Flow
from soak.watch import LIMITS, Sample, trends
from support.apps import close, connect, serve

MIB = 1 << 20
HOUR = 3600


def flow_of(size: int) -> tuple[Flow, bytes]:
    """A flow that has sent so many bytes."""
    flow = Flow(1)
    return flow, flow.give(size)


def test_what_is_sent_is_what_is_awaited() -> None:
    """However it is cut, also past the point where the content begins anew."""
    flow, chance, sent = Flow(2), random.Random(3), b""
    while len(sent) < PERIOD + 1000:
        sent += flow.give(chance.randrange(1, 1 << 20))
    flow.ended = True
    while sent:
        size = chance.randrange(1, 1 << 20)
        flow.take(sent[:size])
        sent = sent[size:]
    flow.take_end()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
        lambda data: data[:500] + data[499:],
        lambda data: data[:500] + data[501:],
        lambda data: data[:500] + data[:500],
        lambda data: Flow(4).give(len(data)),
    ],
    ids=["a bit", "a byte twice", "a byte lost", "a piece again", "another stream's"],
)
def test_other_bytes_are_seen(spoil: object) -> None:
    """At once, not at the end."""
    flow, data = flow_of(1000)
    assert callable(spoil)
    with pytest.raises(Corrupt):
        flow.take(spoil(data))


def test_an_end_that_nobody_sent_is_seen() -> None:
    """With all bytes there, or not; and one that comes too early."""
    flow, data = flow_of(1000)
    flow.take(data)
    with pytest.raises(FalseEnd):
        flow.take_end()
    flow, data = flow_of(1000)
    flow.take(data[:999])
    flow.ended = True
    with pytest.raises(Corrupt):
        flow.take_end()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_each_kind_of_stream_comes_to_its_end(kind: object) -> None:
    """Without a tunnel between its ends: both finish, or one breaks it off and the other sees that."""
    assert isinstance(kind, type(KINDS[0]))
    up, down, stopping = Flow(1), Flow(2), asyncio.Event()
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool) -> str:
        flows = (up, down) if client else (down, up)
        end = End(reader, writer, *flows, random.Random(5), stopping, 0.5, resets=client)
        try:
            await (kind.client if client else kind.server)(end)
        except ConnectionError:
            return "reset"
        return "finished"

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.set_result(await play(reader, writer, client=False))

    async with serve(server) as port:
        reader, writer = await connect(port)
        asyncio.get_running_loop().call_later(1, stopping.set)
        assert await play(reader, writer, client=True) == "finished"
        assert await ended == ("reset" if kind.name == "broken off" else "finished")
        await close(writer)
    assert up.got + down.got > 0


def life(memory: Iterator[float], seconds: int = HOUR) -> list[Sample]:
    """Samples of one process whose memory is that, one a minute; the rest stays as it is."""
    return [Sample(at, "relay", 0, at, int(next(memory)), 40, 10, 0, 30) for at in range(0, seconds + 1, 60)]


def waver(slope: float) -> Iterator[float]:
    """50 MB and what chance makes of it; and so many bytes more a minute."""
    chance, minute = random.Random(6), 0
    while True:
        yield 50e6 + chance.uniform(-5e6, 5e6) + slope * minute
        minute += 1


def test_what_wavers_is_flat() -> None:
    """A load that is chance is no leak."""
    assert [trend.is_flat for trend in trends(life(waver(0)))] == [True] * len(LIMITS)


def test_a_leak_is_detected() -> None:
    """500 KB a minute, in an hour; and of descriptors one a minute."""
    assert not next(trends(life(waver(500e3)))).is_flat
    leaking = [Sample(at, "relay", 0, at, MIB, 40 + at // 60, 10, 0, 30) for at in range(0, HOUR, 6)]
    assert [trend.is_flat for trend in trends(leaking)] == [True, False, True]
    stuck = [Sample(at, "relay", 0, at, MIB, 40, 10 + at // 300, 0, 30) for at in range(0, HOUR, 6)]
    assert [trend.is_flat for trend in trends(stuck)] == [True, True, False]


def test_more_streams_are_no_leak() -> None:
    """Each has two sockets at its agent; one that has ended and left one of them behind is a leak."""
    busier = [Sample(at, "agent", 0, at, MIB, 40 + at // 60 * 2, 1, at // 60, 5) for at in range(0, HOUR, 6)]
    assert all(trend.is_flat for trend in trends(busier))
    leaking = [Sample(at, "agent", 0, at, MIB, 40 + at // 60, 1, 20, 5) for at in range(0, HOUR, 6)]
    assert [trend.is_flat for trend in trends(leaking)] == [True, False, True]


def test_each_life_is_judged_by_itself() -> None:
    """A restart begins anew; one that lived too short is not judged."""
    first, last = life(waver(0)), life(waver(0))
    brief = [Sample(HOUR + at, "relay", 1, at, 500 * MIB, 900, 90, 0, 30) for at in range(100)]
    again = [Sample(2 * HOUR + s.at, "relay", 2, s.age, s.memory + 100 * MIB, 80, 10, 0, 30) for s in last]
    found = list(trends([*first, *brief, *again]))
    assert [trend.life for trend in found] == [0] * 3 + [2] * 3
    assert all(trend.is_flat for trend in found)


def test_the_plot_is_well_formed(tmp_path: Path) -> None:
    """A line for each process in each panel, broken where it was restarted; nothing at all is no harm."""
    samples = [
        Sample(at, name, at // 50, at, at * MIB, at, None if at % 7 else at) for at in range(100) for name in "ab"
    ]
    tree = ET.fromstring(chart.draw(samples, PANELS[:3], [10.0, 50.0]))
    lines = [node.attrib["d"] for node in tree.iter("{http://www.w3.org/2000/svg}path")]
    assert len(lines) == 6
    assert all(line.count("M") == 2 for line in lines)
    ET.fromstring(chart.draw([], PANELS, []))
