"""The manifests on a real Kubernetes: `make test-k8s`. What it prints is in docs/deploy.md.

KUBECTL is the command that reaches the cluster (default: kubectl). Its nodes must have the images
tcp-ws-tunnel/{relay,host-agent,client-agent} and python:3.13-slim.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

import pytest
import yaml
from support.deploy import kustomize, one, unavailable, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

KUBECTL: Final = shlex.split(os.environ.get("KUBECTL", "kubectl"))
STREAMS, MIB, SECONDS = 6, 32, 40  # and so long at least, so that the relay's end falls into the transfer
SLEEP: Final = "import sys, time; time.sleep(float(sys.argv[1]))"


# Connects anew twenty times a second, and prints how many connections came to nothing.
NEWCOMERS: Final = """
import json, socket, sys, time
host, _, port = sys.argv[1].rpartition(":")
tried, failed, slowest, end = 0, [], 0.0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    tried, begun = tried + 1, time.monotonic()
    try:
        with socket.create_connection((host, int(port)), timeout=30) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
    except (OSError, AssertionError) as exc:
        failed.append(str(exc))
    slowest = max(slowest, time.monotonic() - begun)
    time.sleep(0.05)
print(json.dumps({"connections": tried, "failed": failed, "slowest_s": round(slowest, 3)}))
"""


class Cluster:
    """A namespace of its own in the cluster that KUBECTL reaches."""

    def __init__(self) -> None:
        self.name = f"tunnel-test-{os.getpid()}"
        self._began = time.monotonic()
        version = json.loads(self.kubectl("version", "-o", "json", namespace=False))["serverVersion"]
        self.minor = int("".join(c for c in version["minor"] if c.isdigit()))
        self.say(f"Kubernetes {version['gitVersion']}")
        services = self.kubectl("get", "services", "-n", "kube-system", "-o", "name", namespace=False)
        self.has_names = "dns" in services

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)

    def command(self, *words: str, namespace: bool = True) -> list[str]:
        return [*KUBECTL, *(("-n", self.name) if namespace else ()), *words]

    def kubectl(self, *words: str, namespace: bool = True, given: str = "", shown: bool = False) -> str:
        if shown:
            self.say(f"$ kubectl {shlex.join(words)}")
        done = subprocess.run(
            self.command(*words, namespace=namespace), input=given, text=True, capture_output=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"kubectl {shlex.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def relay(self) -> str:
        """The name of the relay's pod."""
        pods = [pod["metadata"] for pod in self.items("pods", "app.kubernetes.io/name=relay")]
        (name,) = (pod["name"] for pod in pods if "deletionTimestamp" not in pod)
        return str(name)

    def items(self, kind: str, selector: str) -> list[dict[str, Any]]:
        return list(json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))["items"])

    def events(self, deployment: str, event: str) -> list[dict[str, Any]]:
        """The lines of one event in the log of a deployment's pod."""
        lines = self.kubectl("logs", f"deployment/{deployment}", "--tail=-1").splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def apply(self, objects: list[dict[str, Any]]) -> None:
        """Apply manifests, rewritten as far as this server is too old for them."""
        text = yaml.safe_dump_all([self._for_this_server(o) for o in objects])
        self.kubectl("apply", "--validate=false", "-f", "-", given=text)

    def _for_this_server(self, manifest: dict[str, Any]) -> dict[str, Any]:
        manifest = json.loads(json.dumps(manifest))
        if self.minor < 21 and manifest["kind"] == "PodDisruptionBudget":
            manifest["apiVersion"] = "policy/v1beta1"
            del manifest["spec"]["unhealthyPodEvictionPolicy"]
        for container in manifest["spec"]["template"]["spec"]["containers"] if manifest["kind"] == "Deployment" else ():
            hook = container.get("lifecycle", {}).get("preStop", {})
            if self.minor < 29 and "sleep" in hook:
                pause = str(hook.pop("sleep")["seconds"])
                hook["exec"] = {"command": ["python", "-c", SLEEP, pause]}
        return manifest

    def address(self, service: str, port: int) -> str:
        if self.has_names:
            return f"{service}:{port}"
        return f"{self.kubectl('get', 'service', service, '-o', 'jsonpath={.spec.clusterIP}')}:{port}"


def unnamed(cluster: Cluster, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with addresses instead of the names of Services, for a cluster without DNS."""
    if cluster.has_names:
        return objects
    text = json.dumps(objects)
    for name, port in (("relay", 8080), ("server", 7000)):
        for before in ("ws://", "demo="):
            text = text.replace(f"{before}{name}:{port}", before + cluster.address(name, port))
    return list(json.loads(text))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A namespace with all of overlays/dev in it, ready."""
    try:
        probe = subprocess.run([*KUBECTL, "get", "nodes"], capture_output=True, timeout=30, check=False)
    except OSError as exc:
        unavailable(f"no Kubernetes: {exc}")
    if probe.returncode:
        unavailable(f"no Kubernetes answers '{shlex.join(KUBECTL)} get nodes'")
    made = Cluster()
    made.kubectl("create", "namespace", made.name, namespace=False)
    try:
        secret = os.urandom(32).hex()
        made.kubectl("create", "secret", "generic", "tunnel-secret", f"--from-literal=secret={secret}")
        made.say("$ kubectl create secret generic tunnel-secret --from-literal=secret=…")
        made.say("$ kubectl apply -k k8s/overlays/dev")
        objects = list(kustomize("k8s/overlays/dev"))
        made.apply([o for o in objects if o["kind"] == "Service"])
        made.apply(unnamed(made, [o for o in objects if o["kind"] != "Service"]))
        for name in ("server", "relay", "host-agent", "client-agent"):
            made.kubectl("rollout", "status", f"deployment/{name}", "--timeout=180s", shown=True)
        yield made
    finally:
        made.kubectl("delete", "namespace", made.name, "--wait=false", namespace=False)


class Transfer:
    """Traffic in the cluster, from the sample server's pod through the client-agent and back to that pod."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        before = len(cluster.events("client-agent", "stream opened"))
        words = (
            "exec", "deployment/server", "--", "python", "-m", "demo.traffic", cluster.address("client-agent", 25565),
            "--streams", str(STREAMS), "--size", str(MIB), "--seconds", str(SECONDS), "--json",
        )  # fmt: skip
        cluster.say(f"$ kubectl {shlex.join(words)} &")
        self._process = subprocess.Popen(
            cluster.command(*words), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        until(lambda: len(cluster.events("client-agent", "stream opened")) >= before + STREAMS)

    def done(self) -> dict[str, Any]:
        """Wait for the end. Returns the report."""
        out, err = self._process.communicate(timeout=300)
        assert self._process.returncode == 0, f"{out}\n{err}"
        report: dict[str, Any] = json.loads(out)
        self._cluster.say(f"transfer: {json.dumps(report)}")
        return report

    @property
    def running(self) -> bool:
        return self._process.poll() is None


class Ending:
    """Waits, on leaving it, until a relay's pod has stopped: its log comes to an end. And tells of the drain."""

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster = cluster
        self._log = subprocess.Popen(cluster.command("logs", "-f", pod), text=True, stdout=subprocess.PIPE)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._log.kill()
        out, _ = self._log.communicate(timeout=300)
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        told = [line for line in lines if line["event"] in ("draining", "drained", "stopped")]
        for line in told:
            self._cluster.say(f"the old relay's log: {json.dumps(line)}")
        assert kind is not None or [line["event"] for line in told] == ["draining", "drained", "stopped"]


def judge(cluster: Cluster, transfer: Transfer, resumed_before: int) -> None:
    """All bytes there and back with equal hashes, no connection broken, and each stream had to be moved for it."""
    assert transfer.running, "the transfer must outlast what it is to survive"
    report = transfer.done()
    assert report["problems"] == []
    assert report["bytes_verified"] == STREAMS * MIB << 20
    resumed = cluster.events("client-agent", "stream resumed")[resumed_before:]
    cluster.say(
        f"{len(resumed)} streams resumed, paused for {[line['paused_ms'] for line in resumed]} ms,"
        f" {sum(line['replayed_bytes'] for line in resumed)} bytes sent again"
    )
    assert len(resumed) >= STREAMS


def test_a_rollout_of_the_relay_during_a_transfer(cluster: Cluster) -> None:
    """`kubectl rollout restart deployment/relay`: the agents move while the old relay drains, and newcomers get in."""
    old = cluster.relay()
    resumed = len(cluster.events("client-agent", "stream resumed"))
    transfer = Transfer(cluster)
    words = ("exec", "deployment/server", "--", "python", "-c", NEWCOMERS, cluster.address("client-agent", 25565), "25")
    newcomers = subprocess.Popen(cluster.command(*words), text=True, stdout=subprocess.PIPE)
    with Ending(cluster, old):
        cluster.kubectl("rollout", "restart", "deployment/relay", shown=True)
        cluster.kubectl("rollout", "status", "deployment/relay", "--timeout=120s", shown=True)
    told, _ = newcomers.communicate(timeout=300)
    cluster.say(f"newcomers meanwhile: {told.strip()}")
    judge(cluster, transfer, resumed)
    assert json.loads(told)["failed"] == []


def test_an_eviction_of_the_relay_during_a_transfer(cluster: Cluster) -> None:
    """As `kubectl drain NODE` does it: the budget lets the only relay go, and its streams outlive that."""
    old = cluster.relay()
    resumed = len(cluster.events("client-agent", "stream resumed"))
    transfer = Transfer(cluster)
    eviction = {
        "apiVersion": "policy/v1" if cluster.minor >= 22 else "policy/v1beta1",
        "kind": "Eviction",
        "metadata": {"name": old, "namespace": cluster.name},
    }
    path = f"/api/v1/namespaces/{cluster.name}/pods/{old}/eviction"
    cluster.say(f"$ kubectl create --raw {path} -f eviction.json")
    with Ending(cluster, old):
        cluster.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    judge(cluster, transfer, resumed)


def test_pods_run_as_the_manifests_promise(cluster: Cluster) -> None:
    """Not root, nothing writable, no token of the API; and no agent was restarted by any of this."""
    for name in ("relay", "host-agent", "client-agent"):
        told = cluster.kubectl(
            "exec", f"deployment/{name}", "--", "python", "-c",
            "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/tmp', os.W_OK),"
            " os.path.exists('/run/secrets/kubernetes.io'), os.environ.get('RELAY_PORT'))",
        )  # fmt: skip
        assert told.split() == ["65532", "False", "False", "False", "None"]
        for pod in cluster.items("pods", f"app.kubernetes.io/name={name}"):
            assert [c["restartCount"] for c in pod["status"]["containerStatuses"]] == [0]


def test_the_budget_is_the_one_of_the_manifests(cluster: Cluster) -> None:
    """It allows one disruption, which is what a node drain asks for."""
    budget = json.loads(cluster.kubectl("get", "pdb", "relay", "-o", "json"))
    wanted = one(kustomize("k8s/overlays/dev"), "PodDisruptionBudget", "relay")
    assert budget["spec"]["maxUnavailable"] == wanted["spec"]["maxUnavailable"] == 1
