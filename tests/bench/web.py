"""Benchmarks of the HTTP endpoint. Ratios compare things measured in the same run, in turns.

Weaviate's own module imports through Vecgate, past it straight into a NIM, and through a Vecgate without batches. The
NIM is simulated: 20 ms and 1 ms an input for a pass of at most 64, as a dynamic batcher serves them.
"""

import asyncio
import base64
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import weaviate
from weaviate.classes.init import Auth

from embedders.contract import EmbedderSpec, Embedding, EmbedOptions, Input, InputLimits, Outcome
from service.core.embedder_pool import EmbedderPool
from service.process.log import configure_logging
from service.settings import LogSettings, ServerSettings, WebSettings
from service.web.server import WebServer
from tests.e2e.serving import serving
from tests.fakes.embedder import watched
from tests.fakes.nim import FakeNim
from tests.fakes.weaviate import variables_at_ports

PICTURES = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "data/pictures").glob("*.png"))][:200]
KEY = "bench-key"
DIMENSION = 1024
PICTURE_BYTES = 10_000
ROUNDS = 3
SMALL_REQUESTS = 4000
CALLERS = 16
PASS_S, INPUT_S, MOST = 0.020, 0.001, 64
FRESH = itertools.count()
"""Makes every text and picture another one, so that none is answered from what was embedded before."""


class NoEmbedder:
    """Answers at once with one vector for everything: what is left is the HTTP server."""

    spec = EmbedderSpec(
        name="none", model="none", space="none", dimension=DIMENSION, limits=InputLimits(), max_batch=64
    )

    def __init__(self) -> None:
        row = np.random.default_rng(0).standard_normal(DIMENSION)
        self._outcome = Embedding((row / np.linalg.norm(row)).astype(np.float32), 5)

    async def start(self) -> None:
        """Do nothing."""

    async def embed(self, inputs: list[Input], options: EmbedOptions) -> list[Outcome]:
        """Return the vector."""
        del options
        return [self._outcome for _ in inputs]

    async def check(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


class SlowNim(FakeNim):
    """A NIM with a dynamic batcher: what waits when a pass ends makes the next one."""

    def __init__(self) -> None:
        super().__init__(dimension=DIMENSION)
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._passes: asyncio.Task[None] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a post, and keep nothing of it."""
        answer = super().answer(request)
        self.requests.clear()
        self.headers.clear()
        return answer

    async def _post(self, content: bytes, headers: dict[str, str], fault: Any) -> tuple[int, dict[str, Any]]:
        items = json.loads(content)["input"]
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((1 if isinstance(items, str) else len(items), done))
        if self._passes is None or self._passes.done():
            self._passes = asyncio.create_task(self._run())
        await done
        return await super()._post(content, headers, fault)

    async def _run(self) -> None:
        while self._waiting:
            taken, size = [], 0
            while self._waiting and size + self._waiting[0][0] <= MOST:
                count, done = self._waiting.pop(0)
                size += count
                taken.append(done)
            await asyncio.sleep(PASS_S + INPUT_S * size)
            for done in taken:
                if not done.done():
                    done.set_result(None)


def serve_nothing(pipe: Connection) -> None:
    """Serve NoEmbedder on the first core until told to end; the pipe gets the port, then the CPU seconds used."""

    async def serve() -> None:
        pool = EmbedderPool([watched(NoEmbedder())], check_interval_s=3600)
        await pool.start()
        await pool.first_checks()
        server = WebServer(WebSettings(port=0), ServerSettings(), embedders=pool)
        await server.start()
        pipe.send(server.port)
        while await asyncio.to_thread(pipe.recv):
            pipe.send(time.process_time())
        await server.stop()
        await pool.close()

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    level = pipe.recv()
    configure_logging(LogSettings(level=level, format="json"))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    asyncio.run(serve())


def serve_nim(pipe: Connection) -> None:
    """Serve SlowNim until told to end; the pipe gets its address."""

    async def serve() -> None:
        async with SlowNim() as nim:
            pipe.send(nim.base_url)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(serve())


@contextmanager
def process(target: Callable[[Connection], None], *first: object) -> Iterator[Connection]:
    """Run a function with its end of a pipe in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    running = context.Process(target=target, args=(theirs,))
    running.start()
    for each in first:
        ours.send(each)
    try:
        yield ours
    finally:
        ours.send(None)
        running.join(30)


async def ask(url: str, model: str, count: int, callers: int) -> list[float]:
    """Send one text a request, each caller on a connection of its own, and return the seconds of each."""
    host, _, port = url.removeprefix("http://").partition(":")
    took: list[float] = []

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(count // callers):
            text = f"text {next(FRESH)}"
            body = json.dumps({"input": [text], "model": model, "encoding_format": "float"}).encode()
            started = time.perf_counter()
            writer.write(
                b"POST /v1/embeddings HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer any\r\ncontent-type: "
                b"application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 200 " in head.partition(b"\r\n")[0], head
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            took.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(caller() for _ in range(callers)))
    return took


def bench_web() -> None:
    """Print how many small requests the HTTP server itself answers, by the CPU time that they cost it."""
    for level, what in (("info", "with access lines"), ("warning", "without access lines")):
        with process(serve_nothing, level) as pipe:
            url = f"http://127.0.0.1:{pipe.recv()}"
            costs, rates = [], []
            for _ in range(ROUNDS):
                pipe.send(True)
                before = pipe.recv()
                started = time.perf_counter()
                asyncio.run(ask(url, "none", SMALL_REQUESTS, CALLERS))
                rates.append(SMALL_REQUESTS / (time.perf_counter() - started))
                pipe.send(True)
                costs.append((pipe.recv() - before) / SMALL_REQUESTS)
        cost = statistics.median(costs)
        print(f"HTTP server, a text and a vector of {DIMENSION} floats a request, {what}: {cost * 1e6:.0f} us of CPU, "
              f"{1 / cost:.0f}/s a core ({statistics.median(rates):.0f}/s seen from {CALLERS} callers; "
              "goal 2500/s a core)")  # fmt: skip


def connect(log_line: dict[str, Any]) -> weaviate.WeaviateClient:
    """Return a client of the Weaviate that a Vecgate runs."""
    ports = [int(str(log_line[name]).rpartition(":")[2]) for name in ("weaviate", "weaviate_grpc")]
    return weaviate.connect_to_local(
        port=ports[0],
        grpc_port=ports[1],
        auth_credentials=Auth.api_key(KEY),
        headers={"X-Nvidia-Api-Key": "any"},
        skip_init_checks=True,
    )


def fresh_picture(content: bytes, number: int) -> bytes:
    """Return a picture of PICTURE_BYTES that nothing has seen before."""
    # What stands behind a PNG's end is not part of the picture.
    return (content + str(number).encode()).ljust(PICTURE_BYTES)


def import_by_module(client: weaviate.WeaviateClient, url: str, model: str) -> float:
    """Import a text and a picture an object through the module, as its documentation does; return objects a second."""
    client.collections.delete("Bench")
    # Its own way to write the address puts a slash at the end, which a NIM need not take.
    module = {"baseURL": url, "model": model, "imageFields": ["image"], "textFields": ["title"]}
    collection = client.collections.create_from_dict(
        {
            "class": "Bench",
            "properties": [{"name": "title", "dataType": ["text"]}, {"name": "image", "dataType": ["blob"]}],
            "vectorConfig": {
                "default": {"vectorizer": {"multi2vec-nvidia": module}, "vectorIndexType": "hnsw"},
            },
        }
    )
    started = time.perf_counter()
    with collection.batch.fixed_size(50, concurrent_requests=2) as batch:
        for content in PICTURES:
            number = next(FRESH)
            image = base64.b64encode(fresh_picture(content, number)).decode()
            batch.add_object({"title": f"picture {number}", "image": image})
    took = time.perf_counter() - started
    assert collection.batch.failed_objects == [], collection.batch.failed_objects[0]
    assert len(collection) == len(PICTURES)
    return len(PICTURES) / took


def in_turns(**works: Callable[[], float]) -> dict[str, float]:
    """Return the median of what each work returns, all run in turns after one round to warm up."""
    values: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS + 1):
        for name, work in works.items():
            value = work()
            if number:
                values[name].append(value)
    return {name: statistics.median(each) for name, each in values.items()}


def bench_web_nim() -> None:
    """Print what Vecgate in between costs where a NIM does the work."""
    with ExitStack() as ends:
        nim = str(ends.enter_context(process(serve_nim)).recv())
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        vecgate = ends.enter_context(
            serving(
                folder,
                VECGATE_WEAVIATE__API_KEY=KEY,
                VECGATE_EMBEDDERS__NIM__KIND="nim",
                VECGATE_EMBEDDERS__NIM__BASE_URL=nim,
                VECGATE_LOG__LEVEL="info",
            )
        )
        url = vecgate.url
        client = ends.enter_context(connect(vecgate.wait_for("serving")))
        model = "nvidia/nvclip"
        rates = in_turns(
            direct=lambda: import_by_module(client, nim, model), between=lambda: import_by_module(client, url, model)
        )
        single = in_turns(
            direct=lambda: statistics.median(asyncio.run(ask(nim, model, 60, 1))),
            between=lambda: statistics.median(asyncio.run(ask(url, model, 60, 1))),
        )
    print(f"the module importing {len(PICTURES)} objects of a text and a picture: {rates['direct']:.0f} objects/s "
          f"straight into the NIM, {rates['between'] / rates['direct']:.2f} of that through Vecgate "
          "(goal 0.9)")  # fmt: skip
    print(f"one text, one caller: p50 {single['direct'] * 1000:.1f} ms at the NIM, "
          f"{(single['between'] - single['direct']) * 1000:.1f} ms more through Vecgate (goal 2)")  # fmt: skip


def bench_web_batches() -> None:
    """Print what coalescing across the module's requests gains with the bundled model."""
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        first = ends.enter_context(serving(folder / "one", VECGATE_WEAVIATE__API_KEY=KEY))
        line = first.wait_for("serving")
        http, grpc = (int(str(line[name]).rpartition(":")[2]) for name in ("weaviate", "weaviate_grpc"))
        second = ends.enter_context(
            serving(
                folder / "two",
                VECGATE_WEAVIATE__API_KEY=KEY,
                VECGATE_WEAVIATE__EMBEDDED="false",
                VECGATE_EMBEDDERS__CLIP__KIND="clip",
                VECGATE_EMBEDDERS__CLIP__MAX_BATCH="1",
                **variables_at_ports(http, grpc),
            )
        )
        urls = {"coalescing": first.url, "alone": second.url}
        client = ends.enter_context(connect(line))
        cpu = {name: psutil.Process(each.process.pid) for name, each in (("coalescing", first), ("alone", second))}
        used = {name: each.cpu_times().user for name, each in cpu.items()}
        rates = in_turns(
            **{name: lambda url=url: import_by_module(client, url, "pictogram-clip") for name, url in urls.items()}
        )
        used = {name: each.cpu_times().user - used[name] for name, each in cpu.items()}
    print(f"the module importing with the bundled model: {rates['alone']:.0f} objects/s with batches of 1, "
          f"{rates['coalescing'] / rates['alone']:.2f} of that with batches across requests, "
          f"for {used['coalescing'] / used['alone']:.2f} of the CPU time (goals: over 1, under 1)")  # fmt: skip
