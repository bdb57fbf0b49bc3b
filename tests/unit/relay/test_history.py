"""Whether a stream was passed on: a client that loses legs, a relay that may forget, and two hosts."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from tunnel_relay.history import History


@dataclass(eq=False)
class Leg:
    """A client leg. `asks` is what its `open` replaces, until the relay has read that."""

    id: str
    asks: tuple[str, ...] | None = ()
    subject: str = "alex"
    tunnel: str = "mc"
    host: str | None = None
    lost: bool = False  # the client gave it up
    closed: bool = False  # the relay reads nothing more of it


class OneStream(RuleBasedStateMachine):
    """However legs, messages and losses are mixed: one host at most ever gets the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.history: History[Leg] = History(60, 5)
        self.legs: list[Leg] = []
        self.unsettled: tuple[str, ...] = ()
        self.got: set[str] = set()  # hosts
        self.forgot = False
        self.told: str | None = None  # where the stream is, as the relay told; or that it does not know

    @precondition(lambda self: self.told is None and all(leg.lost for leg in self.legs))
    @rule()
    def the_client_opens(self) -> None:
        leg = Leg(f"leg {len(self.legs)}", self.unsettled)
        self.legs.append(leg)
        self.history.began(leg)

    @precondition(lambda self: self.legs and not self.legs[-1].lost)
    @rule()
    def the_client_loses_its_leg(self) -> None:
        self.legs[-1].lost = True
        self.unsettled += (self.legs[-1].id,)

    @precondition(lambda self: any(leg.asks is not None and not leg.closed for leg in self.legs))
    @rule(data=st.data(), host=st.sampled_from(["one", "two", ""]))
    def the_relay_reads(self, data: st.DataObject, host: str) -> None:
        leg = data.draw(st.sampled_from([leg for leg in self.legs if leg.asks is not None and not leg.closed]))
        asks, leg.asks = leg.asks or (), None
        known = self.history.passed_on_to(asks, leg, self.now)
        if asks and known is not None:
            assert known == "" or known in self.got
            assert self.forgot or self.got, "nothing was passed on, and nothing was forgotten"
            if not leg.lost:
                self.told = known
            return
        for old in tuple(self.history.still_open(asks)):
            assert old is not leg
            self._ends(old)
        leg.host = host
        self.got.add(host)
        assert len(self.got) == 1

    @precondition(lambda self: any(not leg.closed for leg in self.legs))
    @rule(data=st.data())
    def the_relay_loses_a_leg(self, data: st.DataObject) -> None:
        self._ends(data.draw(st.sampled_from([leg for leg in self.legs if not leg.closed])))

    def _ends(self, leg: Leg) -> None:
        leg.closed = True
        self.history.ended(leg, self.now)

    @rule(by_a_flood=st.booleans())
    def the_relay_forgets(self, by_a_flood: bool) -> None:
        self.forgot = True
        if by_a_flood:
            for number in range(10):
                other = Leg(f"other {number} {self.now}")
                self.history.began(other)
                self.history.ended(other, self.now)
        else:  # it restarts
            self.history = History(60, 5)
            for leg in self.legs:
                leg.closed = True

    @rule(passes=st.sampled_from([0.1, 61]))
    def time_passes(self, passes: float) -> None:
        self.now += passes
        self.forgot = self.forgot or passes > 60


OneStream.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestOneStream = OneStream.TestCase


def test_nobody_can_ask_about_others() -> None:
    """Neither learn of another subject's or tunnel's leg, nor have it closed; nor of the leg one asks on."""
    history: History[Leg] = History(60, 10)
    mine, theirs, elsewhere = Leg("mine"), Leg("theirs", subject="eve"), Leg("elsewhere", tunnel="db")
    gone = Leg("gone", subject="eve", host="one")
    for leg in (mine, theirs, elsewhere, gone):
        history.began(leg)
    history.ended(gone, 0)
    asker = Leg("asker")
    history.began(asker)
    assert history.passed_on_to(["mine"], asker, 0) is None
    assert list(history.still_open(["mine", "gone"])) == [mine]
    for name in ("theirs", "elsewhere", "gone", "asker", "never"):
        assert history.passed_on_to(["mine", name], asker, 0) == "", name
