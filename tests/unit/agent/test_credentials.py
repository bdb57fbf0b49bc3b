"""Where tokens come from, by whose clock they are made, and what is said of those that are refused."""

from __future__ import annotations

import email.utils
from types import SimpleNamespace
from typing import Any

import pytest
from tunnel_core.agent import credentials
from tunnel_core.agent.credentials import Credentials, RelayClock
from tunnel_core.errors import AccessDenied
from tunnel_core.protocol import tokens
from tunnel_core.service.settings import Secret

SECRET = "0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000.0
HOUR = 3600.0


class Agent:
    """The credentials of an agent whose clock tells `now`, and what it heard of clocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, token: str = "", trusted: bool = True) -> None:
        self.now = NOW
        self.told: list[str] = []
        monkeypatch.setattr(credentials, "time", SimpleNamespace(time=lambda: self.now))
        self.clock = RelayClock(lambda: self.told.append(str(self.clock)))
        secret = Secret() if token else Secret(SECRET)
        self.credentials = Credentials("client", Secret(token), secret, self.clock, trusted=trusted)

    def expires(self) -> float:
        """When the token that it would show now is over."""
        return tokens.read(self.credentials("mc") or "").expires

    def explained(self, reason: str) -> tuple[str, str]:
        denied = self.credentials.explain(AccessDenied(reason), "mc")
        return denied.reason, denied.advice


def date(seconds: float) -> str:
    """As a relay tells the time."""
    return email.utils.formatdate(seconds, usegmt=True)


def made(expires: float) -> str:
    return tokens.issue(SECRET.encode(), role="client", tunnels=["mc"], subject="x", expires=expires)


def test_tokens_are_made_by_the_relays_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as an answer has told it; the same is shown until it is almost over, or the clocks move."""
    agent = Agent(monkeypatch)
    assert agent.expires() == NOW + credentials.LIFETIME
    agent.credentials.learn(date(NOW + HOUR))
    assert agent.expires() == NOW + HOUR + credentials.LIFETIME
    first = agent.credentials("mc")
    agent.credentials.learn(date(NOW + HOUR + 2))
    assert agent.credentials("mc") == first, "a second or two is the way here"
    agent.now += credentials.LIFETIME - credentials.MARGIN + 1
    assert agent.credentials("mc") != first
    agent.now = NOW + HOUR  # the clock was set
    agent.credentials.learn(date(NOW + HOUR))
    assert agent.expires() == NOW + HOUR + credentials.LIFETIME


def test_passing_time_does_not_change_the_clock_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the relay's answer, such as the further steps of a doctor, takes its time."""
    agent = Agent(monkeypatch)
    agent.credentials.learn(date(NOW))
    agent.now += 60
    assert not agent.clock.differs
    assert agent.clock.now() == agent.now


def test_a_clock_that_cannot_be_believed_makes_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over ws:// anybody could tell a date far ahead, and keep the token that is made by it; told of it is."""
    agent = Agent(monkeypatch, trusted=False)
    agent.credentials.learn(date(NOW + 1000 * HOUR))
    assert agent.expires() == NOW + credentials.LIFETIME
    assert agent.told == ["41.7 days behind the relay's"]


def test_the_clock_difference_is_reported_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for what tokens leave room for, nor by what is no date."""
    agent = Agent(monkeypatch)
    for seconds in (0, 20, HOUR, HOUR + 1, -2 * HOUR, 0):
        agent.credentials.learn(date(NOW + seconds))
    for text in ("", "yesterday"):
        agent.credentials.learn(text)
    assert agent.told == ["60 min behind the relay's", "2 h ahead of the relay's", "0 s behind the relay's"]


@pytest.mark.parametrize("ahead", [0, HOUR, -HOUR])
def test_nobody_with_a_wrong_clock_is_sent_for_a_new_token(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    """Unless the clock turns out to be right."""
    said = "the relay refuses this client: the token has expired"
    for token in ("", made(NOW)):
        agent = Agent(monkeypatch, token=token)
        agent.credentials.learn(date(NOW - ahead))
        reason, advice = agent.explained(f"{said}: ask for a new one")
        assert reason == said
        if ahead == 0:
            assert advice == "ask for a new one"
        else:
            assert advice.startswith(
                f"this machine's clock is 60 min {'ahead of' if ahead > 0 else 'behind'} the relay's"
            )
            assert advice.endswith("set it (NTP)" if not token else "or ask for a new token if it is right")


@pytest.mark.parametrize(
    ("token", "said", "advice"),
    [
        ("", "the token is not valid", "the secret is not this relay's"),
        (made(NOW), "the token is not valid", "it was made with another secret than this relay's"),
        (made(NOW), "the token does not allow this", "ask for one made with --role client --tunnel mc, and without"),
        (made(NOW), "a token is needed", "give one with --token-file"),
        (made(NOW), "the token was revoked: ask for a new one", ""),
    ],
)
def test_each_refusal_has_its_own_advice(monkeypatch: pytest.MonkeyPatch, token: Any, said: str, advice: str) -> None:
    """What the relay says, and what to do about it."""
    reason, advised = Agent(monkeypatch, token=token).explained(said)
    assert reason == said
    assert advised.startswith(advice)
    assert bool(advised) == bool(advice)
