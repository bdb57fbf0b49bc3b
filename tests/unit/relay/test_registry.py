"""Who waits for whom: the relay's choices, against a model that is slow and plain."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tunnel_relay.registry import Registry

TUNNELS = st.sampled_from(["mc", "db"])
INSTANCES = st.sampled_from(["a", "b", "c"])


@dataclass(eq=False)
class Leg:
    """A leg, as a test knows it."""

    role: str
    tunnel: str
    instance: str  # a host's own, or the one that a client needs
    number: int
    doubtful: bool = False
    waits: bool = True
    partners: list[Leg] = field(default_factory=list)


class Choices(RuleBasedStateMachine):
    """Legs come, fall silent, speak again and go, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry[Leg] = Registry(lambda leg: leg.doubtful)
        self.legs: list[Leg] = []
        # (tunnel, instance) → the last moment at which it had no leg to choose, or was chosen
        self.unready: dict[tuple[str, str], int] = {}
        self.chosen: dict[tuple[str, str], int] = {}
        self.now = 0

    def waiting(self, role: str, tunnel: str) -> list[Leg]:
        """The legs that wait, oldest first."""
        return [leg for leg in self.legs if leg.waits and leg.role == role and leg.tunnel == tunnel]

    def ready(self, tunnel: str, instance: str) -> list[Leg]:
        """The host legs that may be chosen."""
        return [leg for leg in self.waiting("host", tunnel) if leg.instance == instance and not leg.doubtful]

    def join(self, client: Leg, host: Leg) -> None:
        """Note a pair, which must not have been given before."""
        assert not client.partners and not host.partners, "given twice"
        assert client.tunnel == host.tunnel
        assert client.instance in ("", host.instance)
        client.partners.append(host)
        host.partners.append(client)
        client.waits = host.waits = False

    def new(self, role: str, tunnel: str, instance: str) -> Leg:
        leg = Leg(role, tunnel, instance, len(self.legs))
        self.legs.append(leg)
        return leg

    @rule(tunnel=TUNNELS, instance=INSTANCES)
    def a_host_leg_comes(self, tunnel: str, instance: str) -> None:
        clients = [leg for leg in self.waiting("client", tunnel) if leg.instance in ("", instance)]
        leg = self.new("host", tunnel, instance)
        client = self.registry.add_host(leg, tunnel, instance)
        assert client is (clients[0] if clients else None), "who waited longest is served first"
        if client is not None:
            self.join(client, leg)

    @rule(tunnel=TUNNELS, needs=st.one_of(st.just(""), INSTANCES))
    def a_client_comes(self, tunnel: str, needs: str) -> None:
        candidates = [leg for name in ([needs] if needs else "abc") for leg in self.ready(tunnel, name)]
        leg = self.new("client", tunnel, needs)
        host = self.registry.add_client(leg, tunnel, needs)
        assert (host is None) == (not candidates), "who can be served is not kept waiting, and only they"
        if host is None:
            return
        assert host is self.ready(tunnel, host.instance)[-1], "the newest leg of the host-agent"
        key = tunnel, host.instance
        if not needs and key in self.chosen:
            for other in "abc":
                if other != host.instance and self.ready(tunnel, other):
                    since = max(self.unready.get((tunnel, other), -1), self.chosen.get((tunnel, other), -1))
                    assert since > self.chosen[key], "one that was ready all the time was passed over"
        self.chosen[key] = self.now
        self.join(leg, host)

    @rule(data=st.data())
    def a_leg_goes(self, data: st.DataObject) -> None:
        if self.legs:
            leg = data.draw(st.sampled_from(self.legs))
            leg.waits = False
            self.registry.remove(leg, leg.tunnel, leg.instance)

    @rule(data=st.data())
    def a_leg_falls_silent_or_speaks(self, data: st.DataObject) -> None:
        hosts = [leg for leg in self.legs if leg.role == "host"]
        if hosts:
            leg = data.draw(st.sampled_from(hosts))
            leg.doubtful = not leg.doubtful

    @invariant()
    def the_counts_are_right(self) -> None:
        self.now += 1
        total = 0
        for tunnel in ("mc", "db"):
            clients = self.waiting("client", tunnel)
            total += len(clients)
            assert self.registry.waiting_in_tunnel(tunnel) == len(clients)
            assert self.registry.host_legs(tunnel) == len(self.waiting("host", tunnel))
            for instance in "abc":
                served = [leg for leg in clients if leg.instance in ("", instance)]
                assert self.registry.waiting_for_instance(tunnel, instance) == len(served)
                if not self.ready(tunnel, instance):
                    self.unready[tunnel, instance] = self.now
        assert self.registry.waiting == total

    def teardown(self) -> None:
        for leg in self.legs:
            self.registry.remove(leg, leg.tunnel, leg.instance)
        assert not self.registry._tunnels, "nothing is kept of tunnels that nobody waits in"


TestChoices = Choices.TestCase
TestChoices.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_host_agents_share_in_turn() -> None:
    """Three host-agents with legs to spare each get a third, whatever order they came in."""
    registry: Registry[tuple[str, int]] = Registry(lambda leg: False)
    for instance in "aaaaaabcbcbcbcbcbc":
        registry.add_host((instance, registry.host_legs("mc")), "mc", instance)
    got = "".join(leg[0] for leg in (registry.add_client(("client", n), "mc") for n in range(18)) if leg)
    assert sorted(got) == sorted("abc" * 6)
    assert got == "abc" * 6
