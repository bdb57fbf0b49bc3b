"""Images, compose and the docker run lines, as a new user has them: `make test-containers`.

It uses the engine that the docker command reaches. ENGINE_EXEC is a command that others are run
under to reach the ports that containers publish, where those are not this machine's own
(default: none). The ports of docker-compose.yml must be free.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.deploy import ROOT, printed, tool, unavailable, until
from support.terminal import Terminal

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

PROJECT: Final = "tunnel-e2e"
ENGINE_EXEC: Final = shlex.split(os.environ.get("ENGINE_EXEC", ""))
ENVIRON: Final = os.environ | {"COMPOSE_PROJECT_NAME": PROJECT}
BASE: Final = "python:3.13-slim"
SERVICES: Final = ("relay", "host-agent", "client-agent")
MOST_ADDED: Final = 40_000_000  # bytes of an image on top of its base
STREAMS, MIB = 8, 16


def say(text: str) -> None:
    print(text, flush=True)


def docker(*words: str, timeout: float = 300, environ: dict[str, str] | None = None, given: str | None = None) -> str:
    """Run docker in the root of the tree; returns what it prints. Fails the test if it fails."""
    done = attempt("docker", *words, timeout=timeout, environ=environ, given=given)
    assert done.returncode == 0, f"docker {shlex.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def attempt(
    *words: str, timeout: float = 300, environ: dict[str, str] | None = None, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command, which may fail."""
    return subprocess.run(
        words, cwd=ROOT, env=ENVIRON | (environ or {}), text=True, capture_output=True,
        timeout=timeout, input=given, check=False,
    )  # fmt: skip


def compose(*words: str, timeout: float = 300) -> str:
    return docker("compose", *words, timeout=timeout)


def logged(service: str, event: str) -> list[dict[str, Any]]:
    """The lines of one event in a service's log."""
    lines = compose("logs", "--no-log-prefix", "--no-color", service).splitlines()
    events = [json.loads(line[line.index("{") :]) for line in lines if "{" in line]
    return [line for line in events if line["event"] == event]


@pytest.fixture(scope="module")
def engine() -> None:
    """A Docker engine, with compose."""
    if shutil.which("docker") is None:
        unavailable("no docker command, so no container was tried")
    for words in (("version",), ("compose", "version")):
        done = attempt("docker", *words, timeout=60)
        if done.returncode:
            unavailable(f"no Docker engine: 'docker {shlex.join(words)}' says {done.stderr.strip()[-200:]}")


@pytest.fixture(scope="module")
def images(engine: None) -> None:
    """The three images, as the page of deployment has them built."""
    began = time.monotonic()
    done = attempt("bash", "-euc", printed("docs/deploy.md", "build the images"), timeout=600)
    assert done.returncode == 0, done.stderr
    say(f"built the three images in {time.monotonic() - began:.1f} s")


@pytest.fixture(scope="module")
def up(images: None) -> Iterator[None]:
    """The whole of compose, ready, from a checkout that has no images yet: it builds them, and asks no registry."""
    docker("rmi", "-f", *(f"tcp-ws-tunnel/{service}" for service in SERVICES))
    began = time.monotonic()
    try:
        done = attempt("bash", "-euc", printed("docs/deploy.md", "compose up"))
        assert done.returncode == 0, done.stderr + compose("logs")
        say(f"compose was up and healthy in {time.monotonic() - began:.1f} s")
        yield
    finally:
        docker("compose", "--profile", "*", "down", "--volumes", "--remove-orphans")


# Images.


def healthy(container: str) -> bool:
    """What the image's own health check says."""
    return docker("inspect", "-f", "{{.State.Health.Status}}", container).strip() == "healthy"


def layers(image: str) -> list[str]:
    return list(json.loads(docker("image", "inspect", image))[0]["RootFS"]["Layers"])


def size(image: str) -> int:
    return int(json.loads(docker("image", "inspect", image))[0]["Size"])


def test_images_are_small(images: None) -> None:
    """What a service adds to its base image, and what the three have in common."""
    base = layers(BASE)
    for service in SERVICES:
        image = f"tcp-ws-tunnel/{service}"
        assert layers(image)[: len(base)] == base
        added = size(image) - size(BASE)
        say(f"{image}: {added / 1e6:.1f} MB on top of {size(BASE) / 1e6:.0f} MB of {BASE}")
        assert added <= MOST_ADDED


def test_a_change_of_sources_builds_a_small_layer_anew(images: None, tmp_path: Path) -> None:
    """In seconds: what the service needs is not installed again."""
    context = tmp_path / "context"
    lets_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in (*lets_in, ".dockerignore"):
        source = ROOT / path
        if source.is_dir():
            shutil.copytree(source, context / path, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            context.mkdir(exist_ok=True)
            shutil.copy2(source, context / path)
    with (context / "relay/src/tunnel_relay/service.py").open("a") as file:
        file.write(f"\n# changed at {time.time()}\n")
    began = time.monotonic()
    done = attempt("docker", "build", "--progress", "plain", "-f", str(context / "relay/Dockerfile"), str(context))
    assert done.returncode == 0, done.stderr
    say(f"built the relay's image after a change of its sources in {time.monotonic() - began:.1f} s")
    steps = dict(re.findall(r"^#(\d+) \[(?:.*?)\] (RUN .*)$", done.stderr, re.MULTILINE))
    cached = {steps[number] for number in re.findall(r"^#(\d+) CACHED$", done.stderr, re.MULTILINE) if number in steps}
    assert any("--require-hashes -r /build/requirements.txt" in step for step in cached)
    assert not any(step.startswith("RUN pip wheel") for step in cached)


@pytest.mark.parametrize("service", SERVICES)
def test_images_need_neither_root_nor_a_place_to_write(images: None, service: str) -> None:
    """They start without any of it, as a numeric user."""
    image = f"tcp-ws-tunnel/{service}"
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == [service]
    assert config["Healthcheck"]["Test"] == ["CMD", service, "health"]
    assert {"title", "description", "version", "licenses"} <= {
        label.removeprefix("org.opencontainers.image.") for label in config["Labels"]
    }
    told = docker("run", "--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", image, "--version")
    assert told.startswith(f"{service} ")
    done = attempt("docker", "run", "--rm", "--read-only", "--network", "none", image)
    assert done.returncode == 2, "without settings it says what is missing"
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_first_process_obeys_signals(images: None) -> None:
    """As PID 1 it drains on SIGTERM and ends by itself, with exit code 0."""
    name = f"{PROJECT}-signals"
    docker("run", "-d", "--name", name, "-e", "RELAY_DRAIN=0", "tcp-ws-tunnel/relay", "--auth", "none")
    try:
        until(lambda: "listening" in attempt("docker", "logs", name).stderr)
        until(lambda: healthy(name))
        docker("stop", "-t", "60", name)
        assert docker("inspect", "-f", "{{.State.ExitCode}}", name).strip() == "0"
    finally:
        docker("rm", "-f", name)


# Compose.


class Traffic:
    """The profile `test`, while something else happens."""

    def __init__(self, seconds: int = 0, size: int = MIB) -> None:
        before = len(logged("client-agent", "stream opened"))
        words = ("--streams", str(STREAMS), "--size", str(size), "--seconds", str(seconds), "--json")
        self._process = subprocess.Popen(
            ["docker", "compose", "--profile", "test", "run", "--rm", "-T", "traffic", *words],
            cwd=ROOT, env=ENVIRON, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if seconds:
            until(lambda: len(logged("client-agent", "stream opened")) >= before + STREAMS)

    def done(self) -> tuple[int, dict[str, Any]]:
        """Wait for the end. Returns the exit code and the report."""
        out, err = self._process.communicate(timeout=300)
        assert out.startswith("{"), err
        say(f"traffic: {out.strip()}")
        return self._process.returncode, json.loads(out)

    @property
    def running(self) -> bool:
        return self._process.poll() is None


def test_traffic_goes_through(up: None) -> None:
    """The profile `test`: every byte is there and back, by SHA-256."""
    code, report = Traffic().done()
    assert (code, report["problems"]) == (0, [])
    assert report["bytes_verified"] == STREAMS * MIB << 20


def test_the_published_port_is_the_tunnels(up: None) -> None:
    """127.0.0.1:25565, as a newcomer uses it; and the relay's, where a proxy would."""
    done = attempt(*ENGINE_EXEC, sys.executable, "-m", "demo.traffic", "127.0.0.1:25565", "--size", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/readyz').read().decode())"
    assert attempt(*ENGINE_EXEC, sys.executable, "-c", ask).stdout.strip() == "ready"


def test_the_secret_is_for_the_services_alone(up: None) -> None:
    """A file that only the images' user may read, in no log and no setting; it stays when compose is run again."""
    look = "import os; s = os.stat('/v/secret'); print(oct(s.st_mode), s.st_uid, open('/v/secret').read().strip())"
    volume = f"{PROJECT}_secret:/v:ro"
    mode, owner, secret = docker("run", "--rm", "--user", "65532", "-v", volume, BASE, "python", "-c", look).split()
    assert (mode, owner) == ("0o100600", "65532")
    other = attempt("docker", "run", "--rm", "--user", "1000", "-v", volume, BASE, "python", "-c", look)
    assert "PermissionError" in other.stderr
    assert secret not in compose("logs")
    assert secret not in docker("inspect", *compose("ps", "-aq").split())
    compose("up", "-d", "--wait")
    assert docker("run", "--rm", "--user", "65532", "-v", volume, BASE, "python", "-c", look).split()[2] == secret


class Connection:
    """One connection to the published port, from where that is reached."""

    CODE: Final = """
import socket, sys
with socket.create_connection(("127.0.0.1", 25565), timeout=60) as sock:
    for line in sys.stdin.buffer:
        sock.sendall(line)
        print("echoed" if sock.recv(len(line), socket.MSG_WAITALL) == line else "closed", flush=True)
"""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [*ENGINE_EXEC, sys.executable, "-c", self.CODE],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self) -> str:
        """Send a line and wait for its echo: "echoed", or "closed"."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("hello\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate()


def test_another_up_and_run_leave_connections_alone(up: None) -> None:
    """Neither recreates anything: the same containers run, and the stream never lost its leg."""
    running = compose("ps", "-q")
    connection = Connection()
    assert connection.ask() == "echoed"
    lost = len(logged("client-agent", "leg lost"))
    for words in (("up", "-d"), ("up", "-d", "--wait"), ("--profile", "test", "run", "--rm", "traffic", "--size", "1")):
        compose(*words)
        assert connection.ask() == "echoed", words
        assert compose("ps", "-q") == running, words
    assert len(logged("client-agent", "leg lost")) == lost
    connection.close()


def test_a_revoked_token_is_no_good_any_more(up: None, tmp_path: Path) -> None:
    """The steps of the page: a line more in the file, and the running relay refuses the token."""
    file = ROOT / "revoked/tokens"
    before = file.read_bytes()
    (tmp_path / "revoked").symlink_to(file.parent)
    words = ("relay", "token", "--role", "client", "--tunnel", "demo", "--subject", "alex")
    token = compose("exec", "-T", "relay", *words)
    (tmp_path / "alex.token").write_text(token)

    def status() -> int:
        """The relay's answer to a leg with that token."""
        code = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
           "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Authorization": "Bearer " + sys.argv[1]}
connection.request("GET", "/client/demo", headers=headers)
print(connection.getresponse().status)
"""
        return int(attempt(*ENGINE_EXEC, sys.executable, "-c", code, token.strip()).stdout)

    assert status() == 101
    try:
        text = printed("docs/deploy.md", "revoke a token")
        subprocess.run(["bash", "-euc", text], cwd=tmp_path, env=ENVIRON, timeout=60, check=True)
        until(lambda: status() == 403)
    finally:
        file.write_bytes(before)
    until(lambda: status() == 101)


def test_the_relay_is_killed_and_restarted_during_a_transfer(up: None) -> None:
    """SIGKILL and a start, then a restart: no connection breaks, no byte is lost."""
    seen = len(logged("client-agent", "stream resumed"))
    traffic = Traffic(seconds=25)
    compose("kill", "-s", "SIGKILL", "relay")
    until(lambda: len(logged("client-agent", "relay unreachable")))
    compose("start", "relay")
    until(lambda: len(logged("client-agent", "stream resumed")) >= seen + STREAMS)
    compose("restart", "relay")
    until(lambda: len(logged("client-agent", "stream resumed")) >= seen + 2 * STREAMS)
    assert traffic.running, "the transfer must outlast what it is to survive"
    code, report = traffic.done()
    assert (code, report["problems"]) == (0, [])
    assert report["bytes_verified"] == STREAMS * MIB << 20
    resumed = logged("client-agent", "stream resumed")[seen:]
    for what, lines in (("killed", resumed[:STREAMS]), ("restarted", resumed[STREAMS:])):
        pauses = [line["paused_ms"] for line in lines]
        say(f"{what}: {len(lines)} streams resumed, paused for {min(pauses)} to {max(pauses)} ms")


def test_a_loss_is_told(up: None) -> None:
    """The traffic's own judgement: a host-agent that stops resets its streams, and the exit code is 1."""
    traffic = Traffic(seconds=30)
    compose("stop", "host-agent")
    code, report = traffic.done()
    assert code == 1
    assert len(report["problems"]) >= STREAMS
    compose("up", "-d", "--wait")


def test_one_stream_is_followed_through_the_logs(up: None) -> None:
    """The command of the page, word for word: all three services tell of the same stream, in order."""
    tool("jq")
    Traffic(size=1).done()
    stream = logged("relay", "paired")[-1]["stream"]
    command = printed("docs/deploy.md", "follow one stream")
    done = attempt("bash", "-euc", command, environ={"STREAM": stream})
    assert done.returncode == 0, done.stderr
    say(done.stdout)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["service"] for line in lines} == set(SERVICES)
    assert {line["stream"] for line in lines} == {stream}
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    assert {"stream opening", "paired", "stream opened", "stream closed"} <= {line["event"] for line in lines}


def stand_in(tmp_path: Path, service: str, dockerfile: str) -> list[str]:
    """An image of our own for a service of compose whose own image is not at hand: the flags that put it there."""
    (tmp_path / "Dockerfile").write_text(dockerfile)
    docker("build", "-q", "-t", f"{PROJECT}/{service}", str(tmp_path))
    override = tmp_path / "override.yml"
    override.write_text(json.dumps({"services": {service: {"image": f"{PROJECT}/{service}"}}}))
    return ["-f", str(ROOT / "docker-compose.yml"), "-f", str(override)]


def test_the_profile_minecraft(up: None, tmp_path: Path) -> None:
    """Its host-agent beside it, and the client-agent's second port: with an echo in the place of Minecraft."""
    (tmp_path / "server.py").write_bytes((ROOT / "demo/server.py").read_bytes())
    files = stand_in(
        tmp_path,
        "minecraft",
        f"""FROM {BASE}
COPY server.py /
HEALTHCHECK --interval=1s CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 25565), 3)"]
CMD ["python", "/server.py", "0.0.0.0:25565"]
""",
    )
    compose(*files, "--profile", "minecraft", "up", "-d", "--wait", "minecraft", "minecraft-host-agent")
    done = attempt(*ENGINE_EXEC, sys.executable, "-m", "demo.traffic", "127.0.0.1:25566", "--size", "1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_profile_monitoring(up: None, tmp_path: Path) -> None:
    """Prometheus finds all three services, loads the alerts, and answers every question of the dashboard."""
    files: list[str] = []
    if attempt("docker", "image", "inspect", prometheus_image()).returncode:
        binary = tool("prometheus")  # of this machine, in an image of our own
        shutil.copy2(binary, tmp_path / "prometheus")
        files = stand_in(
            tmp_path,
            "prometheus",
            f"""FROM {BASE}
COPY prometheus /bin/
RUN install -d -o 65534 -g 65534 /prometheus
USER 65534:65534
ENTRYPOINT ["/bin/prometheus"]
""",
        )
    compose(*files, "--profile", "monitoring", "up", "-d", "--no-deps", "prometheus")

    def query(path: str) -> Any:
        code = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
        url = f"http://127.0.0.1:9099/api/v1/{path}"
        done = attempt(*ENGINE_EXEC, sys.executable, "-c", code, url)
        return json.loads(done.stdout)["data"] if done.returncode == 0 else None

    def jobs_up() -> set[str]:
        answer = query("query?query=up")
        return (
            {series["metric"]["job"] for series in answer["result"] if series["value"][1] == "1"} if answer else set()
        )

    until(lambda: jobs_up() == set(SERVICES))
    (group,) = query("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    dashboard = json.loads((ROOT / "observability/grafana/dashboards/tunnel.json").read_text())
    silent = [panel for panel in dashboard["panels"] if "targets" in panel]
    say(f"Prometheus scrapes all three; {len(silent)} panels ask it")

    def all_answered() -> bool:
        silent[:] = [panel for panel in silent if not any(map(answers(query), panel["targets"]))]
        return not silent

    traffic = Traffic(seconds=20)
    until(all_answered, pause=1)  # rates need two scrapes
    assert traffic.done()[0] == 0


def answers(query: Callable[[str], Any]) -> Callable[[dict[str, Any]], bool]:
    """Whether Prometheus has anything to show for a target of a panel."""

    def ask(target: dict[str, Any]) -> bool:
        expression = target["expr"]
        for variable, value in {"$__rate_interval": "1m", "$__range": "1h", "$tunnel": ".*"}.items():
            expression = expression.replace(variable, value)
        found = query(f"query?query={urllib.parse.quote(expression)}")
        assert found is not None, f"Prometheus does not take: {expression}"
        return bool(found["result"])

    return ask


def prometheus_image() -> str:
    found = re.search(r"image: (prom/prometheus:\S+)", (ROOT / "docker-compose.yml").read_text())
    assert found is not None
    return found[1]


# docker run, as printed.


def joined_on_a_terminal(link: str) -> None:
    """`docker run -it … join`, as a friend has it: it asks for the link, connects, and Ctrl-C ends it."""
    words = shlex.split(printed("docs/join.md", "join with Docker").replace("127.0.0.1:25565:", "127.0.0.1:25567:"))
    with Terminal(str(shutil.which(words[0])), *words[1:], **ENVIRON) as terminal:
        until(lambda: terminal.shows("Paste your link"))
        terminal.types(f"{link}\r")
        until(lambda: terminal.shows("connected: add the server 127.0.0.1:25565 in Minecraft"))
        assert not terminal.shows(".*LAN worlds"), "no game listens in a container"
        done = attempt(*ENGINE_EXEC, sys.executable, "-m", "demo.traffic", "127.0.0.1:25567", "--size", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        terminal.types("\x03")
        assert terminal.ended() == 0
        until(lambda: terminal.shows("disconnected after "))


def test_the_docker_run_lines(images: None, tmp_path: Path) -> None:
    """The relay, the tokens, the owner beside a Minecraft container, and the friend: each line as printed.

    Only what stands for the reader's own is replaced: the relay's address, and names, so that
    they do not meet containers of the machine that the test runs on.
    """
    compose("down", "--remove-orphans")  # it has the same ports
    network = f"{PROJECT}-minecraft"
    names = {
        "--name relay": f"{PROJECT}-relay",
        "--name mc-tunnel": f"{PROJECT}-owner",
        "--name tunnel": f"{PROJECT}-friend",
        "--name client": f"{PROJECT}-client",
    }

    def as_printed(title: str, relay: str = "") -> str:
        text = printed("docs/deploy.md", title).replace("wss://relay.example.com", relay)
        for flag, name in names.items():
            text = re.sub(rf"{flag}\b(?!-)", f"--name {name}", text)
        text = text.replace("--network minecraft", f"--network {network}")
        text = text.replace("network create minecraft", f"network create {network}")
        text = text.replace(
            "network connect minecraft minecraft", f"network connect --alias minecraft {network} {PROJECT}-server"
        )
        done = subprocess.run(
            ["bash", "-euc", text], cwd=tmp_path, env=ENVIRON, text=True, capture_output=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        return text

    containers = [*names.values(), f"{PROJECT}-server"]
    try:
        docker(
            "run", "-d", "--name", f"{PROJECT}-server",
            "-v", f"{ROOT / 'demo'}:/demo:ro", BASE, "python", "-m", "demo.server", "0.0.0.0:25565",
        )  # fmt: skip
        as_printed("run a relay")
        as_printed("make the owner's token")
        assert (tmp_path / "mc.token").read_text().startswith("eyJ")
        as_printed("make a client token")
        relay = names["--name relay"]
        address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", relay).strip()
        as_printed("a network for both")
        docker("network", "connect", network, relay)
        as_printed("run for the owner", f"ws://{relay}:8080")
        as_printed("make an invite", f"ws://{address}:8080")
        as_printed("join in the background")
        as_printed("run a client-agent", f"ws://{address}:8080")
        until(lambda: all(map(healthy, names.values())))
        for port in (25565, 25566):
            done = attempt(*ENGINE_EXEC, sys.executable, "-m", "demo.traffic", f"127.0.0.1:{port}", "--size", "2")
            assert done.returncode == 0, done.stdout + done.stderr
        friend = names["--name tunnel"]
        link = (tmp_path / "alex.link").read_text().strip()
        assert link.partition("#")[2] not in attempt("docker", "logs", friend).stderr
        assert "#1." not in docker("top", friend, "-o", "pid,args")
        joined_on_a_terminal(link)
        for service, name in (("host-agent", names["--name mc-tunnel"]), ("client-agent", names["--name client"])):
            said = docker("exec", name, service, "doctor")
            assert "FAIL" not in said, said
        said = docker("exec", friend, "tcp-ws-tunnel", "doctor")
        assert "FAIL" not in said, said
        connection = Connection()
        assert connection.ask() == "echoed"
        began = time.monotonic()
        docker("stop", "-t", "10", relay)  # Docker's default: there is no other relay to wait for
        assert docker("inspect", "-f", "{{.State.ExitCode}}", relay).strip() == "0"
        docker("start", relay)
        say(f"the relay was stopped and started in {time.monotonic() - began:.1f} s")
        assert connection.ask() == "echoed"
        connection.close()
        for name in names.values():
            docker("stop", name)  # with the grace of its own line
            assert docker("inspect", "-f", "{{.State.ExitCode}}", name).strip() == "0", name
    finally:
        attempt("docker", "rm", "-f", *containers)
        attempt("docker", "network", "rm", network)
