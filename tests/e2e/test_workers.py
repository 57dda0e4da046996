"""Several server processes for one address: how callers, operators and Prometheus meet them."""

import asyncio
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.process.ports import free_ports
from service.settings import ServerSettings
from tests.e2e.serving import Serving, serving, tiny_model
from tests.e2e.test_prometheus import page, use
from tests.e2e.test_rolling_restart import nim, nim_in_thread
from tests.fakes.clients import key_of, write_clients
from tests.fakes.nim_server import Fault
from tests.service.web.test_server import write_certificate
from vecgate.client import Client, Health, VecgateError

CONNECTIONS = 16
"""So many, that no worker gets none of them but once in 30,000 times."""


@pytest.fixture(scope="module")
def nim_settings() -> Iterator[dict[str, str]]:
    with nim() as address:
        yield {"VECGATE_EMBEDDERS__NIM__KIND": "nim", "VECGATE_EMBEDDERS__NIM__BASE_URL": address}


@pytest.fixture(scope="module")
def running(
    weaviate_binary: None, nim_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("workers")
    with serving(folder / "data", **nim_settings, VECGATE_SERVER__WORKERS="2") as server:
        yield server


def workers_of(server: Serving) -> list[psutil.Process]:
    """Return the server processes."""
    return [each for each in psutil.Process(server.process.pid).children() if "run_worker" in str(each.cmdline())]


def connections(server: Serving, ends: ExitStack, **options: Any) -> list[Client]:
    """Return clients with a connection each; the log names the calls of the first one conn-0."""
    return [
        ends.enter_context(
            Client(
                server.address,
                timeout_s=60,
                metadata=[("x-request-id", f"conn-{number}")],
                options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)],
                **options,
            )
        )
        for number in range(CONNECTIONS)
    ]


def worker_of(server: Serving, number: int) -> int:
    """Return the worker that has the connection of a client, waiting for its line."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for line in reversed(list(server.log)):
            if line.get("request_id") == f"conn-{number}":
                return int(line["worker"])
        time.sleep(0.05)
    raise AssertionError(f"no call of connection {number}")


def test_connections_are_spread_and_a_killed_worker_fails_its_own_calls_alone_and_comes_back(running: Serving) -> None:
    ended = threading.Event()

    def call_until_the_end(client: Client) -> list[str]:
        failures = []
        while not ended.is_set():
            try:
                client.embed(["a dog"])
            except VecgateError as error:
                failures.append(error.code.name)
                time.sleep(0.1)
        return failures

    with ExitStack() as ends:
        clients = connections(running, ends)
        for client in clients:
            client.embed(["a cat"])
        workers = [worker_of(running, number) for number in range(CONNECTIONS)]
        pool = ends.enter_context(ThreadPoolExecutor(CONNECTIONS))
        ends.callback(ended.set)
        calling = [pool.submit(call_until_the_end, client) for client in clients]
        killed = workers_of(running)[0]
        killed.kill()
        line = running.wait_for("worker_died")
        again = wait_for_another_worker(running, line["worker"])
        ended.set()
        failures = [each.result() for each in calling]
        for client in clients:
            client.embed(["a bird"])

    assert set(workers) == {1, 2}
    assert line["signal"] == "SIGKILL"
    assert again
    assert {code for each in failures for code in each} <= {"UNAVAILABLE"}
    hit = {worker for worker, failed in zip(workers, failures, strict=True) if failed}
    assert hit <= {line["worker"]}
    assert len(workers_of(running)) == 2


def wait_for_another_worker(server: Serving, number: int) -> bool:
    """Wait until a worker serves for the second time."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        serving = [line for line in list(server.log) if line["event"] == "worker_serving" and line["worker"] == number]
        if len(serving) > 1:
            return True
        time.sleep(0.05)
    return False


def test_every_worker_is_healthy_and_one_line_says_that_the_server_serves(running: Serving) -> None:
    with ExitStack() as ends:
        for client in connections(running, ends):
            # A worker serves before its first check of the NIM has ended.
            end = time.monotonic() + 60
            while client.health() is not Health.SERVING:
                assert time.monotonic() < end
                time.sleep(0.1)
    for _ in range(CONNECTIONS):
        with urllib.request.urlopen(f"{running.url}/v1/health/ready") as answer:
            assert answer.status == 200
    told = [line for line in running.log if line["event"] == "serving"]
    assert [line["workers"] for line in told] == [2]


def test_calls_in_json_reach_every_worker_and_are_answered_alike(running: Serving) -> None:
    numbers = range(1000, 1000 + CONNECTIONS)
    vectors = set()
    for number in numbers:
        answer = embed_in_json(running, **{"x-request-id": f"conn-{number}"})
        vectors.add(answer.json()["results"][0]["embedding"]["vector"]["data"])

    assert len(vectors) == 1
    assert len({worker_of(running, number) for number in numbers}) == 2


def embed_in_json(server: Serving, **headers: str) -> httpx.Response:
    """Embed a text over a new connection."""
    url = f"{server.url}/vecgate.v1.EmbeddingService/EmbedInputs"
    return httpx.post(url, json={"inputs": [{"text": "a dog"}]}, headers=headers, timeout=30)


def families(text: str) -> dict[str, set[tuple[str, ...]]]:
    """Return the names of the samples of a page, each with the names of its labels."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).add(tuple(sorted(sample.labels)))
    return found


def test_each_worker_shows_the_metrics_of_the_whole_server_by_the_names_of_one_process(
    running: Serving, nim_settings: dict[str, str], tmp_path: Path
) -> None:
    with serving(tmp_path / "data", **nim_settings) as one:
        use(one)
        of_one = families(page(one))
    use(running)

    pages = [page(running) for _ in range(CONNECTIONS)]

    # Nothing was refused or killed there, and what has not happened yet has no labels.
    assert {name: labels for name, labels in families(pages[0]).items() if name in of_one} == of_one
    assert {name for name in families(pages[0]) if name not in of_one} == set()
    asked = 'vecgate_http_requests_total{client="anonymous",code="200",route="GET /metrics"}'
    counted = [float(line.split()[-1]) for text in pages for line in text.splitlines() if line.startswith(asked)]
    assert counted == sorted(counted)
    assert counted[-1] - counted[0] >= CONNECTIONS - 2


def test_each_worker_tells_the_status_of_the_whole_server(running: Serving) -> None:
    def embeddings(client: Client) -> int:
        methods = client.server_status().methods
        return sum(each.seconds.count for each in methods if each.name.endswith("/EmbedInputs"))

    with ExitStack() as ends:
        clients = connections(running, ends)
        before = embeddings(clients[0])
        for client in clients:
            client.embed(["a dog"])
        counted = {embeddings(client) - before for client in clients}
        told = [client.server_status() for client in clients]

    assert counted == {CONNECTIONS}
    assert {each.workers for each in told} == {2}
    assert len({each.start_time.ToNanoseconds() for each in told}) == 1
    assert {each.max_calls for each in told} == {2 * ServerSettings().max_calls}


def test_a_quota_counts_whatever_worker_a_connection_reaches(
    weaviate_binary: None, nim_settings: dict[str, str], tmp_path: Path
) -> None:
    quota = "[clients.poor.quota]\ninputs_per_second = 0.01"
    file = write_clients(tmp_path / "clients.toml", poor=f'permissions = ["embed"]\n{quota}')
    settings = {"VECGATE_AUTH__CLIENTS_FILE": str(file), "VECGATE_SERVER__WORKERS": "2"}
    with serving(tmp_path / "data", **nim_settings, **settings) as server, ExitStack() as ends:
        clients = connections(server, ends, api_key=key_of("poor"))
        clients[0].embed(["a dog", "a cat"])
        refused = []
        for client in clients:
            with pytest.raises(VecgateError) as caught:
                client.embed(["a dog"])
            refused.append(caught.value)
        workers = {worker_of(server, number) for number in range(CONNECTIONS)}
        in_json = embed_in_json(server, authorization=f"Bearer {key_of('poor')}")

        # A key that is gone is refused by each worker once it has read the file again.
        write_clients(file, rich='permissions = ["embed"]')
        end = time.monotonic() + 60
        while len({line["worker"] for line in server.log if line["event"] == "clients_read_again"}) < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        for client in clients:
            with pytest.raises(VecgateError, match="unknown API key"):
                client.embed(["a dog"])

    assert workers == {1, 2}
    assert {(error.code.name, error.reason) for error in refused} == {("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")}
    assert all(100 < (error.retry_after_s or 0) <= 200 for error in refused)
    assert (in_json.status_code, in_json.json()["code"]) == (429, "resource_exhausted")
    assert [each["debug"].get("reason") for each in in_json.json()["details"]].count("QUOTA_EXCEEDED") == 1


def test_workers_share_the_processes_of_a_local_model_which_outlive_them_but_not_their_parent(
    weaviate_binary: None, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "model")
    with serving(tmp_path / "data", **model, VECGATE_SERVER__WORKERS="2") as server, ExitStack() as ends:
        clients = connections(server, ends)
        before = [client.embed(["a dog"]).items[0].vector for client in clients]
        workers = {worker_of(server, number) for number in range(CONNECTIONS)}
        models = models_of(psutil.Process(server.process.pid))
        in_workers = [models_of(each) for each in workers_of(server)]
        for each in workers_of(server):
            each.kill()
        for number in (1, 2):
            assert wait_for_another_worker(server, number)
        again = ends.enter_context(server.client(timeout_s=60)).embed(["a dog"]).items[0].vector
        same = models_of(psutil.Process(server.process.pid))
        server.process.kill()
        left = psutil.wait_procs(models, timeout=30)[1]

    assert workers == {1, 2}
    assert models
    assert in_workers == [[], []]
    assert same == models
    assert all(np.array_equal(vector, again) for vector in before)
    assert left == []


def models_of(process: psutil.Process) -> list[psutil.Process]:
    """Return the processes below another that run a model."""
    return [each for each in process.children(recursive=True) if "model_process" in str(each.cmdline())]


def test_a_drain_lets_calls_finish_in_all_workers_and_leaves_nothing(
    weaviate_binary: None, nim_settings: dict[str, str], tmp_path: Path
) -> None:
    with serving(tmp_path / "data", **nim_settings, VECGATE_SERVER__WORKERS="2") as server, ExitStack() as ends:
        clients = connections(server, ends)
        for client in clients:
            client.embed(["a dog"])
        processes = psutil.Process(server.process.pid).children(recursive=True)
        workers = workers_of(server)
        # A terminal sends Ctrl-C to the whole group of the program.
        groups = {os.getpgid(each.pid) for each in workers} | {os.getpgid(server.process.pid)}
        pool = ends.enter_context(ThreadPoolExecutor(CONNECTIONS))
        calls = [pool.submit(client.embed, [f"{n}" for n in range(500)]) for client in clients]
        time.sleep(0.05)
        for each in workers:
            each.send_signal(signal.SIGTERM)
        code = server.end(signal.SIGINT)
        failures = [error for call in calls if (error := call.exception()) is not None]

    assert code == 0
    assert len(groups) == 3
    assert {error.code.name for error in failures if isinstance(error, VecgateError)} <= {"UNAVAILABLE"}
    assert psutil.wait_procs(processes, timeout=5)[1] == []


def test_calls_in_flight_in_every_worker_are_answered_before_a_drain_ends(
    weaviate_binary: None, tmp_path: Path
) -> None:
    with nim_in_thread() as (fake, loop), ExitStack() as ends:
        settings = {
            "VECGATE_EMBEDDERS__NIM__KIND": "nim",
            "VECGATE_EMBEDDERS__NIM__BASE_URL": fake.base_url,
            "VECGATE_SERVER__WORKERS": "2",
            "VECGATE_SERVER__DRAIN_DELAY_S": "5",
        }
        server = ends.enter_context(serving(tmp_path / "data", **settings))
        clients = connections(server, ends)
        for client in clients:
            client.embed(["a dog"])
        workers = [worker_of(server, number) for number in range(CONNECTIONS)]
        # So few of each worker that the NIM gets all at once, however the system has shared out the connections.
        callers = [
            client
            for worker in (1, 2)
            for client in [each for each, own in zip(clients, workers, strict=True) if own == worker][:3]
        ]
        gate = asyncio.Event()
        ends.callback(loop.call_soon_threadsafe, gate.set)
        fake.forget()
        fake.fault = Fault(gate=gate)
        pool = ends.enter_context(ThreadPoolExecutor(CONNECTIONS))
        calls = [pool.submit(client.embed, [f"dog {number}"]) for number, client in enumerate(callers)]
        until(lambda: sum(len(each["input"]) for each in fake.requests) == len(callers))

        server.process.send_signal(signal.SIGTERM)
        until(lambda: all(client.health() is Health.NOT_SERVING for client in clients))
        loop.call_soon_threadsafe(gate.set)
        vectors = [call.result().items[0].vector for call in calls]
        code = server.end()

    assert set(workers) == {1, 2}
    assert all(vector is not None for vector in vectors)
    assert code == 0


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_every_worker_takes_a_renewed_certificate_and_keeps_its_connections(
    weaviate_binary: None, nim_settings: dict[str, str], tmp_path: Path
) -> None:
    files = {f"VECGATE_SERVER__{name.upper()}": str(file) for name, file in write_certificate(tmp_path).items()}
    settings = nim_settings | files | {"VECGATE_SERVER__WORKERS": "2"}

    def embed(clients: list[Client]) -> set[int]:
        for client in clients:
            client.embed(["a dog"])
        return {worker_of(server, number) for number in range(CONNECTIONS)}

    def known() -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials((tmp_path / "authority.pem").read_bytes())

    def all_have_read_it() -> bool:
        # They look when a connection comes.
        with ExitStack() as tries, suppress(VecgateError):
            for client in connections(server, tries, credentials=known()):
                client.embed(["a dog"])
        read = [line for line in list(server.log) if line["event"] == "certificate_read_again"]
        return {line["worker"] for line in read if line["group"] == "server"} == {1, 2}

    with serving(tmp_path / "data", **settings) as server, ExitStack() as ends:
        before = known()
        old = connections(server, ends, credentials=before)
        workers = embed(old)
        write_certificate(tmp_path)
        until(all_have_read_it)
        new = connections(server, ends, credentials=known())
        workers_of_new = embed(new)
        embed(old)
        with pytest.raises(VecgateError) as refused:
            connections(server, ends, credentials=before)[0].embed(["a dog"])

    assert workers == workers_of_new == {1, 2}
    assert refused.value.code.name == "UNAVAILABLE"


def test_a_kill_of_the_parent_leaves_no_process_and_frees_the_address(
    weaviate_binary: None, nim_settings: dict[str, str], tmp_path: Path
) -> None:
    settings = nim_settings | {"VECGATE_SERVER__WORKERS": "2", "VECGATE_SERVER__PORT": str(*free_ports(1))}
    with serving(tmp_path / "data", **settings) as first:
        first.wait_for("serving")
        processes = psutil.Process(first.process.pid).children(recursive=True)
        kinds = len(workers_of(first)), first.weaviate() in processes
        first.process.kill()
        left = psutil.wait_procs(processes, timeout=30)[1]
        assert kinds == (2, True)
        assert left == []

        with serving(tmp_path / "data", **settings) as second, second.client() as client:
            assert client.embed(["a dog"]).items[0].vector is not None


@pytest.mark.parametrize("port", ["VECGATE_SERVER__PORT", "VECGATE_WEB__PORT"])
def test_a_port_that_another_program_shares_ends_the_start_before_anything_is_started(
    port: str, nim_settings: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        taken = str(other.getsockname()[1])
        settings = nim_settings | {"VECGATE_SERVER__WORKERS": "2", port: taken}
        with serving(tmp_path / "data", **settings) as server:
            line = server.wait_for("cannot_start")
            code = server.process.wait(60)

    assert code == 1
    assert taken in line["reason"]
    assert port in line["reason"]
    assert [each["event"] for each in server.log] == ["settings", "cannot_start"]
    assert not (tmp_path / "data").exists()


def test_a_signal_during_a_slow_start_ends_it(nim_settings: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path / "data", **nim_settings, VECGATE_SERVER__WORKERS="2") as server:
        server.wait_for("settings")
        end = time.monotonic() + 60
        while not (processes := psutil.Process(server.process.pid).children(recursive=True)):
            assert time.monotonic() < end
            time.sleep(0.01)
        code = server.end(signal.SIGTERM)

    assert code == 0
    assert psutil.wait_procs(processes, timeout=5)[1] == []
