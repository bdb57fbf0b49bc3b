"""Alerts and dashboard: every expression parses, and asks for what the services really export."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.apps import connect, echo, exchange, serve
from support.deploy import ROOT, load, run, tool
from support.system import System
from tunnel_core.agent.metrics import RESUMES
from tunnel_core.protocol.seal.errors import Fault
from tunnel_relay.metrics import WATCHED

DASHBOARD: Final[dict[str, Any]] = json.loads((ROOT / "observability/grafana/dashboards/tunnel.json").read_text())
VARIABLES: Final = {"$__rate_interval": "5m", "$__range": "1h", "$tunnel": ".*"}
GIVEN: Final = {"job", "namespace", "instance", "le"}  # labels that Prometheus adds, and histograms have
NOT_METRICS: Final = {"by", "without", "on", "ignoring", "group_left", "unless", "or", "and", "bool", "offset"}
WIDTH: Final = 24  # of Grafana's grid


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression with where it stands."""
    for group in load("observability/alerts.yml")["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            yield f"panel {panel['title']}", expression
    for annotation in DASHBOARD["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]


def metrics(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The names of metrics in an expression, each with the labels that its selector asks for."""
    bare = re.sub(r"\b(by|without|on|ignoring|group_left)\s*\([^)]*\)", " ", expression)
    for found in re.finditer(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\s*\(|[\w:])", bare):
        name, selector = found[1], found[2] or ""
        if (
            name not in NOT_METRICS
            and not re.match(r"\s*\(", bare[found.end(1) :])
            and not _within(bare, found.start())
        ):
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', selector)))


def _within(expression: str, at: int) -> bool:
    """Whether this place is inside a selector or a duration."""
    before = expression[:at]
    return before.count("{") > before.count("}") or before.count("[") > before.count("]") or before[-1:].isdigit()


def grouped(expression: str) -> set[str]:
    """The labels that an expression groups by."""
    found = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    return {label.strip() for labels in found for label in labels.split(",")}


async def scrape(port: int) -> str:
    """A service's /metrics."""
    reader, writer = await connect(port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = text.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")
    return body


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Every metric that the three services export after some use, with its labels."""
    found: dict[str, set[str]] = {}

    async def use() -> None:
        async with serve(echo) as target, System() as system:
            host = await system.host({"mc": target}, admin_port=0)
            client = await system.client("mc", admin_port=0)
            await exchange(client.ports[0], 100_000)
            reader, writer = await connect(system.relay.port)
            writer.write(b"GET /client/mc HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 401 " in await reader.readline()
            writer.close()
            await writer.wait_closed()
            assert host.admin is not None
            assert client.admin is not None
            for port in (system.relay.admin_port, host.admin.port, client.admin.port):
                for family in text_string_to_metric_families(await scrape(port)):
                    for sample in family.samples:
                        found.setdefault(sample.name, set()).update(sample.labels)

    asyncio.run(use())
    return found | {"up": set()}


@pytest.mark.parametrize(("where", "expression"), [pytest.param(*both, id=both[0]) for both in expressions()])
def test_it_asks_for_what_is_exported(where: str, expression: str, exported: dict[str, set[str]]) -> None:
    """Metric names and labels are those of the running services."""
    labels = set(GIVEN)
    used = list(metrics(expression))
    assert used, where
    for name, selected in used:
        assert name in exported, f"{where}: no service exports {name}"
        assert selected <= exported[name] | GIVEN, f"{where}: {name} has no such label"
        labels |= exported[name]
    assert grouped(expression) <= labels, where


def test_what_alerts_count_begins_at_zero() -> None:
    """A counter that appears as 1 has not risen: every reason and outcome that they name is there from the start."""
    rules = [rule["expr"] for group in load("observability/alerts.yml")["groups"] for rule in group["rules"]]
    reasons = {word for expr in rules for found in re.findall(r'reason=~?"([^"]*)"', expr) for word in found.split("|")}
    outcomes = {
        word for expr in rules for found in re.findall(r'outcome=~?"([^"]*)"', expr) for word in found.split("|")
    }
    assert reasons == set(WATCHED) | {Fault.CHANGED.label, Fault.TRUNCATED.label, Fault.FALSE_HOST.label}
    assert outcomes <= set(RESUMES)


def test_the_names_are_found_in_an_expression() -> None:
    """The finder of names itself: functions, labels, durations and words of PromQL are none."""
    expression = 'sum by (a, b) (rate(x_total{c="d_e", f=~"g|h"}[5m])) / on (a) y:z unless count(w) > 0.8 * 256'
    assert dict(metrics(expression)) == {"x_total": {"c", "f"}, "y:z": set(), "w": set()}
    assert grouped(expression) == {"a", "b"}


def test_every_expression_parses(tmp_path: Path) -> None:
    """By Prometheus' own parser."""
    rules = [
        {"record": f"test:expression:{number}", "expr": expression, "labels": {"where": where}}
        for number, (where, expression) in enumerate(expressions())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "test", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(tool("promtool"), "check", "rules", path)


def test_the_configuration_is_valid() -> None:
    """Prometheus' own, with the alerts it names."""
    assert "SUCCESS" in run(tool("promtool"), "check", "config", "observability/prometheus.yml")


def test_alerts_fire_when_they_should() -> None:
    """`promtool test rules`: each fires on what it is for, and not on what is beside it."""
    run(tool("promtool"), "test", "rules", "observability/alerts_test.yml")
    tested = {
        case["alertname"]
        for test in load("observability/alerts_test.yml")["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for group in load("observability/alerts.yml")["groups"] for rule in group["rules"]}


def test_the_dashboard_is_laid_out() -> None:
    """Panels fill the width row by row, none lies over another, and each says what it shows."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= WIDTH
        taken |= cells
    assert len(taken) == WIDTH * (max(y for _, y in taken) + 1), "a hole in the grid"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]) or panel["type"] == "stat", panel["title"]


def test_the_dashboard_does_not_ask_for_jobs() -> None:
    """Not every Prometheus has the label `job` (Fly.io's has not): the services tell themselves what they are."""
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    asked += [variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable]
    assert not [expression for expression in asked for _, labels in metrics(expression) if "job" in labels]
    assert "{{job}}" not in json.dumps(DASHBOARD)


def test_grafana_is_provisioned_with_it() -> None:
    """The data source, and the folder of the dashboard, are those that compose mounts."""
    volumes = load("docker-compose.yml")["services"]["grafana"]["volumes"]
    (provider,) = load("observability/grafana/provisioning/dashboards/tunnel.yml")["providers"]
    assert f"./observability/grafana/dashboards:{provider['options']['path']}:ro" in volumes
    (source,) = load("observability/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert {v["name"] for v in DASHBOARD["templating"]["list"]} == {"datasource", "tunnel"}
