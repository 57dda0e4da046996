"""The chart's dashboard for Grafana, panel by panel; helm/tools/generate.py writes it to files/dashboard.json."""

import json
from typing import Any

WIDTH, HEIGHT, ACROSS = 8, 7, 3
HERE = 'namespace=~"$namespace",job=~"$job"'


def rate(metric: str, labels: str = "") -> str:
    """Return the rate of a counter in the chosen jobs."""
    return f"rate({metric}{{{HERE}{labels and ','}{labels}}}[$__rate_interval])"


def total(metric: str, by: str, labels: str = "") -> str:
    """Return the rate of a counter in the chosen jobs, added up."""
    return f"sum by ({by}) ({rate(metric, labels)})"


def quantile(share: float, metric: str, by: str = "") -> str:
    """Return a quantile of a histogram in the chosen jobs."""
    return f"histogram_quantile({share}, sum by (le{by and ', '}{by}) ({rate(f'{metric}_bucket')}))"


def gauge(metric: str, by: str = "", join: str = "sum") -> str:
    """Return a gauge over the pods of the chosen jobs."""
    return f"{join} {f'by ({by}) ' if by else ''}({metric}{{{HERE}}})"


def newest(metric: str, by: str, join: str) -> str:
    """Return a gauge as the newest evaluation left it, also when its pod is gone; other pods have older ones."""
    each = "namespace, job, collection, tenant, vector"
    found, ended = (f"{name}{{{HERE}}}[14d:5m]" for name in (metric, "vecgate_evaluation_time_seconds"))
    last = f"max by ({each}) (max_over_time({ended}))"
    its = f"last_over_time({ended}) == on ({each}) group_left () {last}"
    return f"{join} by ({by}) (last_over_time({found}) and on ({each}, instance) ({its}))"


Panel = tuple[str, str, dict[str, str]]
"""A panel's title, its unit in Grafana's words, and its lines: expressions by legend."""

ROWS: dict[str, list[Panel]] = {
    "Calls": [
        (
            "Calls a second by method",
            "reqps",
            {
                "{{method}}": total("vecgate_grpc_calls_total", "method"),
                "{{route}}": total("vecgate_http_requests_total", "route"),
            },
        ),
        (
            "Failures a second by reason",
            "reqps",
            {"{{reason}} ({{blame}})": total("vecgate_failures_total", "reason, blame")},
        ),
        (
            "Calls a second by client",
            "reqps",
            {
                "{{client}}": total("vecgate_grpc_calls_total", "client"),
                "{{client}} (HTTP)": total("vecgate_http_requests_total", "client"),
            },
        ),
        ("Latency, p50", "s", {"{{method}}": quantile(0.5, "vecgate_grpc_call_seconds", "method")}),
        (
            "Latency, p99",
            "s",
            {
                "{{method}}": quantile(0.99, "vecgate_grpc_call_seconds", "method"),
                "{{route}}": quantile(0.99, "vecgate_http_request_seconds", "route"),
            },
        ),
        (
            "Calls in flight",
            "short",
            {"gRPC": gauge("vecgate_grpc_calls_in_flight"), "HTTP": gauge("vecgate_http_requests_in_flight")},
        ),
    ],
    "Where the time goes": [
        (
            "Queue, p95",
            "s",
            {"{{embedder}}, {{priority}}": quantile(0.95, "vecgate_embedder_queue_seconds", "embedder, priority")},
        ),
        (
            "Preprocessing of a batch, p95",
            "s",
            {"{{embedder}}": quantile(0.95, "vecgate_embedder_preprocess_seconds", "embedder")},
        ),
        (
            "Backend for a batch, p95",
            "s",
            {"{{embedder}}": quantile(0.95, "vecgate_embedder_backend_seconds", "embedder")},
        ),
        ("Weaviate, p95", "s", {"{{operation}}": quantile(0.95, "vecgate_store_seconds", "operation")}),
        ("Weaviate, p99", "s", {"{{operation}}": quantile(0.99, "vecgate_store_seconds", "operation")}),
        (
            "Weaviate did not answer, or an index of it has lost objects",
            "reqps",
            {
                "{{operation}}": total("vecgate_store_failures_total", "operation"),
                "searches that miss objects": f"sum ({rate('vecgate_unseen_objects_total')})",
            },
        ),
    ],
    "Embedders": [
        (
            "Inputs a second",
            "reqps",
            {"{{embedder}} {{outcome}}": total("vecgate_embedder_inputs_total", "embedder, outcome")},
        ),
        ("Inputs that wait", "short", {"{{embedder}}": gauge("vecgate_embedder_queued_inputs", "embedder")}),
        ("Bytes that wait", "bytes", {"{{embedder}}": gauge("vecgate_embedder_queued_bytes", "embedder")}),
        ("Longest wait", "s", {"{{embedder}}": gauge("vecgate_embedder_queue_age_seconds", "embedder", "max")}),
        (
            "Fill of batches, mean",
            "percentunit",
            {
                "{{embedder}}": total("vecgate_embedder_batch_fill_ratio_sum", "embedder")
                + " / "
                + total("vecgate_embedder_batch_fill_ratio_count", "embedder")
            },
        ),
        ("Batches that run", "short", {"{{embedder}}": gauge("vecgate_embedder_running_batches", "embedder")}),
        (
            "Calls without room",
            "reqps",
            {"{{embedder}}": total("vecgate_embedder_refused_calls_total", "embedder")},
        ),
        (
            "Pods in which it works",
            "short",
            {"{{embedder}} ({{space}})": gauge("vecgate_embedder_up", "embedder, space")},
        ),
        (
            "Breakers",
            "short",
            {
                "{{embedder}} open": gauge("vecgate_embedder_breaker_open", "embedder"),
                "{{embedder}} opened a second": total("vecgate_embedder_breaker_opened_total", "embedder"),
            },
        ),
        (
            "Failovers a second",
            "reqps",
            {"{{failed}} to {{asked}}": total("vecgate_embedder_failovers_total", "failed, asked")},
        ),
        (
            "NIM: answers a second",
            "reqps",
            {
                "{{embedder}} {{status}}": total("vecgate_nim_answers_total", "embedder, status"),
                "{{embedder}} retries": total("vecgate_nim_retries_total", "embedder"),
            },
        ),
        (
            "Cache: share of hits",
            "percentunit",
            {
                "{{embedder}}": total("vecgate_embedder_cache_lookups_total", "embedder", 'result=~"hit|joined"')
                + " / "
                + total("vecgate_embedder_cache_lookups_total", "embedder")
            },
        ),
    ],
    "Rerankers": [
        (
            "Reranked hits a second",
            "reqps",
            {
                "{{reranker}} {{outcome}}": total("vecgate_reranker_passages_total", "reranker, outcome"),
                "{{reranker}}: first orders kept a second": total("vecgate_reranker_kept_orders_total", "reranker"),
            },
        ),
        ("Reranking, p95", "s", {"{{reranker}}": quantile(0.95, "vecgate_reranker_seconds", "reranker")}),
        (
            "Searches that wait and that it works for, pods in which it works",
            "short",
            {
                "{{reranker}}: searches that wait": gauge("vecgate_reranker_waiting_calls", "reranker"),
                "{{reranker}}: searches it works for": gauge("vecgate_reranker_running_calls", "reranker"),
                "{{reranker}}: pods": gauge("vecgate_reranker_up", "reranker"),
            },
        ),
    ],
    "Evaluations of collections": [
        (
            "Faults by kind",
            "short",
            {
                "{{collection}} {{tenant}} {{vector}} {{kind}}": newest(
                    "vecgate_evaluation_faults", "collection, tenant, vector, kind", "max"
                )
            },
        ),
        (
            "Index recall",
            "percentunit",
            {
                "{{collection}} {{tenant}} {{vector}}": newest(
                    "vecgate_evaluation_index_recall_ratio", "collection, tenant, vector", "min"
                )
            },
        ),
        (
            "Time since the last evaluation",
            "s",
            {
                "{{collection}} {{tenant}} {{vector}}": "time() - "
                + gauge("vecgate_evaluation_time_seconds", "collection, tenant, vector", "max")
            },
        ),
    ],
    "Imports": [
        ("Objects a second", "reqps", {"{{outcome}}": total("vecgate_import_objects_total", "outcome")}),
        ("Vectors a second", "reqps", {"{{origin}}": total("vecgate_import_vectors_total", "origin")}),
        ("Pods that reach Weaviate", "short", {"pods": gauge("vecgate_store_up")}),
    ],
    "Images by URI": [
        ("Fetches a second", "reqps", {"{{outcome}}": total("vecgate_image_fetches_total", "outcome")}),
        ("Fetched bytes a second", "Bps", {"bytes": f"sum ({rate('vecgate_image_fetched_bytes_total')})"}),
        (
            "Duration of a fetch",
            "s",
            {f"p{share * 100:.0f}": quantile(share, "vecgate_image_fetch_seconds") for share in (0.5, 0.95)},
        ),
    ],
    "Pods": [
        (
            "Memory",
            "bytes",
            {
                "{{pod}}": f"process_resident_memory_bytes{{{HERE}}}",
                "{{pod}} weights on {{device}}": f"vecgate_model_bytes{{{HERE}}}",
                "{{pod}} cache": f"vecgate_embedder_cache_bytes{{{HERE}}}",
            },
        ),
        (
            "CPU and tasks",
            "short",
            {"{{pod}}": rate("process_cpu_seconds_total"), "{{pod}} tasks": f"vecgate_tasks{{{HERE}}}"},
        ),
        (
            "Open files and releases",
            "short",
            {"{{pod}}": f"process_open_fds{{{HERE}}}", "{{pod}} runs {{version}}": f"vecgate_build_info{{{HERE}}}"},
        ),
    ],
}


def make_dashboard() -> str:
    """Return the dashboard as Grafana's JSON."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row, listed in ROWS.items():
        panels.append({"type": "row", "title": row, "gridPos": {"x": 0, "y": top, "w": WIDTH * ACROSS, "h": 1}})
        top += 1
        panels += [
            _panel(panel, x=at % ACROSS * WIDTH, y=top + at // ACROSS * HEIGHT) for at, panel in enumerate(listed)
        ]
        top += -(-len(listed) // ACROSS) * HEIGHT
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    dashboard = {
        "uid": "vecgate",
        "title": "Vecgate",
        "tags": ["vecgate"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"},
                _variable("namespace", "label_values(vecgate_build_info, namespace)"),
                _variable("job", 'label_values(vecgate_build_info{namespace=~"$namespace"}, job)'),
            ]
        },
        "panels": panels,
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "$source"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(panel: Panel, *, x: int, y: int) -> dict[str, Any]:
    title, unit, lines = panel
    return {
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "$source"},
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expression, "legendFormat": legend}
            for at, (legend, expression) in enumerate(lines.items())
        ],
    }
