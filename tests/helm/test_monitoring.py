"""What Prometheus and Grafana get from the chart: monitor, alerts, dashboard, and the metric to scale on."""

import json
import re
import subprocess
from copy import deepcopy
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.tools.generate import ALERTS
from helm.tools.helm import HelmFailed
from helm.tools.prometheus import promtool
from service.process.metrics_table import all_exposed
from tests.helm.manifests import Manifest
from tests.helm.render import CHART, EVERYTHING, render

CASES = Path(__file__).parent / "alert_cases.yaml"
ALL = {part: {"enabled": True} for part in ("serviceMonitor", "prometheusRule", "dashboard")}
EVALUATED = {"monitoring": ALL, "evaluation": {"enabled": True, "collections": ["Pictures"]}}
"""Every alert, also that of evaluations that are missing."""

PROCESS = {"process_cpu_seconds_total", "process_max_fds", "process_open_fds", "process_resident_memory_bytes"}
"""What prometheus_client exposes of any process."""

OFFERED = {sample for each in all_exposed() for sample in each.samples} | PROCESS


def of_kind(values: dict[str, Any], kind: str) -> list[Manifest]:
    return [each for each in render(values, release="vecgate", namespace="bad") if each["kind"] == kind]


def rules(values: dict[str, Any] | None = None) -> dict[str, Manifest]:
    """Return the alerts of a render by name."""
    (made,) = of_kind(EVALUATED if values is None else values, "PrometheusRule")
    return {rule["alert"]: rule for group in made["spec"]["groups"] for rule in group["rules"]}


def selectors(expression: str) -> list[str]:
    """Return what an expression selects its series by."""
    return re.findall(r"{([^}]*)}", expression)


def dashboard() -> Manifest:
    (config,) = [
        each for each in of_kind({"monitoring": ALL}, "ConfigMap") if each["metadata"]["name"].endswith("board")
    ]
    found: Manifest = json.loads(config["data"]["vecgate.json"])
    return found


def expressions() -> list[str]:
    """Return every expression of the dashboard as Prometheus gets it from Grafana."""
    lines = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    return [re.sub(r"\$(namespace|job)", ".*", line).replace("$__rate_interval", "5m") for line in lines]


def names(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    return set(re.findall(r"\b(?:vecgate|process)_[a-z_]+", expression))


def check(tmp_path: Path, *arguments: str, **files: object) -> str:
    """Run promtool in a folder with files and return what it said; it must be content."""
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run([promtool(), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    kinds = {each["kind"] for each in render({})}

    assert kinds.isdisjoint({"ServiceMonitor", "PrometheusRule", "HorizontalPodAutoscaler"})
    assert not any("dashboard" in each["metadata"]["name"] for each in render({}))


def test_promtool_takes_the_alerts(tmp_path: Path) -> None:
    said = check(tmp_path, "check", "rules", "alerts.yaml", alerts=of_kind(EVALUATED, "PrometheusRule")[0]["spec"])

    assert f"{len(rules())} rules found" in said


def by_step(case: dict[str, Any]) -> str:
    """Return the time between two values of a case's series."""
    return str(case["interval"])


def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    spec = deepcopy(of_kind(EVALUATED, "PrometheusRule")[0]["spec"])
    for rule in spec["groups"][0]["rules"]:
        # promtool compares them word by word.
        del rule["annotations"]

    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))
    # By their own steps: evaluating each minute of days takes most of a minute.
    files = {
        f"every_{step}": {**cases, "evaluation_interval": step, "tests": list(tests)}
        for step, tests in groupby(sorted(cases["tests"], key=by_step), by_step)
    }

    check(tmp_path, "test", "rules", *(f"{each}.yaml" for each in files), alerts=spec, **files)


def test_every_alert_is_shown_to_fire_and_to_keep_quiet() -> None:
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    shown = [each for case in cases for each in case["alert_rule_test"]]

    assert {each["alertname"] for each in shown if each.get("exp_alerts")} == set(rules())
    assert {each["alertname"] for each in shown if not each.get("exp_alerts")} == set(rules())


def test_alerts_and_dashboard_name_metrics_that_there_are() -> None:
    used = {name for rule in rules().values() for name in names(rule["expr"])}
    shown = {name for expression in expressions() for name in names(expression)}

    assert used - OFFERED == set()
    assert shown - OFFERED == set()
    assert names("rate(vecgate_no_such_thing_total[5m])") - OFFERED


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for expression in expressions() for name in names(expression)}

    assert [each.name for each in all_exposed() if shown.isdisjoint(each.samples)] == []


def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [{"record": f"panel:{at}", "expr": line} for at, line in enumerate(expressions())]

    said = check(
        tmp_path, "check", "rules", "--lint=none", "panels.yaml", panels={"groups": [{"name": "a", "rules": recorded}]}
    )

    assert f"{len(recorded)} rules found" in said


def test_the_dashboard_shows_what_the_newest_evaluation_found_also_when_its_pod_is_gone(tmp_path: Path) -> None:
    found = {
        "old": {"time_seconds": "3600+0x50", 'faults{kind="HUBS"}': "3+0x50", "index_recall_ratio": "0.5+0x50"},
        "new": {
            "time_seconds": "_x2 7200+0x8",
            'faults{kind="HUBS"}': "_x2 1+0x8",
            "index_recall_ratio": "_x2 0.9+0x8",
        },
    }
    series = []
    for instance, metrics in found.items():
        own = f'namespace="a",job="vecgate",instance="{instance}",collection="Pictures",vector="default"'
        for metric, values in metrics.items():
            name, _, labels = metric.rstrip("}").partition("{")
            series.append({"series": f"vecgate_evaluation_{name}{{{own},{labels}}}", "values": values})
    shown = [line for line in expressions() if "vecgate_evaluation_" in line and "time() -" not in line]
    labels = (
        '{collection="Pictures",vector="default",kind="HUBS"}',
        '{collection="Pictures",vector="default"}',
    )

    def at(hours: int, *values: float) -> list[dict[str, Any]]:
        return [
            {"expr": line, "eval_time": f"{hours}h", "exp_samples": [{"labels": label, "value": value}]}
            for line, label, value in zip(shown, labels, values, strict=True)
        ]

    expected = [*at(1, 3, 0.5), *at(5, 1, 0.9), *at(30, 1, 0.9)]
    case = {"interval": "1h", "input_series": series, "promql_expr_test": expected}
    check(tmp_path, "test", "rules", "cases.yaml", cases={"tests": [case]})


def test_labels_of_the_dashboards_legends_come_out_of_their_expressions() -> None:
    pod = {"namespace", "job", "pod", "version"}
    labels = {sample: {*each.labels, *pod} for each in all_exposed() for sample in each.samples}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            grouped = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            left = (
                set(re.split(r", *", grouped[0]))
                if grouped
                else pod.union(*(labels.get(name, pod) for name in names(target["expr"])))
            )
            assert wanted <= left, f"{panel['title']}: {target}"


def test_every_panel_has_its_place() -> None:
    taken = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert taken.isdisjoint(cells), panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_an_alert_can_be_left_out() -> None:
    left = EVALUATED | {"monitoring": {"prometheusRule": {"enabled": True, "disabled": ["VecgateMissing"]}}}

    assert set(rules()) - set(rules(left)) == {"VecgateMissing"}


def test_the_templates_of_alerts_reach_prometheus_as_they_are() -> None:
    written = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    put = {"RELEASE": 'namespace="bad",job="vecgate"', "TWICE_OVERDUE": "384h", "OVERDUE": "(192 * 3600)"}
    for rule in written:
        for name, value in put.items():
            rule["expr"] = rule["expr"].replace(name, value)

    assert list(rules().values()) == written


def test_nobody_is_told_of_missing_evaluations_where_no_job_makes_them() -> None:
    assert set(rules()) - set(rules({"monitoring": ALL})) == {"VecgateEvaluationOverdue"}


def test_every_alert_is_about_its_own_release_in_each_of_its_series() -> None:
    for name, rule in rules().items():
        found = selectors(rule["expr"])

        assert len(found) == len(re.findall(r"\b(?:vecgate|process)_[a-z_]+{|\({", rule["expr"])), name
        assert [each for each in found if not each.startswith('namespace="bad",job="vecgate"')] == [], name
        assert names(rule["expr"]), name
        assert not re.search(r"\b(?:vecgate|process)_[a-z_]+(?![a-z_]*[{|\"])", rule["expr"]), name


def test_alerts_go_by_the_job_that_the_pods_are_scraped_as() -> None:
    named = {"monitoring": {"prometheusRule": {"enabled": True, "job": "pods/vecgate"}}}
    everything = {each for rule in rules(EVERYTHING).values() for each in selectors(rule["expr"])}

    assert selectors(rules(named)["VecgateMissing"]["expr"]) == ['namespace="bad",job="pods/vecgate"']
    assert [each for each in everything if not each.startswith('namespace="bad",job="vectors"')] == []
    assert of_kind(EVERYTHING, "Service")[0]["metadata"]["name"] == "vectors"


def test_every_line_of_the_dashboard_is_about_the_chosen_releases() -> None:
    lines = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]

    assert [
        line for line in lines for each in selectors(line) if 'namespace=~"$namespace",job=~"$job"' not in each
    ] == []
    assert [line for line in lines if not selectors(line)] == []


def test_prometheus_comes_through_the_network_policy_only_where_it_scrapes() -> None:
    def rules_of(values: dict[str, Any]) -> list[Manifest]:
        (policy,) = (
            each for each in of_kind(values, "NetworkPolicy") if not each["metadata"]["name"].endswith("-test")
        )
        return list(policy["spec"]["ingress"])

    without, scraped = rules_of({}), rules_of({"monitoring": ALL})

    assert scraped[: len(without)] == without
    assert scraped[-1]["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    assert scraped[-1]["ports"] == [{"port": "http", "protocol": "TCP"}]


def test_the_monitor_scrapes_as_the_http_port_wants_it() -> None:
    (plain,), (secured,) = of_kind({"monitoring": ALL}, "ServiceMonitor"), of_kind(EVERYTHING, "ServiceMonitor")
    endpoint = secured["spec"]["endpoints"][0]

    assert plain["spec"]["endpoints"] == [
        {"port": "http", "path": "/metrics", "scheme": "http", "interval": "30s", "scrapeTimeout": "10s"}
    ]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["ca"] == {"secret": {"name": "vectors-tls", "key": "ca.crt"}}
    assert endpoint["authorization"]["credentials"] == {"name": "scrape", "key": "key"}
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("5s", "5s")
    assert secured["metadata"]["labels"]["release"] == "prometheus"
    assert secured["metadata"]["labels"]["app.kubernetes.io/name"] == "vecgate"


UNREADABLE: dict[str, tuple[dict[str, Any], str]] = {
    "without the port": ({"settings": {"web": {"enabled": False}}}, "set settings.web.enabled"),
    "without a key": ({"settings": {"auth": {"withoutKey": ["health"]}}}, "monitoring.serviceMonitor.authorization"),
}


@pytest.mark.parametrize(("values", "fix"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_monitor_that_could_read_nothing_is_refused(values: dict[str, Any], fix: str) -> None:
    with pytest.raises(HelmFailed, match=re.escape(fix)):
        render(values | {"monitoring": ALL})


def test_the_queue_can_be_scaled_on_with_the_adapters_metric() -> None:
    values = {"autoscaling": {"enabled": True, "targetQueuedInputs": 128, "targetCPUUtilizationPercentage": 0}}
    (scaler,) = of_kind(values, "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    companion = CHART / "examples" / "companions" / "prometheus-adapter.yaml"
    (rule,) = yaml.safe_load(companion.read_text(encoding="utf-8"))["rules"]["custom"]

    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "128"}
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    assert names(rule["seriesQuery"]) <= OFFERED
