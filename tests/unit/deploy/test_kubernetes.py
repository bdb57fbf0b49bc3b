"""The manifests, rendered as `kubectl apply -k` would and held against the schemas of current versions."""

from __future__ import annotations

from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from support.deploy import kustomize, load, one

FULL: Final = "k8s/overlays/production-full"
PUBLIC: Final = "k8s/overlays/public"
RENDERED: Final = ("k8s/overlays/dev", "k8s/overlays/production", FULL, PUBLIC, "k8s/examples/minecraft")
VERSIONS: Final = ("1.35", "1.36", "1.37")  # those that Kubernetes itself maintains
# What agents dial, and what balancers ask for.
PATHS: Final = {"/host": "Prefix", "/client": "Prefix", "/probe": "Prefix", "/healthz": "Exact"}
# Kinds of others, which kubernetes_validate passes unseen: the fields of these are asserted below.
FOREIGN: Final = {"HTTPRoute", "PodMonitor", "PrometheusRule"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", RENDERED)
def test_valid_in_current_versions(path: str, version: str) -> None:
    """Strictly: a field that Kubernetes does not know is an error."""
    for manifest in kustomize(path):
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_classic_ingress_leads_to_the_relay() -> None:
    """All paths that agents dial, and the health check."""
    manifest = one(kustomize("k8s/overlays/production"), "Ingress", "relay")
    assert manifest["metadata"]["annotations"]["nginx.org/websocket-services"] == "relay"
    (rule,) = manifest["spec"]["rules"]
    assert {path["path"]: path["pathType"] for path in rule["http"]["paths"]} == PATHS
    for path in rule["http"]["paths"]:
        assert path["backend"]["service"] == {"name": "relay", "port": {"name": "legs"}}


def test_visitors_reach_the_gateway_with_their_own_address() -> None:
    """By a balancer of the cloud's, which is not to hide it; and nothing but that port and the metrics."""
    objects = kustomize(PUBLIC)
    service = one(objects, "Service", "gateway")["spec"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    template = one(objects, "Deployment", "gateway")["spec"]["template"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    ports = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
    assert {port["targetPort"] for port in service["ports"]} == {"public"} <= set(ports)
    policy = one(objects, "NetworkPolicy", "gateway")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert one(objects, "PodDisruptionBudget", "gateway")["spec"]["selector"]["matchLabels"] == service["selector"]


def test_kinds_of_others_are_known_by_name() -> None:
    """What kubernetes_validate cannot judge is these three, and only one overlay has any of them: they need CRDs."""
    for path in RENDERED:
        kinds = {manifest["kind"] for manifest in kustomize(path) if "." in group(manifest)}
        assert kinds == (FOREIGN if path == FULL else set()), path


def group(manifest: dict[str, Any]) -> str:
    """The API group where it is not Kubernetes' own."""
    name = str(manifest["apiVersion"]).rpartition("/")[0]
    return "" if name.endswith(".k8s.io") and not name.startswith("gateway.") else name


def test_the_route_leads_to_the_relay() -> None:
    """An HTTPRoute (gateway.networking.k8s.io/v1): both roles' paths, and no end to a request."""
    objects = kustomize(FULL)
    route = one(objects, "HTTPRoute", "relay")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert set(route["spec"]) == {"parentRefs", "hostnames", "rules"}
    (rule,) = route["spec"]["rules"]
    assert set(rule) == {"matches", "timeouts", "backendRefs"}
    assert rule["timeouts"] == {"request": "0s"}
    paths = {match["path"]["value"]: match["path"]["type"].removeprefix("Path") for match in rule["matches"]}
    assert paths == PATHS
    (backend,) = rule["backendRefs"]
    service = one(objects, "Service", backend["name"])
    assert backend["port"] in [port["port"] for port in service["spec"]["ports"]]


def test_the_monitor_finds_every_pod_of_ours() -> None:
    """A PodMonitor (monitoring.coreos.com/v1): its labels and its port are those of the pods."""
    monitor = one(kustomize(FULL), "PodMonitor", "tcp-ws-tunnel")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    seen = set()
    for manifest in kustomize("k8s/overlays/dev"):
        if manifest["kind"] == "Deployment" and manifest["metadata"]["name"] != "server":
            template = manifest["spec"]["template"]
            assert wanted.items() <= template["metadata"]["labels"].items()
            assert endpoint["port"] in [port["name"] for port in template["spec"]["containers"][0]["ports"]]
            seen.add(template["metadata"]["labels"][monitor["spec"]["jobLabel"]])
    assert seen == {"relay", "host-agent", "client-agent"}


def test_the_rules_are_those_of_prometheus() -> None:
    """A PrometheusRule (monitoring.coreos.com/v1) with the groups of observability/alerts.yml, which promtool tests."""
    rule = one(kustomize(FULL), "PrometheusRule", "tcp-ws-tunnel")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["spec"] == load("observability/alerts.yml")


def test_the_relay_is_replaced_without_a_gap() -> None:
    """One relay, one more while it is replaced, and a budget that lets a node go."""
    objects = kustomize("k8s/overlays/production")
    spec = one(objects, "Deployment", "relay")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "minAvailable" not in one(objects, "PodDisruptionBudget", "relay")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_clusters_before_1_30_have_a_component() -> None:
    """It replaces the one field that they do not know, and sleeps as long."""
    (patch,) = load("k8s/components/before-1.30/kustomization.yaml")["patches"]
    deployment = one(kustomize("k8s/overlays/production"), "Deployment", patch["target"]["name"])
    (operation,) = yaml.safe_load(patch["patch"])
    at: Any = deployment
    for word in operation["path"].split("/")[1:]:
        at = at[int(word)] if word.isdigit() else at[word]
    assert operation["value"]["exec"]["command"][-1] == f"import time; time.sleep({at['sleep']['seconds']})"


@pytest.mark.parametrize("path", RENDERED)
def test_pods_have_no_more_rights_than_they_need(path: str) -> None:
    """Not root, nothing writable, no capability, no token of the API, and bounds on memory."""
    for manifest in kustomize(path):
        if manifest["kind"] not in ("Deployment", "StatefulSet"):
            continue
        pod = manifest["spec"]["template"]["spec"]
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod.get("initContainers", []) + pod["containers"]:
            rights = pod["securityContext"] | container["securityContext"]
            assert rights["runAsNonRoot"] is True
            assert rights["runAsUser"] > 0
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert rights.get("readOnlyRootFilesystem", False) is (container["name"] != "minecraft")
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("path", RENDERED)
def test_secrets_are_named_and_never_here(path: str) -> None:
    """A Secret is made by hand, once: docs/deploy.md has the line."""
    assert not [manifest for manifest in kustomize(path) if manifest["kind"] == "Secret"]


def test_policies_name_pods_and_ports_that_there_are() -> None:
    """Labels and port names agree with those of the pods."""
    ports = {
        manifest["metadata"]["name"]: {
            port["name"] for port in manifest["spec"]["template"]["spec"]["containers"][0]["ports"]
        }
        for manifest in kustomize("k8s/overlays/dev")
        if manifest["kind"] == "Deployment"
    }
    policies = [manifest for manifest in kustomize("k8s/overlays/production") if manifest["kind"] == "NetworkPolicy"]
    assert {policy["metadata"]["name"] for policy in policies} == {"relay", "host-agent", "client-agent"}
    for policy in policies:
        name = policy["metadata"]["name"]
        assert policy["spec"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": name}
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= ports[name]
