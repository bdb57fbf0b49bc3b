"""The pinned requirements: whether they still satisfy what the sources ask for. Offline."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
SERVICES = ("relay", "host-agent", "client-agent")
FILES = (*(f"{service}/requirements.txt" for service in SERVICES), "requirements-build.txt", "requirements-dev.txt")
EACH_FILE = pytest.mark.parametrize("path", FILES)
# And those that are installed for one purpose only. (That of the fuzzers pins a package twice, for different Pythons.)
OTHERS = ("requirements-deploy.txt", "requirements-security.txt")
EACH_FILE_OF_ALL = pytest.mark.parametrize("path", (*FILES, *OTHERS))
# Where the services are to run.
PLACES = [
    {
        "sys_platform": platform,
        "platform_system": system,
        "os_name": "nt" if platform == "win32" else "posix",
        "python_version": version,
        "python_full_version": f"{version}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    for (platform, system), version in itertools.product(
        [("linux", "Linux"), ("darwin", "Darwin"), ("win32", "Windows")], ["3.11", "3.12", "3.13", "3.14"]
    )
]


def lines(path: str) -> Iterator[str]:
    """The logical lines of a requirements file, without comments."""
    text = (ROOT / path).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


def pins(path: str) -> dict[str, Requirement]:
    """What a requirements file pins, by name."""
    found = [Requirement(re.sub(r"\s+--hash=\S+", "", line)) for line in lines(path)]
    names = [canonicalize_name(requirement.name) for requirement in found]
    assert len(set(names)) == len(names), "a name is pinned twice"
    return dict(zip(names, found, strict=True))


def version(requirement: Requirement) -> str:
    """The one version that a pin means."""
    (only,) = requirement.specifier
    assert only.operator == "=="
    assert not only.version.endswith("*")
    return only.version


def asked_for(*extras: str) -> list[Requirement]:
    """What the distribution depends on, and its extras besides."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [Requirement(text) for text in itertools.chain(project["dependencies"], *(optional[e] for e in extras))]


def unsatisfied(wanted: list[Requirement], pinned: dict[str, Requirement]) -> list[str]:
    """Which of `wanted` the pins do not satisfy, and where."""
    out = []
    for requirement, place in itertools.product(wanted, PLACES):
        if requirement.marker is not None and not requirement.marker.evaluate(place):
            continue
        pin = pinned.get(canonicalize_name(requirement.name))
        if pin is None or (pin.marker is not None and not pin.marker.evaluate(place)):
            out.append(f"{requirement} is not pinned for {place['sys_platform']} {place['python_version']}")
        elif not requirement.specifier.contains(version(pin)):
            out.append(f"{requirement} is pinned to {version(pin)}")
    return out


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_all_that_it_asks_for(service: str) -> None:
    """Its requirements satisfy the distribution, the relay's also the extra `relay`: `make requirements` pins anew."""
    wanted = asked_for(*(["relay"] if service == "relay" else []))
    assert wanted
    assert unsatisfied(wanted, pins(f"{service}/requirements.txt")) == []
    assert "tcp-ws-tunnel" not in pins(f"{service}/requirements.txt")


@pytest.mark.parametrize("group", ["build", "dev"])
def test_the_tools_are_pinned(group: str) -> None:
    """Each dependency group has its file."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert unsatisfied([Requirement(text) for text in groups[group]], pins(f"requirements-{group}.txt")) == []


def test_ci_installs_nothing_that_is_not_pinned() -> None:
    """Neither it nor make: each `pip install` is of a file with hashes, or of this tree without what that needs."""
    for path in (".ci/run", "Makefile"):
        text = (ROOT / path).read_text().replace("\\\n", " ")
        commands = re.findall(r"pip install .*", text)
        assert commands, path
        for command in commands:
            assert "--require-hashes" in command or "--no-deps" in command, command


@EACH_FILE_OF_ALL
def test_pins_have_hashes(path: str) -> None:
    """Each of them, so that nothing else than what was looked at is ever installed."""
    for line in lines(path):
        hashes = re.findall(r"--hash=(\S+)", line)
        assert hashes, line
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", value) for value in hashes)
    for pin in pins(path).values():
        assert version(pin)


@EACH_FILE_OF_ALL
def test_no_file_says_where_to_download(path: str) -> None:
    """Neither an index nor an address: whoever installs has one of their own."""
    text = (ROOT / path).read_text()
    assert "://" not in text
    assert not re.search(r"(?m)^\s*(-i|-f|-e|--index-url|--extra-index-url|--find-links|--trusted-host)\b", text)
    assert all(pin.url is None for pin in pins(path).values())


def test_the_files_agree() -> None:
    """The services share their pins, and the tools run with the same."""
    first, *rest = (pins(f"{service}/requirements.txt") for service in SERVICES)  # the relay needs the most
    for other in rest:
        assert {name: str(pin) for name, pin in other.items()}.items() <= {
            n: str(pin) for n, pin in first.items()
        }.items()
    for path in ("requirements-build.txt", "requirements-dev.txt"):
        for name, pin in pins(path).items():
            assert name not in first or version(pin) == version(first[name]), f"{name} in {path}"


@EACH_FILE
def test_the_pins_are_complete(path: str) -> None:
    """As far as this machine goes: what a pinned package asks for is pinned, too."""
    pinned = pins(path)
    extras = {name: requirement.extras for name, requirement in pinned.items()}
    for requirement in asked_for("relay"):
        extras[canonicalize_name(requirement.name)] = requirement.extras
    services = pins("relay/requirements.txt")
    looked_at = 0
    for name, pin in pinned.items():
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        looked_at += 1
        assert importlib.metadata.version(name) == version(pin), f"{name}: not the pinned version is installed"
        for text in importlib.metadata.requires(name) or ():
            wanted = Requirement(text)
            if wanted.marker is None or any(
                wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras.get(name, ()))
            ):
                found = (pinned | services).get(canonicalize_name(wanted.name))
                assert found is not None, f"{name} needs {wanted}"
                assert wanted.specifier.contains(version(found), prereleases=True), f"{name} needs {wanted}"
    assert looked_at
