"""The soak itself, for a moment: `make soak` is the long one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from soak.chaos import Chaos
from soak.run import Soak

# It waits for streams whose agent ended for two minutes and a half, and then for all to come to rest.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

SECONDS = 20


def test_a_short_soak(tmp_path: Path) -> None:
    """Twenty seconds of faults: no byte is lost, no stream is broken, and the figures are written."""
    assert asyncio.run(Soak(SECONDS, seed=7, output=tmp_path).run())
    figures = json.loads((tmp_path / "soak.json").read_text())
    assert figures["problems"] == []
    assert figures["streams"]["finished"] > 20
    assert figures["bytes checked"] > 20 << 20
    assert figures["faults"]
    ET.fromstring((tmp_path / "soak.svg").read_text())


def test_a_soak_of_a_tunnel_that_does_not_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay is away for longer than the resume window: streams are lost, and the soak says so."""

    async def one_outage(chaos: Chaos, seconds: float) -> None:
        await asyncio.sleep(seconds / 4)  # the outage is where it is, and as long as it is
        chaos._relay.kill()
        await asyncio.sleep(seconds / 4)
        await chaos._start(chaos._relay)
        await asyncio.sleep(seconds / 2)

    monkeypatch.setattr(Chaos, "run", one_outage)
    assert not asyncio.run(Soak(SECONDS, seed=7, output=tmp_path, agents=("--resume-window", "1s")).run())
    problems = json.loads((tmp_path / "soak.json").read_text())["problems"]
    assert any("broken and not meant" in problem for problem in problems)
    assert (tmp_path / "client-agent.log").exists()
