"""Who may come in, and who not any more."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from client_agent import tunnel as client_tunnel
from client_agent.service import ClientAgent
from host_agent.settings import HostSettings
from support.apps import close, connect, echo, exchange, serve, until
from support.commands import run
from support.metrics import Metrics
from support.peer import Peer, get
from support.system import SECRET, System, bearer, token
from support.wire import Wire
from tunnel_core.agent import credentials, pool
from tunnel_core.agent.credentials import LIFETIME, good_for
from tunnel_core.errors import AccessDenied
from tunnel_core.net.address import Address
from tunnel_core.protocol import tokens
from tunnel_core.protocol.endpoints import INSTANCE_KEY_HEADER, SUBPROTOCOL, new_id
from tunnel_core.protocol.tokens import TokenRole
from tunnel_core.service.settings import Secret
from tunnel_relay.service import RelayTimes

OTHER = "another-secret-for-tests-of-more-than-32-bytes"
INVALID, EXPIRED = "the token is not valid", "the token has expired: ask for a new one"
NOT_ALLOWED = "the token does not allow this"


async def refused(system: System, path: str = "/client/mc", **headers: str) -> tuple[int, str]:
    """Status and reason of a leg that is refused, before any upgrade."""
    answer = await get(system.relay.port, path, headers, upgrade=True)
    assert answer.status != 101
    assert ("www-authenticate" in answer.headers) == (answer.status == 401)
    return answer.status, answer.text.strip()


def grant(value: str) -> str:
    """The id of a token."""
    return tokens.read(value).id


async def test_a_bad_token_is_refused_before_the_upgrade(loop_factory: Any) -> None:
    """401 for a token that is none, 403 for one that is good for something else; each is counted and logged."""
    network = tokens.issue(
        SECRET.encode(), role="client", tunnels=["mc"], subject="x", expires=2**32, networks=["192.0.2.0/24"]
    )
    cases = {
        "": (401, "a token is needed"),
        "Basic eHl6": (401, "a token is needed"),
        "Bearer": (401, "a token is needed"),
        "Bearer  ": (401, "a token is needed"),
        "Bearer garbage": (401, INVALID),
        "Bearer a.b.c": (401, INVALID),
        "Bearer \xff\xfe": (401, INVALID),
        f"Bearer {token('client', secret=OTHER)}": (401, INVALID),
        f"Bearer {token('client', lasts=-31)}": (401, EXPIRED),
        f"Bearer {token('host')}": (403, NOT_ALLOWED),
        f"Bearer {token('client', 'db', 'web')}": (403, NOT_ALLOWED),
        f"Bearer {network}": (403, NOT_ALLOWED),
    }
    async with System() as system:
        for header, (status, reason) in cases.items():
            headers = {"Authorization": header} if header else {}
            assert await refused(system, **headers) == (status, reason), header
        metrics = await Metrics.scrape(system.relay.admin_port)
        counted = {reason: metrics.value("relay_refusals_total", reason=reason) for reason in ("no-token", "bad-token")}
        assert counted == {"no-token": 4, "bad-token": 5}
        assert metrics.value("relay_refusals_total", reason="not-allowed") == 3
        logged = [(line["address"], line["reason"]) for line in system.events("leg refused")]
        assert logged == [("127.0.0.1", reason) for _, reason in cases.values()]
        assert not system.relay.pairing.legs


async def test_a_token_is_good_for_its_role_and_tunnels(loop_factory: Any) -> None:
    """And for nothing else; a tunnel that is another's looks like one that does not exist."""
    both = token("client", "mc", "db")
    async with System() as system:
        for tunnel in ("mc", "db"):
            async with await Peer.dial(system.relay.port, f"/client/{tunnel}", {"Authorization": f"bearer {both}"}):
                pass
        async with await system.dial("host", "secret"):
            answers = [await refused(system, f"/client/{name}", **bearer("client")) for name in ("secret", "nothing")]
            assert answers == [(403, NOT_ALLOWED)] * 2
        for path in ("/client/default", "/client", "/host/mc", "/host"):
            assert await refused(system, path, Authorization=f"Bearer {both}") == (403, NOT_ALLOWED)
        for path in ("/", "/clients/mc", "/client/mc/", "/client/MC", "/client/a%2Fb", "/client/" + "x" * 64, "//"):
            status, reason = await refused(system, path, Authorization=f"Bearer {both}")
            assert (status, reason) == (404, "legs are at /host/TUNNEL and /client/TUNNEL")
        for path in ("client/mc", "x/client/mc", "http:/client/mc", "/x/client/mc", "/probeXYZ/client/mc", "/probe"):
            status, reason = await refused(system, path, Authorization=f"Bearer {both}")
            assert (status, reason) == (404, "legs are at /host/TUNNEL and /client/TUNNEL")


async def test_a_gateways_token_is_good_for_legs_of_clients(loop_factory: Any) -> None:
    """Of the tunnels that it names, or of all; never for a host's."""
    async with System() as system:
        for tunnels, fine in ((("mc",), ("mc",)), (("*",), ("mc", "db"))):
            gateway = bearer("gateway", *tunnels)
            for tunnel in fine:
                async with await Peer.dial(system.relay.port, f"/client/{tunnel}", gateway):
                    pass
            assert await refused(system, "/host/mc", **gateway) == (403, NOT_ALLOWED)
        assert await refused(system, "/client/db", **bearer("gateway", "mc")) == (403, NOT_ALLOWED)


@pytest.mark.parametrize("role", ["gateway", "client", None])
async def test_only_a_gateway_names_visitors(role: TokenRole | None, loop_factory: Any) -> None:
    """The relay takes the name out of what anybody else opens, and leaves all else in it."""
    access: dict[str, Any] = {} if role else {"auth": "none", "secret": Secret()}
    opening = {"stream": "1" * 32, "key": "2" * 32, "window": 65536, "source": "203.0.113.7:51234", "later": [1]}
    async with System(**access) as system:
        host = await Peer.dial(system.relay.port, "/host/mc", bearer("host"), v1=True)
        client = await Peer.dial(system.relay.port, "/client/mc", bearer(role) if role else {}, v1=True)
        async with host, client:
            await client.say("open", **opening)
            assert (await host.heard())["type"] == "paired"
            passed_on = await host.heard()
            if role != "gateway":
                del opening["source"]
            assert passed_on == {"type": "open", **opening}
            # Logs tell the visitor's address, or that of whoever dialed.
            expected = "203.0.113.7:51234" if role == "gateway" else "127.0.0.1"
            logged = [*system.events("stream opening"), *system.events("paired")]
            assert [line["client"] for line in logged] == [expected] * 2


async def test_expiry_has_leeway(loop_factory: Any) -> None:
    """A clock that is 20 seconds off keeps nobody out."""
    async with System() as system:
        late = {"Authorization": f"Bearer {token('client', lasts=-20)}"}
        async with await Peer.dial(system.relay.port, "/client/mc", late):
            pass


async def test_a_network_is_checked(loop_factory: Any) -> None:
    """Who comes from the right one is let in."""
    local = tokens.issue(
        SECRET.encode(), role="client", tunnels=["mc"], subject="x", expires=2**32, networks=["127.0.0.0/8"]
    )
    for host in ("127.0.0.1", "::"):
        async with System(host=host) as system, await Peer.dial(system.relay.port, f"/client/mc?token={local}"):
            assert [leg.address for leg in system.relay.pairing.legs] == ["127.0.0.1"]


async def test_secrets_rotate(loop_factory: Any) -> None:
    """While both are known, tokens of both are good, also those that agents make."""
    async with serve(echo) as target, System(secret=Secret(f"{OTHER}\n{SECRET}\n")) as system:
        for secret in (SECRET, OTHER):
            headers = {"Authorization": f"Bearer {token('client', secret=secret)}"}
            async with await Peer.dial(system.relay.port, "/client/mc", headers):
                pass
        await system.host({"mc": target}, secret=Secret(SECRET))
        client = await system.client("mc", secret=Secret(OTHER))
        await exchange(client.ports[0], 1000)
        assert (await refused(system, Authorization=f"Bearer {token('client', secret='x' * 32)}"))[1] == INVALID


async def test_auth_none_lets_anybody_in(loop_factory: Any) -> None:
    """`--auth none` lets anybody in, with or without a token, good or not."""
    async with serve(echo) as target, System(auth="none", secret=Secret()) as system:
        await system.host({"mc": target}, secret=Secret())
        client = await system.client("mc", secret=Secret())
        await exchange(client.ports[0], 1000)
        async with await Peer.dial(system.relay.port, "/client/mc", {"Authorization": "Bearer garbage"}):
            pass


# Revocation and expiry.


LOOKS_OFTEN = RelayTimes(reread=0.02)


async def test_revoking_closes_live_legs_and_lets_no_more_in(loop_factory: Any, tmp_path: Path) -> None:
    """From the moment that the file changes; all others stay."""
    good, bad = token("client"), token("client")
    revoked = tmp_path / "revoked"
    revoked.write_text("# nobody yet\n")
    async with System(times=LOOKS_OFTEN, revoked=str(revoked)) as system:
        port = system.relay.port
        async with await system.dial("host") as host, await Peer.dial(port, f"/client/mc?token={bad}") as client:
            await client.send(b"hello")
            assert await host.data(5) == b"hello"
            async with await Peer.dial(port, f"/client/mc?token={good}") as other:
                revoked.write_text(f"# stolen on Monday\n{grant(bad)}  # his laptop\n\n")
                closed = await client.closed()
                assert (closed.code, closed.reason) == (1008, "the token was revoked")
                await client.send_close(1008)
                assert (await host.closed()).code not in (1000, 1001), "no end that nobody sent"
                reason = "the token was revoked: ask for a new one"
                assert await refused(system, f"/client/mc?token={bad}") == (403, reason)
                async with await system.dial("host") as newer:
                    await other.send(b"still here")
                    assert await newer.data(10) == b"still here"
                revoked.write_text("")
                await until(lambda: len(system.events("revoked ids read")) == 3)
                async with await Peer.dial(port, f"/client/mc?token={bad}"):
                    pass


async def test_a_file_of_revoked_ids_that_cannot_be_read_is_kept_in_mind(loop_factory: Any, tmp_path: Path) -> None:
    """What was read before stays revoked; the log says so once."""
    bad = token("client")
    revoked = tmp_path / "revoked"
    revoked.write_text(grant(bad))
    async with System(times=LOOKS_OFTEN, revoked=str(revoked)) as system:
        revoked.unlink()
        await until(lambda: system.events("revoked ids unreadable"))
        assert (await refused(system, f"/client/mc?token={bad}"))[0] == 403
        revoked.write_text("")
        await until(lambda: len(system.events("revoked ids read")) == 2)
        async with await Peer.dial(system.relay.port, f"/client/mc?token={bad}"):
            pass
        assert len(system.events("revoked ids unreadable")) == 1


async def test_revoking_closes_probes_too(loop_factory: Any, tmp_path: Path) -> None:
    """A doctor's connection ends as a leg does."""
    bad = token("client")
    revoked = tmp_path / "revoked"
    revoked.write_text("")
    async with (
        System(times=LOOKS_OFTEN, revoked=str(revoked)) as system,
        await Peer.dial(system.relay.port, f"/probe/client/mc?token={bad}", v1=True) as probe,
    ):
        assert (await probe.heard())["type"] == "probed"
        revoked.write_text(bad)
        closed = await probe.closed()
        assert (closed.code, closed.reason) == (1008, "the token was revoked")
        await probe.send_close(1008)
        await until(lambda: not system.relay._admission.probes)


async def test_expiry_stops_new_streams_and_no_live_one(loop_factory: Any) -> None:
    """A stream goes on past it; the next, on the pair that is free again, is refused with the reason."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target})
        client = await system.client("mc", secret=Secret(), token=Secret(token("client")), warm=1)
        reader, writer = await connect(client.ports[0])
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        system.move_clock(3600 + 31)
        writer.write(b"after")
        assert await reader.readexactly(5) == b"after"
        writer.write_eof()
        assert await reader.read() == b""
        await close(writer)
        await until(lambda: len(system.events("stream closed")) == 2)
        reader, writer = await connect(client.ports[0])
        writer.write(b"too late")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await close(writer)
        last = system.events("stream closed")[-1]
        assert (last["outcome"], last["reason"]) == ("refused", EXPIRED)
        metrics = await Metrics.scrape(system.relay.admin_port)
        assert metrics.value("relay_refusals_total", reason="expired") == 1


@pytest.mark.parametrize("pair", ["new", "idle"])
async def test_what_follows_a_refused_open_goes_nowhere(loop_factory: Any, pair: str) -> None:
    """Data that a client sent with its `open` reaches no host."""
    async with (
        System() as system,
        await system.dial("host", v1=True) as host,
        await system.dial("client", v1=True) as client,
    ):
        if pair == "idle":
            await client.say("open", stream=new_id(), key=new_id(), window=65536)
            assert (await client.heard())["type"] == "paired"
            assert (await host.heard())["type"] == "paired"
            assert (await host.heard())["type"] == "open"
        system.move_clock(3600 + 31)
        stream = new_id()
        await client.say("open", stream=stream, key=new_id(), window=65536)
        await client.send(b"early data")
        await client.say("fin", stream=stream, sent=10)
        assert await client.heard() == {"type": "refused", "stream": stream, "reason": EXPIRED, "retry": True}
        assert (await client.closed()).code in (1000, 1013)
        if pair == "idle":
            assert (await host.closed()).code == 4410


# Agents.


async def test_a_token_beats_a_secret(loop_factory: Any) -> None:
    """Who is given both uses the token, whether that is wise or not."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target}, token=Secret(token("host")), secret=Secret(OTHER))
        client = await system.client("mc", token=Secret(token("client", secret=OTHER)), wait=False)
        error = await client.failed
        assert isinstance(error, AccessDenied)
        assert error.reason == f"the relay refuses this client: {INVALID}"
        assert error.exit_code == 2


async def test_an_agent_makes_short_lived_tokens_of_its_own(loop_factory: Any) -> None:
    """From the secret: one for each tunnel and role, good for minutes."""
    async with serve(echo) as target, System() as system:
        await system.host({"mc": target, "db": target})
        grants = {leg.grant for leg in system.relay.pairing.legs}
        assert {(leg.grant.role, leg.grant.tunnels) for leg in system.relay.pairing.legs if leg.grant} == {
            ("host", ("mc",)),
            ("host", ("db",)),
        }
        assert all(grant is not None and grant.expires < time.time() + 600 for grant in grants)


@pytest.mark.parametrize("known", [True, False])
async def test_a_leg_that_waited_long_still_opens_a_stream(
    loop_factory: Any, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """An agent with the secret: the token that its waiting leg came with is over, a fresh one is easily had.

    Also where the agent only hears that from the relay.
    """
    later = LIFETIME + 31
    async with serve(echo) as target, System() as system:
        port = await system.pair(target)
        await exchange(port, 1000)  # so that there is a free pair, too
        client = system.agents[-1]
        assert isinstance(client, ClientAgent)
        tunnel = client._tunnels["mc"]
        # A leg that is being dialed as the clock jumps would be older than it seems.
        await until(lambda: tunnel._free and not tunnel.pool._dials)
        system.move_clock(later)
        monkeypatch.setattr(credentials, "time", SimpleNamespace(time=lambda: time.time() + later))
        if known:
            monkeypatch.setattr(client_tunnel, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + later))
        for _ in range(5):
            await exchange(port, 1000)
        refusals = (await Metrics.scrape(system.relay.admin_port)).value("relay_refusals_total", reason="expired")
        assert refusals == 0 if known else refusals >= 1


@pytest.mark.parametrize("jump", [3600, -3600])
async def test_a_clock_that_jumps_by_an_hour(loop_factory: Any, monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """That of the machine that all three run on: a live stream goes on and resumes, new legs open new ones."""
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        port = await system.pair(target, relay=f"ws://127.0.0.1:{wire.port}")
        reader, writer = await connect(port)
        for word in (b"before", b"after the jump", b"after a loss"):
            if word == b"after the jump":
                system.move_clock(jump)
                monkeypatch.setattr(credentials, "time", SimpleNamespace(time=lambda: time.time() + jump))
            elif word == b"after a loss":
                wire.cut()
            writer.write(word)
            assert await reader.readexactly(len(word)) == word
        assert system.events("stream resumed")
        for seed in range(5):
            await exchange(port, 10_000, seed)
        await close(writer)


def test_a_token_is_good_by_the_relays_clock() -> None:
    """Seconds left; for ever where nothing is known, or where the relay's clock cannot be what it says."""
    noon = "Sat, 01 Jan 2000 12:00:00 GMT"
    made = tokens.issue(SECRET.encode(), role="client", tunnels=["mc"], subject="x", expires=946728000 + 300)
    assert good_for(made, noon) == 300
    assert good_for(made, "Sat, 01 Jan 2000 13:00:00 GMT") == float("inf")
    for shown, date in ((None, noon), ("no token", noon), (made, ""), (made, "yesterday")):
        assert good_for(shown, date) == float("inf")


@pytest.mark.parametrize(
    ("command", "lasts", "expected"),
    [
        ("host-agent", -3600, f"the relay refuses this host: {EXPIRED}"),
        ("client-agent", -3600, f"the relay refuses this client: {EXPIRED}"),
        ("host-agent", None, "the relay refuses this host: a token is needed"),
    ],
)
async def test_a_wrong_token_ends_an_agent(
    loop_factory: Any, tmp_path: Path, command: str, lasts: float | None, expected: str
) -> None:
    """Before it was ever let in: with one line that says why, and exit code 2."""
    flags = ["--tunnel", "mc=127.0.0.1:1"] if command == "host-agent" else ["--forward", "0=mc"]
    async with System() as system:
        if lasts is not None:
            (tmp_path / "token").write_text(token("host" if command == "host-agent" else "client", lasts=lasts))
            flags += ["--token-file", str(tmp_path / "token")]
        ended = await asyncio.to_thread(run, command, "--relay", system.url, "--log-level", "warning", *flags)
        assert ended.returncode == 2
        assert ended.stdout == ""
        (line,) = ended.stderr.splitlines()
        assert f'"reason":"{expected}' in line


async def test_a_token_that_stopped_working_is_retried(
    loop_factory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After the first success: slowly, with a log line, until the file holds another."""
    monkeypatch.setattr(pool, "DENIED_RETRY", 0.1)
    file = tmp_path / "token"
    file.write_text(token("client"))
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        await system.host({"mc": target})
        client = await system.client(
            "mc", relay=f"ws://127.0.0.1:{wire.port}", secret=Secret(), token=Secret(path=file), warm=1
        )
        await exchange(client.ports[0], 1000)
        system.move_clock(3600 + 31)
        wire.cut()

        def denied() -> list[dict[str, Any]]:
            reason = "the relay refuses this client: the token has expired: this machine's clock is 60.5 min behind"
            return [line for line in system.events("leg denied") if line["reason"].startswith(reason)]

        await until(lambda: len(denied()) >= 3)
        assert (denied()[-1]["level"], denied()[-1]["retry_seconds"]) == ("warning", 0.1)
        assert not client.failed.done()
        assert client.readiness(), "it can reach the relay, but is not let in"
        file.write_text(token("client", lasts=7200))
        await until(lambda: not client.readiness())
        await exchange(client.ports[0], 1000)


async def test_a_token_file_that_is_gone_is_missed_later(
    loop_factory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mounted secret that is being replaced ends nothing."""
    monkeypatch.setattr(pool, "DENIED_RETRY", 0.1)
    file = tmp_path / "token"
    file.write_text(token("host"))
    async with serve(echo) as target, System() as system, Wire(system.relay.port) as wire:
        host = await system.host(
            {"mc": target}, relay=f"ws://127.0.0.1:{wire.port}", secret=Secret(), token=Secret(path=file)
        )
        file.unlink()
        wire.cut()
        await until(lambda: system.events("leg denied"))
        assert "No such file" in system.events("leg denied")[0]["reason"]
        file.write_text(token("host"))
        await until(lambda: not host.readiness())


@pytest.mark.parametrize(
    ("relay", "given", "warns"),
    [
        ("ws://relay.example.com", True, True),
        ("ws://192.0.2.1:8080", True, True),
        ("ws://[2001:db8::1]:8080", True, True),
        ("ws://relay.example.com", False, False),
        ("wss://relay.example.com", True, False),
        ("ws://127.0.0.1:8080", True, False),
        ("ws://[::1]:8080", True, False),
        ("ws://localhost:8080", True, False),
    ],
)
def test_a_token_in_clear_is_noticed(relay: str, given: bool, warns: bool) -> None:
    """Over ws:// to anything but this machine."""
    for kind in ("token", "secret"):
        settings = HostSettings(relay=relay, **{kind: Secret("x" if given else "")})  # type: ignore[arg-type]
        assert settings.sends_token_in_clear == warns


async def test_a_token_in_clear_earns_a_warning(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, when the agent starts."""
    async with System() as system:
        await system.host({"mc": Address("127.0.0.1", 1)})
        assert not system.events("token in clear")
        await system.host({"mc": Address("127.0.0.1", 1)}, relay="ws://127.0.0.1.:1", wait=False)
        (line,) = system.events("token in clear")
        assert (line["level"], line["hint"]) == ("warning", "use wss:// outside this machine")


async def test_nothing_secret_is_logged(loop_factory: Any) -> None:
    """At the most talkative level: no token, no secret, no key, in any form, of any service."""
    given = token("client")
    async with serve(echo) as target, System() as system:
        host = await system.host({"mc": target})
        client = await system.client("mc", secret=Secret(), token=Secret(given))
        await exchange(client.ports[0], 100_000)
        instance_key = host.context.dialer._instance_key
        assert instance_key is not None
        headers = bearer("host") | {"Sec-WebSocket-Protocol": SUBPROTOCOL, INSTANCE_KEY_HEADER: f"{instance_key}x"}
        assert (await refused(system, "/host/mc", **headers))[0] == 400
        await refused(system, Authorization=f"Bearer {given}x")
        for path in (f"/client/mc?token={given}x", f"/{given}/client/mc", f"/client/{given}", given, f"/probe{given}"):
            await refused(system, path)
        await until(lambda: len(system.events("stream closed")) == 2)
        for secret in (SECRET, "eyJ", *given.split("."), "Bearer", "token=", instance_key):
            assert secret not in system.raw_log, secret


def test_a_host_name_is_no_loopback() -> None:
    """Not even this machine's own, which is somebody else's elsewhere."""
    name = socket.gethostname()
    if name != "localhost":
        assert HostSettings(relay=f"ws://{name}", secret=Secret("x")).sends_token_in_clear
