"""How long Vecgate takes from its start to its first answers.

BENCH_BESIDE names the folder of another checkout with a .venv of its own, such as the last release; both start in
turns.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import grpc
import psutil

from service.process.ports import free_ports
from tests.bench.web import process, serve_nim
from tests.fakes.weaviate import variables_at_ports
from vecgate.client import Client, Object
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.input_pb2 import Input
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

ROOT = Path(__file__).parents[2]
ROUNDS = 3
GATEWAY_S, BUNDLED_S = 2.0, 6.0
"""The goals."""
UNLIKE_INSTALLED = "PYTHONDONTWRITEBYTECODE"
"""With it each start would compile all of Python's code, which the images and a second start have compiled."""
PATIENCE_S = 60.0
PAUSE_S = 0.01
LISTED = search_pb.SearchObjectsRequest(collection="Started", near_text=search_pb.NearText(concepts=["a dog"]), limit=1)
EMBEDDED = embedding_pb.EmbedInputsRequest(inputs=[Input(text="a dog")])

Answer = Callable[[grpc.Channel], object]


class Start(NamedTuple):
    """Seconds from the start of a server: to its first answers, and of CPU of all its processes but Weaviate's."""

    embed_s: float
    search_s: float
    cpu_s: float
    rss_mb: float


def wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    """Wait until the server listens: a channel that began before would make pauses."""
    end = time.monotonic() + PATIENCE_S
    while running.poll() is None and time.monotonic() < end:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(PAUSE_S)
    raise AssertionError("the server does not start")


def first_answer(channel: grpc.Channel, ask: Answer) -> None:
    """Ask until there is an answer."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            ask(channel)
        except grpc.RpcError:
            if time.monotonic() > end:
                raise
            time.sleep(PAUSE_S)
        else:
            return


def embed(channel: grpc.Channel) -> None:
    """Ask for the vector of a text."""
    assert EmbeddingServiceStub(channel).EmbedInputs(EMBEDDED).results[0].HasField("embedding")


def search(channel: grpc.Channel) -> None:
    """Search by a text."""
    assert SearchServiceStub(channel).SearchObjects(LISTED).hits


def environment_of_installed() -> dict[str, str]:
    """Return this process's environment without what would make a start unlike one of an installed server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("VECGATE_", UNLIKE_INSTALLED))}


@contextmanager
def started(root: Path, port: int, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a checkout's server."""
    python = sys.executable if root == ROOT else root / ".venv" / "bin" / "python"
    environment = environment_of_installed()
    environment |= {"VECGATE_SERVER__PORT": str(port), "VECGATE_WEB__PORT": "0", **settings}
    running = subprocess.Popen([python, "-m", "service", "serve"], env=environment, cwd=root, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(60)


def start(root: Path, settings: dict[str, str], *, searches: bool) -> Start:
    """Start a checkout's server, ask it, and end it."""
    (port,) = free_ports(1)
    began = time.perf_counter()
    with started(root, port, settings) as running:
        wait_for(port, running)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            first_answer(channel, embed)
            embed_s = search_s = time.perf_counter() - began
            if searches:
                first_answer(channel, search)
                search_s = time.perf_counter() - began
        cpu_s, rss_mb = 0.0, 0.0
        parent = psutil.Process(running.pid)
        for each in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                if "weaviate" not in each.name():
                    times = each.cpu_times()
                    cpu_s += times.user + times.system
                    rss_mb += each.memory_full_info().pss / 2**20
    return Start(embed_s, search_s, cpu_s, rss_mb)


def fill(settings: dict[str, str]) -> None:
    """Store one object, so that the measured starts have something to load and to find."""
    (port,) = free_ports(1)
    with started(ROOT, port, settings) as running:
        wait_for(port, running)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            first_answer(channel, embed)
        with Client(f"127.0.0.1:{port}") as client:
            client.create_collection(
                collection_pb.Collection(
                    name="Started",
                    properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
                    vectors=[{"name": "default", "text_fields": [{"name": "title"}]}],
                )
            )
            assert not [each for each in client.import_objects("Started", [Object({"title": "a dog"})]) if each.error]


def import_s(root: Path) -> float:
    """Return the CPU seconds in which a checkout's Python imports the server."""
    python = sys.executable if root == ROOT else root / ".venv" / "bin" / "python"
    code = "import time, service.cli, service.rpc.server.server, service.store.weaviate, service.web.server"
    said = subprocess.run(
        [python, "-c", f"{code}; print(time.process_time())"],
        cwd=root,
        env=environment_of_installed(),
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    return float(said)


def report(name: str, goal_s: float, settings: dict[str, str], *, searches: bool) -> None:
    """Print the medians of one kind of server."""
    beside = os.environ.get("BENCH_BESIDE")
    roots = [ROOT] if beside is None else [ROOT, Path(beside).absolute()]
    rounds = [[start(root, settings, searches=searches) for root in roots] for _ in range(ROUNDS + 1)][1:]
    for root, *starts in zip(roots, *rounds, strict=True):
        middle = Start(*map(statistics.median, zip(*starts, strict=True)))
        what = f"{name}: first vector after {middle.embed_s:.2f} s"
        if searches:
            what += f", first hit after {middle.search_s:.2f} s"
        imports = statistics.median(import_s(root) for _ in range(ROUNDS))
        print(f"{what} (goal {goal_s:g}); {middle.cpu_s:.2f} s of CPU, of which imports of the server "
              f"{imports:.2f}; {middle.rss_mb:.0f} MB{'' if root == ROOT else f'; at {root}'}", flush=True)  # fmt: skip


def bench_start() -> None:
    """Print how soon a gateway, and a server with the bundled model and its own Weaviate, give their first answers."""
    with process(serve_nim) as pipe:
        nim = {
            "VECGATE_EMBEDDERS__NIM__KIND": "nim",
            "VECGATE_EMBEDDERS__NIM__BASE_URL": str(pipe.recv()),
            "VECGATE_WEAVIATE__EMBEDDED": "false",
            **variables_at_ports(9, 10),
        }
        report("start of a gateway in front of a NIM", GATEWAY_S, nim, searches=False)
    with tempfile.TemporaryDirectory() as folder:
        own = {
            "VECGATE_WEAVIATE__EMBEDDED": "true",
            "VECGATE_WEAVIATE__DATA_DIR": str(Path(folder, "data")),
            **variables_at_ports(0, 0),
        }
        try:
            fill(own)
            report("start with the bundled model and Weaviate", BUNDLED_S, own, searches=True)
        finally:
            shutil.rmtree(Path(folder, "data"), ignore_errors=True)
