"""What Prometheus and Grafana are given: valid, in agreement with each other, with the guide and with the API."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from serve.observability import prometheus
from serve.observability.collectors import DatabaseCollector
from tests.support.bundles.lamp_bundles import lamp
from tests.support.images.hostile import encode
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.paths import REPOSITORY
from tests.support.servers.serving import ServerProcess

FOLDER = REPOSITORY / "serve" / "deploy" / "monitoring"
GUIDE = (REPOSITORY / "docs" / "monitoring.md").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana" / "dashboards" / "lesion.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GROUPS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
TESTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts_test.yml").read_text("utf-8"))["tests"]
CONFIG: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
POD_MONITOR = FOLDER.parent / "kubernetes" / "components" / "pod-monitor"
JOB = re.compile(r'\bjob="([^"]+)"')
METRIC = re.compile(r"\blesion_[a-z0-9_]+")
GRAFANA_INTERVALS = {"$__rate_interval": "5m", "$__range": "1h", "$instance": ".*"}
KINDS = {"counter": (), "gauge": (), "histogram": ("_bucket", "_sum", "_count")}


def documented() -> dict[str, str]:
    """Every metric of the guide's table with its kind."""
    rows = re.findall(r"^\| `(lesion_\w+)` \| (counter|gauge|histogram)\b", GUIDE, re.MULTILINE)
    assert len(rows) > 20
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def series_names(kinds: dict[str, str]) -> set[str]:
    """The names that a query may have: a histogram has three, and none of its own."""
    return {name + suffix for name, kind in kinds.items() for suffix in KINDS[kind] or ("",)}


def dashboard_queries() -> Iterator[str]:
    """Every PromQL expression of the dashboard, Grafana's variables filled in."""
    found = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    for expression in found:
        for variable, value in GRAFANA_INTERVALS.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression, expression
        yield expression


def promtool(*arguments: object, cwd: Path = FOLDER, given: str = "") -> str:
    """Run Prometheus' own checker; gives what it said."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    done = subprocess.run([tool, *map(str, arguments)], cwd=cwd, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """As in the container, but for the key's place: promtool looks whether that file is there."""
    key = tmp_path / "metrics_key"
    key.write_text("lesion_0123456789abcdef_" + 64 * "0")
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    text = (FOLDER / "prometheus.yml").read_text("utf-8")
    assert text.count("/run/secrets/metrics_key\n") == 1
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/metrics_key\n", f"{key}\n"))
    said = promtool("check", "config", "prometheus.yml", cwd=tmp_path)
    assert f"{len(RULES)} rules found" in said


def test_prometheus_finds_each_replica_by_itself_and_shows_its_key() -> None:
    jobs = {job["job_name"]: job for job in CONFIG["scrape_configs"]}
    api = jobs["lesion-api"]
    assert [(one["names"], one["type"], one["port"]) for one in api["dns_sd_configs"]] == [(["api"], "A", 8000)]
    assert api["authorization"] == {"credentials_file": "/run/secrets/metrics_key"}
    assert CONFIG["rule_files"] == ["alerts.yml"]


def test_every_way_to_find_replicas_calls_them_what_the_alerts_do() -> None:
    asked = {name for text in (*dashboard_queries(), *(rule["expr"] for rule in RULES)) for name in JOB.findall(text)}
    assert asked == {"lesion-api"}
    monitor = yaml.safe_load((POD_MONITOR / "pod-monitor.yaml").read_text("utf-8"))
    given = [
        rule["replacement"]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
        for rule in endpoint["relabelings"]
        if rule == {"targetLabel": "job", "replacement": rule["replacement"]}
    ]
    assert given == ["lesion-api"]
    jobs = {"prometheus.yml": [job["job_name"] for job in CONFIG["scrape_configs"] if job["job_name"] != "prometheus"]}
    for page in DOCS:
        blocks = re.findall(r"```ya?ml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        jobs[page.name] = [job for block in blocks for job in re.findall(r"job_name: *(\S+)", block)]
    assert {name: found for name, found in jobs.items() if found} == {
        "prometheus.yml": ["lesion-api"],
        "kubernetes.md": ["lesion-api"],
    }


def test_the_guide_s_command_makes_a_rule_of_the_operator_s_with_the_same_alerts() -> None:
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text("utf-8")
    [command] = re.findall(r"^\{ printf .*?\| kubectl apply -f -$", text, re.MULTILINE | re.DOTALL)
    shown = command.replace("kubectl apply -f -", "cat")
    done = subprocess.run(["sh", "-euc", shown], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    rule = yaml.safe_load(done.stdout)
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["metadata"] == {"name": "lesion", "namespace": "lesion"}
    assert rule["spec"] == {"groups": GROUPS}


def test_the_rules_are_valid() -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")


@pytest.mark.slow
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_test_that_fires_and_one_that_does_not(alert: str) -> None:
    checks = [check for test in TESTS for check in test["alert_rule_test"] if check["alertname"] == alert]
    expected = [check.get("exp_alerts", []) for check in checks]
    assert [bool(alerts) for alerts in expected] == [True, False]
    evaluated = [test for test in TESTS if test["alert_rule_test"][0]["alertname"] == alert]
    assert all(test["input_series"] for test in evaluated)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_tells_a_person_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/monitoring.md#{alert.lower()}"
    entry = re.search(rf"^### {alert}\n\n(.+?)(?=^#|\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert entry is not None
    assert len(entry[1].split()) > 20


def test_the_guide_has_no_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (Lesion\w+)$", GUIDE, re.MULTILINE)) == set(ALERTS)
    for panel in PANELS:
        assert set(re.findall(r"\bLesion[A-Z]\w+", panel.get("description", ""))) <= set(ALERTS)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_alerts_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    named = set(re.findall(r"`(Lesion(?!Error`)[A-Z]\w+)`", text)) | set(re.findall(r"\balerts? `(\w+)`", text))
    assert named - set(ALERTS) == set()


def test_alerts_and_dashboard_use_metrics_that_the_guide_explains() -> None:
    known = series_names(documented())
    expressions = [*dashboard_queries(), *(rule["expr"] for rule in RULES)]
    used = {name for expression in expressions for name in METRIC.findall(expression)}
    assert used - known == set()
    assert {name for text in expressions for name in re.findall(r"\blesion:[\w:]+", text)} <= RECORDED
    tested = {name for test in TESTS for one in test["input_series"] for name in METRIC.findall(one["series"])}
    assert tested - known == set()


def test_every_metric_of_the_guide_is_on_the_dashboard() -> None:
    shown = " ".join([*dashboard_queries(), *(rule["expr"] for rule in RULES)])
    assert [name for name in documented() if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", shown)] == []


@pytest.mark.slow
def test_the_guide_has_exactly_the_metrics_of_the_api(tmp_path: Path) -> None:
    """A real server's answer; what it says of its storage is read from an empty one."""
    found = families(generate_latest(DatabaseCollector(new_storage(tmp_path))).decode())
    found |= {"lesion_job_active_seconds": "gauge"}  # while a job is active
    found |= {"lesion_ledger_followed": "gauge"}  # with a storage
    with ServerProcess(lamp(tmp_path / "lamp", 0.05), "server.workers=1") as server:
        sent = server.client.post("/predict", content=encode(picture(1)))
        assert sent.status_code == 200
        text = server.client.get("/metrics").text
    found |= families(text)
    for family in (prometheus.UPLOADS, prometheus.SWAPS):  # there is no line before the first one
        found[f"{next(iter(family.collect())).name}_total"] = "counter"
    assert found == documented()
    promtool("check", "metrics", given=text)


def families(text: str) -> dict[str, str]:
    """The metrics of an answer of /metrics, with their kinds."""
    return dict(re.findall(r"^# TYPE (lesion_\w+) (\w+)$", text, re.MULTILINE))


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(dashboard_queries())]
    assert len(rules) > 40
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", "queries.yml", cwd=tmp_path)


def test_the_panels_have_their_own_ids_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] >= 0, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(PANELS, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = any(a[s] + a[n] <= b[s] or b[s] + b[n] <= a[s] for s, n in (("x", "w"), ("y", "h")))
        assert apart, (one["title"], other["title"])


def test_no_row_of_the_dashboard_has_a_gap() -> None:
    """A row follows the panels above it at once."""
    rows = [panel for panel in PANELS if panel["type"] == "row"]
    assert len(rows) >= 7
    for above, below in pairwise(rows):
        between = [p for p in PANELS if above["gridPos"]["y"] < p["gridPos"]["y"] < below["gridPos"]["y"]]
        assert max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in between) == below["gridPos"]["y"], above["title"]


def test_each_panel_says_what_it_shows_in_which_unit() -> None:
    for panel in (panel for panel in PANELS if panel["type"] != "row"):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None, panel["title"]
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)


def test_everything_asks_the_data_source_that_was_chosen() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    asking = [*DASHBOARD["annotations"]["list"], variables["instance"]]
    asking += [part for panel in PANELS if panel["type"] != "row" for part in (panel, *panel["targets"])]
    assert all(part["datasource"] == chosen for part in asking)
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD  # Grafana's own number; a file that has one would replace another dashboard


def test_grafana_is_given_the_data_source_and_the_folder_of_dashboards() -> None:
    provisioning = FOLDER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    assert source["jsonData"]["timeInterval"] == CONFIG["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "lesion.yaml").read_text("utf-8"))["providers"]
    assert provider["type"] == "file"
    assert Path(provider["options"]["path"]).is_absolute()


def test_no_file_names_a_place_elsewhere() -> None:
    for file in FOLDER.rglob("*"):
        if file.is_file():
            addresses = re.findall(r"https?://[^\s\"']+", file.read_text("utf-8"))
            assert set(addresses) <= {"http://prometheus:9090"}, file
