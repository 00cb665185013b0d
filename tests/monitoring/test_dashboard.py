"""The dashboard and the alerts name only metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from odc_openeo.monitoring.recorder import DEFINITIONS, PREFIX

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD: Final = json.loads((FOLDER / "grafana-dashboard.json").read_text())
ALERTS: Final = yaml.safe_load((FOLDER / "alerts.yml").read_text())
DOCUMENTATION: Final = (FOLDER.parents[1] / "docs" / "monitoring.md").read_text()
PANEL: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos", "targets", "datasource"],
    "properties": {
        "id": {"type": "integer"},
        "type": {"const": "timeseries"},
        "title": {"type": "string", "minLength": 3},
        "gridPos": {
            "type": "object",
            "required": ["x", "y", "w", "h"],
            "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 200},
        },
        "datasource": {"const": {"type": "prometheus", "uid": "${datasource}"}},
        "targets": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["refId", "expr", "legendFormat"]},
        },
    },
}


def list_expressions() -> list[str]:
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return targets + [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]


def list_metrics() -> set[str]:
    """Names as Prometheus stores them: those that are counted, and those of states in the documentation."""
    suffixes = {Counter: ["_total"], Histogram: ["_bucket", "_sum", "_count"]}
    counted = {
        f"{PREFIX}{name}{suffix}"
        for name, definition in DEFINITIONS.items()
        for suffix in suffixes.get(definition.kind, [""])
    }
    states = set(re.findall(rf"`({PREFIX}\w+)`", DOCUMENTATION))
    states |= {f"odc_openeo{name}" for name in re.findall(r"`…(_\w+)`", DOCUMENTATION)}
    return counted | states


def test_only_metrics_that_exist_are_named() -> None:
    expressions = list_expressions()
    assert len(expressions) > 15
    names = {name for text in expressions for name in re.findall(rf"\b{PREFIX}\w+", text)}
    assert names - list_metrics() == set()


def test_labels_exist() -> None:
    for text in list_expressions():
        for name, conditions in re.findall(rf"{PREFIX}(\w+)\{{([^}}]*)\}}", text):
            labels = set(re.findall(r"(\w+)[=!]", conditions))
            definition = DEFINITIONS.get(name.removesuffix("_total"))
            assert labels <= set(definition.labels if definition else ("status", "part", "outcome"))


def test_the_dashboard_is_well_formed() -> None:
    for panel in DASHBOARD["panels"]:
        jsonschema.validate(panel, PANEL)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_rules_and_configuration_are_valid() -> None:
    for command in (["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]):
        done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_names_are_valid() -> None:
    text = "".join(f"# TYPE {name} untyped\n{name} 1\n" for name in sorted(list_metrics()))
    assert len(list(text_string_to_metric_families(text))) >= len(DEFINITIONS)
