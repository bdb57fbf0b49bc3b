"""Every place that configures a service is held against the service's real settings, ports and paths."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import pytest
from client_agent.settings import ClientSettings
from host_agent.settings import HostSettings
from support.deploy import ROOT, kustomize, load, printed, seconds
from tunnel_core import __version__
from tunnel_core.agent.base import LEG_PATIENCE
from tunnel_core.agent.settings import AgentSettings
from tunnel_core.service import settings
from tunnel_core.service.logs import LogSettings
from tunnel_relay.service import CLOSE_PATIENCE
from tunnel_relay.settings import RelaySettings

SERVICES: Final[dict[str, type[LogSettings]]] = {
    "relay": RelaySettings,
    "host-agent": HostSettings,
    "client-agent": ClientSettings,
}
SLACK: Final = 2.0  # seconds that a stop may take besides what it waits for
OVERLAYS: Final = ("k8s/overlays/dev", "k8s/overlays/production", "k8s/overlays/public", "k8s/examples/minecraft")


class Container(NamedTuple):
    """A service as some file has it run."""

    where: str
    service: str
    environ: Mapping[str, str]
    arguments: list[str]
    grace: float  # seconds between SIGTERM and SIGKILL
    before: float  # seconds of them that pass before SIGTERM
    ports: set[int]

    @property
    def settings(self) -> Any:
        """What the service would make of its environment and arguments."""
        model, prefix = SERVICES[self.service], self.service.upper().replace("-", "_")
        parser = settings.parser(self.service, "")
        settings.add_flags(parser, model, prefix)
        return settings.load(model, prefix, parser.parse_args(self.arguments), self.environ)


def image(service: str) -> dict[str, str]:
    """The environment that an image sets."""
    text = (ROOT / service / "Dockerfile").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    return dict(word.split("=", 1) for word in line.split())


def from_compose() -> Iterator[Container]:
    for name, service in load("docker-compose.yml")["services"].items():
        kind = str(service.get("image", "")).removeprefix("tcp-ws-tunnel/")
        if kind in SERVICES and name != "secret":
            ports = {int(port.rpartition(":")[2]) for port in service.get("ports", ())}
            environ = image(kind) | service["environment"]
            yield Container(f"compose {name}", kind, environ, [], seconds(service["stop_grace_period"]), 0, ports)


def from_fly() -> Iterator[Container]:
    fly = tomllib.loads((ROOT / "fly.toml").read_text())
    environ = image("relay") | fly["env"] | {"RELAY_SECRET": "x" * 32}
    ports = {fly["http_service"]["internal_port"], fly["metrics"]["port"]}
    yield Container("fly.toml", "relay", environ, [], seconds(fly["kill_timeout"]), 0, ports)
    fly = tomllib.loads((ROOT / "fly.gateway.toml").read_text())
    environ = image("client-agent") | fly["env"] | {"CLIENT_AGENT_TOKEN": "x"}
    ports = {service["internal_port"] for service in fly["services"]}
    ports |= {fly["metrics"]["port"], *(check["port"] for check in fly["checks"].values())}
    yield Container("fly.gateway.toml", "client-agent", environ, [], seconds(fly["kill_timeout"]), 0, ports)


def from_kubernetes() -> Iterator[Container]:
    for overlay in OVERLAYS:
        objects = kustomize(overlay)
        maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
        for workload in objects:
            if workload["kind"] not in ("Deployment", "StatefulSet"):
                continue
            pod = workload["spec"]["template"]["spec"]
            for container in pod.get("initContainers", []) + pod["containers"]:
                if (kind := container["name"]) not in SERVICES:
                    continue
                environ = image(kind)
                for source in container.get("envFrom", ()):
                    environ |= maps[source["configMapRef"]["name"]]
                environ |= {variable["name"]: variable["value"] for variable in container["env"]}
                before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                if workload["kind"] == "StatefulSet":
                    before = 60  # a sidecar is told after the server has ended
                ports = {port["containerPort"] for port in container["ports"]}
                where = f"{overlay} {workload['metadata']['name']}"
                yield Container(where, kind, environ, [], pod["terminationGracePeriodSeconds"], before, ports)


def from_docs() -> Iterator[Container]:
    for title, kind in (
        ("run a relay", "relay"),
        ("run for the owner", "host-agent"),
        ("run a client-agent", "client-agent"),
    ):
        text = printed("docs/deploy.md", title).replace("\\\n", " ")
        (line,) = (line for line in text.splitlines() if "docker run" in line)
        words = shlex.split(line.replace("$(", "(").replace('"', ""))
        at = words.index(f"tcp-ws-tunnel/{kind}")
        options, arguments = words[:at], words[at + 1 :]
        environ = image(kind)
        for flag, value in itertools.pairwise(options):
            if flag == "-e":
                name, _, given = value.partition("=")
                environ[name] = given or "x" * 32
        grace = float(options[options.index("--stop-timeout") + 1]) if "--stop-timeout" in options else 10.0
        ports = {int(v.rpartition(":")[2]) for f, v in itertools.pairwise(options) if f == "-p"}
        yield Container(f"docs: {title}", kind, environ, arguments, grace, 0, ports)


def containers() -> list[Any]:
    found = [*from_compose(), *from_fly(), *from_docs()]
    if shutil.which("kubectl") is not None:  # test_kubernetes tells of it, if not
        found += from_kubernetes()
    return [pytest.param(container, id=container.where) for container in found]


each = pytest.mark.parametrize("container", containers())


@each
def test_the_settings_are_real_ones(container: Container) -> None:
    """Each variable with the service's prefix is a setting, and its value one that the service takes."""
    prefix = container.service.upper().replace("-", "_") + "_"
    names = {field.name.upper() for field in dataclasses.fields(SERVICES[container.service])}
    for variable in container.environ:
        if variable.startswith(prefix):
            assert variable.removeprefix(prefix).removesuffix("_FILE") in names, variable
    loaded = container.settings
    if isinstance(loaded, AgentSettings):
        assert loaded.relay
        assert loaded.token or loaded.secret
    else:
        assert loaded.secret


@each
def test_it_has_time_to_stop(container: Container) -> None:
    """From SIGTERM to SIGKILL is longer than a drain may take, and than the second in which legs are closed."""
    loaded = container.settings
    is_relay = isinstance(loaded, RelaySettings)
    needs = loaded.drain + CLOSE_PATIENCE if is_relay else loaded.stop_timeout + LEG_PATIENCE
    if isinstance(loaded, ClientSettings) and loaded.is_gateway:
        needs += loaded.drain
    assert container.grace >= container.before + needs + SLACK


@each
def test_the_ports_are_listened_on(container: Container) -> None:
    """Those that are published or named are the service's own."""
    loaded = container.settings
    own = {loaded.admin_port}
    if isinstance(loaded, RelaySettings):
        own.add(loaded.port)
    if isinstance(loaded, ClientSettings):
        own |= {port.port for port in (*loaded.forward, *loaded.public, *loaded.shared)}
        assert loaded.listen_address == "::"
    assert container.ports <= own
    assert loaded.admin_host == "::"


@each
def test_every_deployment_has_a_list_of_revoked_tokens(container: Container) -> None:
    """One that is empty at first, so that to revoke is to write a line."""
    if isinstance(container.settings, RelaySettings):
        assert container.settings.revoked.startswith("/etc/tunnel/revoked")


def test_fly_asks_for_paths_that_there_are() -> None:
    """The health check, and the metrics on the admin port; one machine that is never stopped."""
    fly = tomllib.loads((ROOT / "fly.toml").read_text())
    (check,) = fly["http_service"]["checks"]
    assert check["path"] == "/readyz"
    assert fly["metrics"]["path"] == "/metrics"
    assert fly["kill_signal"] == "SIGTERM"
    assert fly["http_service"]["auto_stop_machines"] == "off"
    assert fly["http_service"]["auto_start_machines"] is True
    (file,) = fly["files"]
    assert file["guest_path"] == fly["env"]["RELAY_REVOKED"]
    assert (ROOT / file["local_path"]).is_file()
    assert fly["http_service"]["min_machines_running"] == 1
    assert fly["deploy"]["strategy"] == "rolling"
    assert (ROOT / fly["build"]["dockerfile"]).is_file()


def test_flys_proxy_tells_the_gateway_who_connects() -> None:
    """It sends the header that the gateway requires; the health check is no visitor."""
    fly = tomllib.loads((ROOT / "fly.gateway.toml").read_text())
    (service,) = fly["services"]
    (port,) = service["ports"]
    assert port["handlers"] == ["proxy_proto"]
    assert fly["env"]["CLIENT_AGENT_PROXY_PROTOCOL_FROM"]
    (check,) = fly["checks"].values()
    assert (check["path"], check["port"]) == ("/readyz", fly["metrics"]["port"])
    assert (ROOT / fly["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("service", SERVICES)
def test_the_images_tell_their_version(service: str) -> None:
    """The label of the image and the tags in the manifests are the version of the code."""
    assert f'org.opencontainers.image.version="{__version__}"' in (ROOT / service / "Dockerfile").read_text()
    for path in (ROOT / "k8s").rglob("kustomization.yaml"):
        for tag in re.findall(r"newName: registry\S+ newTag: ([^,}\s]+)", path.read_text()):
            assert tag == __version__, path


def test_the_images_are_built_alike() -> None:
    """Up to its last stage each Dockerfile is the same but for the service's name and its requirements."""
    stages = []
    for service in SERVICES:
        text = (ROOT / service / "Dockerfile").read_text().rpartition("\nFROM ")[0]
        stages.append(text[text.index("\n\n") :].replace(f"{service}/requirements.txt", "requirements.txt"))
    assert stages[0] == stages[1] == stages[2]


@pytest.mark.parametrize("service", SERVICES)
def test_the_images_need_no_shell_and_no_root(service: str) -> None:
    """A numeric user, exec forms, and the service's own health command."""
    lines = (ROOT / service / "Dockerfile").read_text().splitlines()
    assert "USER 65532:65532" in lines
    assert f'ENTRYPOINT ["{service}"]' in lines
    (health,) = (line for line in lines if line.startswith("HEALTHCHECK"))
    assert health.endswith(f'CMD ["{service}", "health"]')
    (last,) = (n for n, line in enumerate(lines) if line == "FROM python:3.13-slim")
    assert sum(line.startswith("FROM python:3.13-slim") for line in lines) == 3
    assert last > 0


@pytest.mark.parametrize("page", ["README.md", "docs/deploy.md"])
def test_docker_run_lines_bound_the_log(page: str) -> None:
    """By default Docker keeps a container's log whole, however long it gets."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("docker run -d")]
    assert lines
    assert all("--log-opt max-size=10m --log-opt max-file=3" in line for line in lines)
