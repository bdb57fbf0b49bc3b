"""The soak itself, for a moment: `make soak` is the long one."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from soak.run import Soak

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may wait for a resume window after the end."""
    monkeypatch.setattr("conftest.PATIENCE", 350.0)


async def test_a_short_soak(tmp_path: Path) -> None:
    """Twenty seconds of faults: no byte is lost, no stream is broken, and the figures are written."""
    assert await Soak(20, seed=7, output=tmp_path).run()
    figures = json.loads((tmp_path / "soak.json").read_text())
    assert figures["problems"] == []
    assert figures["streams"]["finished"] > 50
    assert figures["bytes checked"] > 50 << 20
    assert figures["faults"]
    ET.fromstring((tmp_path / "soak.svg").read_text())


async def test_a_soak_of_a_tunnel_that_does_not_resume(tmp_path: Path) -> None:
    """A resume window of a second is over before most faults are: streams are lost, and the soak says so."""
    assert not await Soak(20, seed=7, output=tmp_path, agents=("--resume-window", "1s")).run()
    problems = json.loads((tmp_path / "soak.json").read_text())["problems"]
    assert any("broken and not meant" in problem for problem in problems)
    assert (tmp_path / "client-agent.log").exists()
