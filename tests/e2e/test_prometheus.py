"""What a real Prometheus gets from a running Vecgate."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helm.tools.prometheus import prometheus, promtool
from service.process.metrics_table import all_exposed
from service.process.ports import free_ports
from tests.e2e.serving import Serving, serving, tiny_model
from vecgate.client import Object, VecgateError
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import evaluation_service_pb2 as evaluation_pb
from vecgate.v1 import property_pb2 as property_pb

SCRAPE_S = 90


@pytest.fixture(scope="module")
def running(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    model = tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    with serving(tmp_path_factory.mktemp("scraped"), **model) as server:
        use(server)
        yield server


def use(server: Serving) -> None:
    """Make calls of every kind: embed, import with an object at fault, search, fail."""
    with server.client() as client:
        client.embed(["a dog", "a cat"])
        client.embed(["a dog"])
        client.create_collection(
            pb.Collection(
                name="Seen",
                properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
                vectors=[{"name": "default", "text_fields": [{"name": "title"}]}],
            )
        )
        objects = [Object({"title": "a dog"}), Object({"title": "a cat"}), Object({"title": 3})]
        assert len([each for each in client.import_objects("Seen", objects) if each.error]) == 1
        assert client.search("Seen", text="a dog").hits
        evaluation = evaluation_pb.EvaluateCollectionRequest(collection="Seen", objects={})
        assert [each for each in client.evaluate_collection(evaluation) if each.HasField("evaluation")]
        with pytest.raises(VecgateError):
            client.search("Nowhere", text="a dog")
    urllib.request.urlopen(f"{server.url}/v1/models").close()


def page(server: Serving) -> str:
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        return str(answer.read().decode())


def test_promtool_finds_nothing_to_say_of_the_metrics(running: Serving) -> None:
    ours = "".join(line for line in page(running).splitlines(keepends=True) if "vecgate_" in line)

    done = subprocess.run([promtool(), "check", "metrics"], input=ours, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture(scope="module")
def scraped(running: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Prometheus that scrapes the server, and return the address of its API."""
    folder = tmp_path_factory.mktemp("prometheus")
    target = running.url.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "vecgate", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [prometheus(), "--config.file=prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, f"--web.listen-address={address}"], cwd=folder, stderr=log)
        try:
            wait_for_a_scrape(address, folder / "log")
            yield address
        finally:
            server.terminate()
            server.wait(60)


def wait_for_a_scrape(address: str, log: Path) -> None:
    end = time.monotonic() + SCRAPE_S
    while time.monotonic() < end:
        try:
            if query(address, "vecgate_build_info"):
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8"))


def query(address: str, expression: str) -> dict[tuple[str, ...], float]:
    """Return what Prometheus answers: values by the labels that Vecgate gave, in the order of their names."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    hidden = {"__name__", "instance", "job"}
    return {
        tuple(value for name, value in sorted(each["metric"].items()) if name not in hidden): float(each["value"][1])
        for each in found
    }


def test_prometheus_knows_every_metric_of_the_readme_once_it_was_used(scraped: str) -> None:
    unused = {"vecgate_embedder_failovers_total", "vecgate_nim_answers_total", "vecgate_nim_retries_total"}
    # The server has one embedder, which is no NIM, and no reranker.
    unused |= {f"vecgate_reranker_{name}" for name in ("up", "seconds", "waiting_calls", "running_calls")}
    unused |= {f"vecgate_reranker_{name}_total" for name in ("passages", "kept_orders")}
    missing = {each.name for each in all_exposed() if each.labels and not query(scraped, f"count({each.samples[0]})")}

    assert missing == unused


def test_prometheus_counts_what_was_done(scraped: str) -> None:
    service = "vecgate.v1.SearchService/SearchObjects"
    calls = query(scraped, f'vecgate_grpc_calls_total{{method="{service}"}}')

    assert calls == {("anonymous", "NOT_FOUND", service): 1, ("anonymous", "OK", service): 1}
    assert query(scraped, "vecgate_import_objects_total") == {
        ("stored",): 2,
        ("skipped",): 0,
        ("rejected",): 1,
        ("failed",): 0,
    }
    assert query(scraped, "vecgate_import_vectors_total > 0") == {("computed",): 2}
    assert query(scraped, "vecgate_failures_total > 0") == {("caller", "COLLECTION_NOT_FOUND"): 1}
    assert query(scraped, "vecgate_store_up") == {(): 1}
    assert query(scraped, "vecgate_embedder_up").popitem()[1] == 1
    assert query(scraped, 'vecgate_store_seconds_count{operation="put_objects"}') == {("put_objects",): 1}
    assert query(scraped, "vecgate_embedder_queued_inputs") == {("clip",): 0}
    assert query(scraped, "vecgate_embedder_inputs_total") == {
        ("clip", "embedded"): 4,
        ("clip", "failed"): 0,
        ("clip", "rejected"): 0,
    }
    assert query(scraped, 'vecgate_http_requests_total{route="GET /v1/models"}') == {
        ("anonymous", "200", "GET /v1/models"): 1
    }
    assert query(scraped, "vecgate_evaluation_index_recall_ratio") == {("Seen", "default"): 1}
    faults = query(scraped, 'vecgate_evaluation_faults{kind="VECTORS_MISSING"}')
    assert faults == {("Seen", "VECTORS_MISSING", "default"): 0}
    assert 0 <= query(scraped, "time() - vecgate_evaluation_time_seconds")[("Seen", "default")] < SCRAPE_S * 60
    assert query(scraped, "vecgate_model_bytes")[("cpu", "clip")] > 10_000
    assert query(scraped, "sum(vecgate_embedder_queue_seconds_count) by (priority)")[("interactive",)] > 0
