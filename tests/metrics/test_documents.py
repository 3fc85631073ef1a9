"""Dashboard, alert rules and documentation name the metrics that there are, and no others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from moderntensor.metrics.catalogue import ALL, PREFIX, SECTIONS, Kind, Metric

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "metrics.md"
PROMETHEUS = ROOT / "examples" / "deployment" / "prometheus"
DASHBOARD = ROOT / "examples" / "deployment" / "grafana" / "moderntensor.json"

METRICS = {metric.name: metric for metric in ALL}
NAMES = {
    name: metric
    for metric in ALL
    for name in (
        [metric.name + suffix for suffix in ("_bucket", "_sum", "_count")]
        if metric.kind is Kind.HISTOGRAM
        else [metric.name]
    )
}
# Of prometheus_client's ProcessCollector.
PROCESS = {
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
}
TARGET_LABELS = {"instance", "job"}  # what Prometheus adds to every series
# Functions that tell how fast something moves: of counters, which only grow.
OF_COUNTERS = re.compile(r"\b(?:rate|increase|irate)\(\s*([a-z_]+)")


def named(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}\w+", text)) | set(re.findall(r"\bprocess_\w+", text))


def check_query(query: str) -> None:
    """That a query uses metrics as they are: by name, with their labels, counters as counters."""
    used = named(query) - {"moderntensor"}
    assert used, query
    assert used <= {*NAMES, *PROCESS}, used - {*NAMES, *PROCESS}
    for name, matchers in re.findall(r"([a-z_]+)\{([^}]*)\}", query):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", matchers))
        allowed = set(NAMES[name].labels) if name in NAMES else set()
        assert labels <= allowed | TARGET_LABELS | {"le"}, (name, labels - allowed)
    for name in OF_COUNTERS.findall(query):
        if name in NAMES:
            assert NAMES[name].kind is not Kind.GAUGE, f"{name} does not only grow"
    known = {label for name in used if name in NAMES for label in NAMES[name].labels}
    for labels in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", query):
        grouped = set(re.findall(r"\w+", labels))
        assert grouped <= known | TARGET_LABELS | {"le"}, grouped


def row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
    kind, unit = metric.kind.value, metric.unit
    return f"| `{metric.name}` | {kind} | {unit} | {labels} | {metric.help} |"


# --- names -------------------------------------------------------------------------------------


def test_names_say_their_unit_and_labels_are_fit_for_prometheus() -> None:
    assert len(METRICS) == len(ALL)
    for metric in ALL:
        assert re.fullmatch(r"moderntensor_[a-z]+(_[a-z]+)*", metric.name)
        assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total")
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in metric.labels)
        for unit in ("seconds", "bytes"):
            assert (unit in metric.name.split("_")) == (metric.unit == unit), metric.name
        assert metric.help and not metric.help.endswith(".")


# --- documents ---------------------------------------------------------------------------------


def test_the_document_has_every_metric_as_it_is_and_no_other() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    described = [line for line in text.splitlines() if line.startswith(f"| `{PREFIX}")]
    assert described == [row(metric) for metric in ALL]
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [title for title in titles if title in SECTIONS] == list(SECTIONS)


# --- the dashboard -----------------------------------------------------------------------------


def panels() -> list[dict[str, Any]]:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = board["panels"]
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    assert len(queries()) > 30
    for query in queries():
        check_query(query)


def test_legends_of_the_dashboard_name_labels_that_are_left() -> None:
    for panel in panels():
        for target in panel.get("targets", ()):
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            by = re.search(r"\bby \(([^)]*)\)", target["expr"])
            if by is not None:
                left = set(re.findall(r"\w+", by[1])) - {"le"}
            else:
                left = (
                    {label for n in named(target["expr"]) for label in NAMES[n].labels}
                    if not named(target["expr"]) & PROCESS
                    else set()
                )
                left |= TARGET_LABELS
            assert wanted <= left, (panel["title"], wanted - left)


def test_the_dashboard_is_one_that_grafana_can_load() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert board["title"] and board["uid"] and board["schemaVersion"] >= 36
    assert board["id"] is None  # else it would replace another board
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(board["panels"])))
    assert used <= variables
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                 for y in range(at["y"], at["y"] + at["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"] and panel["description"] and panel["targets"]


# --- alerts ------------------------------------------------------------------------------------


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_ask_for_metrics_that_there_are_and_say_what_is_wrong() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) > 10
    for rule in rules():
        if rule["alert"] != "NodeDown":  # `up`, which is Prometheus' own
            check_query(rule["expr"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} == set(rule["annotations"])


def test_tested_alerts_exist() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    names = {rule["alert"] for rule in rules()}
    for test in tests:
        assert {case["alertname"] for case in test["alert_rule_test"]} <= names
        for series in test["input_series"]:
            check_query(series["series"])


def test_the_configuration_reads_the_rules_and_scrapes_the_path_of_the_api() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert config["rule_files"] == ["alerts.yml"]
    (job,) = config["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("moderntensor", "/metrics")


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_agrees(tmp_path: Path) -> None:
    """The queries of the dashboard go as rules, for it reads no dashboards."""
    board = tmp_path / "board.yml"
    rules = [
        {"record": f"panel:{i}", "expr": query.replace("$__rate_interval", "5m")}
        for i, query in enumerate(queries())
    ]
    board.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    for arguments in (
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "rules", "--lint=none", str(board)),
    ):
        done = subprocess.run(
            (str(PROMTOOL), *arguments), cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr + done.stdout
