"""Alert rules and the dashboard: what they ask for exists, and every alert tells what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.metrics import METRICS

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "retl.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]

# What Prometheus adds to every series, or a histogram has.
COMMON = {"instance", "job", "namespace", "pod", "le"}
SERIES = {
    each.name + suffix: set(each.labels)
    for each in METRICS
    for suffix in (("_bucket", "_sum", "_count") if each.kind == "histogram" else ("",))
}
# Of kube-state-metrics and of the Python client.
FOREIGN = {
    "kube_job_failed": {"condition", "job_name"},
    "kube_job_created": {"job_name"},
    "kube_cronjob_status_last_successful_time": {"cronjob"},
    "kube_cronjob_spec_suspend": {"cronjob"},
    "process_resident_memory_bytes": set(),
}
EXPRESSIONS = [rule["expr"] for rule in ALERTS] + QUERIES


def asked(expression: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """(metric, [(label, value)]) of every selector."""
    found = re.findall(r"\b((?:retl|kube|process)_[a-z_]+)(?:\{([^}]*)\})?", expression)
    return [(name, re.findall(r'(\w+)\s*=~?\s*"([^"]*)"', inner)) for name, inner in found]


def grouped(expression: str) -> set[str]:
    found = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for labels in found for label in labels.split(",")}


def anchors() -> set[str]:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    return {title.lower() for title in re.findall(r"^### (\w+)$", text, flags=re.MULTILINE)}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_metrics_and_labels_exist(expression: str) -> None:
    selectors = asked(expression)
    assert selectors
    known = SERIES | FOREIGN
    labels: set[str] = set(COMMON)
    for name, conditions in selectors:
        assert name in known, name
        assert {label for label, _ in conditions} <= known[name] | COMMON, (name, conditions)
        labels |= known[name]
    assert grouped(expression) <= labels


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_values_that_are_asked_for_are_there_from_the_start(expression: str) -> None:
    first = {each.name: {w for v in each.values for w in v.split()} for each in METRICS}
    for name, conditions in asked(expression):
        for label, value in conditions:
            if label in {"outcome", "reason", "result", "cause", "status_class", "error_type"}:
                for one in value.split("|"):
                    expected = {"5xx", "no_answer"} if label == "status_class" else first[name]
                    assert one in expected, (name, label, one)


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    used = {name for expression in EXPRESSIONS for name, _ in asked(expression)}
    for each in METRICS:
        assert any(name.startswith(each.name) for name in used), each.name


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_tells_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert len(notes["summary"]) < 90
    address, _, anchor = notes["runbook_url"].partition("#")
    assert address.endswith("/docs/operations.md")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors()
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    assert anchors() == {rule["alert"].lower() for rule in ALERTS}


def test_every_alert_is_tested() -> None:
    tests = (PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8")
    assert [rule["alert"] for rule in ALERTS if rule["alert"] not in tests] == []


def test_the_runbook_knows_every_exit_code_of_the_job() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    cronjob = (ROOT / "deploy" / "k8s" / "base" / "cronjob.yaml").read_text(encoding="utf-8")
    codes = re.search(r"values: \[([\d, ]+)\]", cronjob)
    assert codes is not None
    rows = dict(re.findall(r"^\| (\d+) \| [^|]+\| ([^|]+) \|", text, flags=re.MULTILINE))
    assert {code for code, what in rows.items() if what == "Job failed at once"} == set(
        codes.group(1).split(", ")
    )
    assert {"0", "70", "75", "137"} <= set(rows)


def promtool(*arguments: str) -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(
        [found, *arguments], capture_output=True, text=True, check=False, cwd=PROMETHEUS
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "alerts.yml")


def test_the_alerts_fire_when_they_must_and_not_otherwise() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_promtool_accepts_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(QUERIES)
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(file))


# ------------------------------------------------------------------------------- dashboard


def test_the_dashboard_asks_any_source_sync_and_destination() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "sync", "destination"]
    assert variables["datasource"]["type"] == "datasource"
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
    for query in QUERIES:
        for name, conditions in asked(query):
            wanted = {"sync", "destination"} & SERIES.get(name, set())
            if name != "retl_build_info":
                assert wanted == {label for label, value in conditions if value == f"${label}"}


def test_panels_have_titles_and_descriptions_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (column, line)
            for column in range(place["x"], place["x"] + place["w"])
            for line in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert all(panel["title"] and panel["description"] for panel in PANELS)
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
