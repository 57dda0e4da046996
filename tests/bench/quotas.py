"""Ten times too many calls by three clients of different quotas, beside a bulk import and people who search.

ghz, a load generator of its own, makes the calls; Vecgate and the simulated NIM are processes of their own. It prints
what each client got of its quota, what searches take longer than without all that, and whether memory and health hold.
BENCH_SECONDS sets how long; a minute without it.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any, Self

import grpc
import platformdirs
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.bench.web import process, serve_nim
from tests.e2e.serving import ROOT, Serving, serving
from vecgate.client import Client, Object
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import property_pb2 as property_pb

GHZ = "github.com/bojand/ghz/cmd/ghz@v0.120.0"
SECONDS = int(os.environ.get("BENCH_SECONDS", "60"))
OVERLOAD = 10
QUOTAS = {"small": 4, "middle": 8, "large": 16}
"""Inputs a second, by client."""

UNLOADED_S = 15
SEARCHES_PER_S = 10

HEALTH_EVERY_S = 0.2
COLLECTION = "Shares"


async def bench_quotas() -> None:
    """Print the shares, the searches' p99, the memory and the health."""
    await asyncio.to_thread(_bench)


def _bench() -> None:
    ghz = _ghz()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        settings = {
            "VECGATE_EMBEDDERS__NIM__KIND": "nim",
            "VECGATE_EMBEDDERS__NIM__BASE_URL": str(ends.enter_context(process(serve_nim)).recv()),
            "VECGATE_EMBEDDER__CACHE_BYTES": str(2**20),
            "VECGATE_AUTH__CLIENTS_FILE": str(_write_clients(folder / "clients.toml")),
        }
        server = ends.enter_context(serving(folder / "data", **settings))
        bulk = ends.enter_context(server.client(api_key=_key("bulk")))
        _fill(bulk)
        unloaded = _report(_start_searches(ghz, server, UNLOADED_S))
        began_bytes = psutil.Process(server.process.pid).memory_info().rss
        watch = ends.enter_context(_Watch(server))
        importing = ends.enter_context(_Import(bulk))
        loads = {name: _start_embedding(ghz, server, name, rate * OVERLOAD) for name, rate in QUOTAS.items()}
        loaded = _report(_start_searches(ghz, server, SECONDS))
        reports = {name: _report(load) for name, load in loads.items()}
    for name, rate in QUOTAS.items():
        codes = reports[name]["statusCodeDistribution"]
        done, offered = codes.pop("OK", 0), reports[name]["count"]
        refused = codes.pop("ResourceExhausted", 0)
        print(f"client {name}: {offered / SECONDS:.0f} calls a second, {done / (rate * SECONDS):.2f} of its quota of "
              f"{rate} inputs a second done (goal 0.9 to 1.1), {refused} refused, other ends {codes}")  # fmt: skip
    before, during = _percentiles(unloaded), _percentiles(loaded)
    print(f"searches by text beside an import of {importing.stored / SECONDS:.0f} objects a second: p99 "
          f"{during[99]:.0f} ms, {during[99] / before[99]:.1f} x the {before[99]:.0f} ms of a server at rest (goal 3); "
          f"p50 {during[50]:.0f} and {before[50]:.0f} ms; ends {loaded['statusCodeDistribution']}")  # fmt: skip
    print(f"memory {began_bytes / 2**20:.0f} to at most {watch.peak_bytes / 2**20:.0f} MiB; health SERVING in "
          f"{watch.healthy} of {watch.asked} answers; {importing.failed} objects of the import failed")  # fmt: skip


def _ghz() -> Path:
    """Return ghz, built once into the cache."""
    target = platformdirs.user_cache_path("vecgate") / "ghz" / GHZ.rpartition("@")[2] / "ghz"
    if not target.exists():
        go = shutil.which("go")
        assert go is not None, "this benchmark needs Go to build ghz"
        environment = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(target.parent)}
        subprocess.run([go, "install", "-ldflags", "-s -w", GHZ], env=environment, check=True)
    return target


def _key(client: str) -> str:
    return f"key-of-{client}"


def _write_clients(file: Path) -> Path:
    permissions = {name: ["embed"] for name in QUOTAS} | {"people": ["search"], "bulk": ["write", "admin"]}
    parts = []
    for name, allowed in permissions.items():
        digest = hashlib.sha256(_key(name).encode()).hexdigest()
        parts.append(f'[clients.{name}]\nkeys_sha256 = ["{digest}"]\npermissions = {json.dumps(allowed)}')
        if name in QUOTAS:
            parts.append(f"[clients.{name}.quota]\ninputs_per_second = {QUOTAS[name]}")
    file.write_text("\n".join(parts))
    return file


def _fill(client: Client) -> None:
    title = property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)
    client.create_collection(
        collection_pb.Collection(
            name=COLLECTION, properties=[title], vectors=[{"name": "default", "text_fields": [{"name": "title"}]}]
        )
    )
    assert not [each for each in client.import_objects(COLLECTION, islice(_objects(), 500)) if each.error]


NUMBERS = count()
"""Makes every text another one, so that none is answered from what was embedded before."""


def _objects() -> Iterator[Object]:
    return (Object({"title": f"object {number}"}) for number in NUMBERS)


def _start_embedding(ghz: Path, server: Serving, client: str, rate: int) -> "subprocess.Popen[str]":
    data = {"inputs": [{"text": client + " {{.RequestNumber}}"}]}
    return _start(ghz, server, client, "EmbeddingService/EmbedInputs", data, rate, SECONDS)


def _start_searches(ghz: Path, server: Serving, seconds: int) -> "subprocess.Popen[str]":
    data = {"collection": COLLECTION, "near_text": {"concepts": [f"person {seconds} " + "{{.RequestNumber}}"]}}
    return _start(ghz, server, "people", "SearchService/SearchObjects", data, SEARCHES_PER_S, seconds)


def _start(
    ghz: Path, server: Serving, client: str, method: str, data: dict[str, Any], rate: int, seconds: int
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(str(ghz), "--insecure", "--protoset", str(ROOT / "protos/released.binpb"), "-O", "json"),
            *("--call", f"vecgate.v1.{method}", "-d", json.dumps(data)),
            *("-m", json.dumps({"authorization": f"Bearer {_key(client)}"})),
            *("--rps", str(rate), "-c", "20", "-z", f"{seconds}s", "--duration-stop", "wait", "--timeout", "20s"),
            server.address,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def _report(load: "subprocess.Popen[str]") -> dict[str, Any]:
    printed, _ = load.communicate(timeout=SECONDS + 60)
    report: dict[str, Any] = json.loads(printed)
    return report


def _percentiles(report: dict[str, Any]) -> dict[int, float]:
    """Return latencies in milliseconds."""
    return {each["percentage"]: each["latency"] / 1e6 for each in report["latencyDistribution"]}


class _Import:
    """Imports in the background for as long as it is entered."""

    def __init__(self, client: Client) -> None:
        self.stored = 0
        self.failed = 0
        self._client = client
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        for outcome in self._client.import_objects(
            COLLECTION, takewhile(lambda _: not self._ended.is_set(), _objects())
        ):
            self.stored += outcome.error is None
            self.failed += outcome.error is not None


class _Watch:
    """Asks for the health and looks at the memory in the background for as long as it is entered."""

    def __init__(self, server: Serving) -> None:
        self.asked = 0
        self.healthy = 0
        self.peak_bytes = 0
        self._process = psutil.Process(server.process.pid)
        self._address = server.address
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while not self._ended.wait(HEALTH_EVERY_S):
                self.asked += 1
                self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                self.healthy += answer.status == health_pb2.HealthCheckResponse.SERVING
