"""A server with a model of a common size and random weights, under several times the load that it can take.

The server is a process of its own. Load and server share the machine's cores.
"""

import asyncio
import io
import itertools
import json
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import psutil
from PIL import Image

from tests.e2e.serving import Serving
from tests.fakes.weaviate import variables_at_ports
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.input_pb2 import Image as PbImage
from vecgate.v1.input_pb2 import Input as PbInput

ARCHITECTURE = "ViT-B-32"
WORDS = (
    "red",
    "green",
    "blue",
    "old",
    "big",
    "dog",
    "cat",
    "house",
    "car",
    "tree",
    "boat",
    "ball",
    "shoe",
    "horse",
    "train",
)
OVERLOADS = (3, 10)
OVERLOAD_SECONDS = 30.0
DEADLINE_S = 5.0

Request = embedding_pb.EmbedInputsRequest


def write_random_clip(folder: Path) -> Path:
    """Write ARCHITECTURE with random weights in open_clip's folder form."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    model = open_clip.create_model(ARCHITECTURE)
    config = {"model_cfg": open_clip.get_model_config(ARCHITECTURE), "preprocess_cfg": model.visual.preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@contextmanager
def server(model: Path, **settings: str) -> Iterator[Serving]:
    """Run a Vecgate without cache and without Weaviate, which embedding does not need."""
    running = Serving(
        model.parent,
        VECGATE_EMBEDDERS__CLIP__KIND="clip",
        VECGATE_EMBEDDERS__CLIP__MODEL=str(model),
        VECGATE_EMBEDDER__CACHE_BYTES="0",
        VECGATE_WEAVIATE__EMBEDDED="false",
        **variables_at_ports(9, 10),
        **settings,
    )
    try:
        yield running
    finally:
        running.end()


def new_texts() -> Iterator[str]:
    rng = random.Random(7)
    return (" ".join(rng.choice(WORDS) for _ in range(8)) for _ in itertools.count())


def new_pictures() -> Iterator[bytes]:
    """Yield JPEG files of 640 x 480 of which no two neighbours are the same."""
    rng = np.random.default_rng(7)
    files = []
    for _ in range(40):
        noise = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        file = io.BytesIO()
        noise.resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return itertools.cycle(files)


async def served_rate(address: str, requests: Iterator[Request], callers: int, seconds: float) -> float:
    """Return the inputs a second that closed-loop callers of one input each get."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = EmbeddingServiceStub(channel)
        done = 0
        started = time.perf_counter()

        async def caller() -> None:
            nonlocal done
            while time.perf_counter() - started < seconds:
                response = await stub.EmbedInputs(next(requests))
                assert response.results[0].HasField("embedding")
                done += 1

        await asyncio.gather(*(caller() for _ in range(callers)))
        return done / (time.perf_counter() - started)


async def bench_overload(folder: Path) -> None:
    """Print what is left of the capacity when several times as many calls come, and how soon the others are refused.

    Load and server share the machine, and the capacity is measured with nearly all of it; what the load itself took is
    printed beside. Ten times the texts of a small machine are more calls than its cores can even refuse beside the
    model's work; pictures show what the queue does.
    """
    pictures = (Request(inputs=[PbInput(image=PbImage(content=file))]) for file in new_pictures())
    texts = (Request(inputs=[PbInput(text=text)]) for text in new_texts())
    for name, requests, callers, queued in (("pictures", pictures, 16, 32), ("texts", texts, 64, 256)):
        settings = {"VECGATE_EMBEDDER__MAX_QUEUED_INPUTS": str(queued), "VECGATE_LIMITS__MAX_INPUTS": str(queued)}
        with server(folder, **settings) as running:
            process = psutil.Process(running.process.pid)
            capacity = statistics.median([await served_rate(running.address, requests, callers, 6) for _ in range(3)])
            for overload in OVERLOADS:
                before_bytes, load_s = process.memory_info().rss, time.process_time()
                answered, refused_s, hints, peak = await _flood(running.address, requests, overload * capacity, process)
                load_s = time.process_time() - load_s
                print(
                    f"{overload} x overload with {name} for {OVERLOAD_SECONDS:.0f} s: "
                    f"{answered / OVERLOAD_SECONDS / capacity:.2f} of the capacity of {capacity:.0f} a second "
                    f"(goal 0.90; the load itself took {load_s / OVERLOAD_SECONDS / (psutil.cpu_count() or 1):.2f} "
                    f"of the machine), {len(refused_s)} refused in {statistics.median(refused_s) * 1000:.0f} ms at the "
                    f"median (goal 50), {hints / max(1, len(refused_s)):.0%} with RetryInfo, "
                    f"memory {before_bytes / 2**20:.0f} to {peak / 2**20:.0f} MiB"
                )


async def _flood(
    address: str, requests: Iterator[Request], rate: float, process: psutil.Process
) -> tuple[int, list[float], int, int]:
    answered, hints, peak = 0, 0, 0
    refused_s: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = EmbeddingServiceStub(channel)

        async def call(request: Request) -> None:
            nonlocal answered, hints
            begun_s = time.perf_counter()
            try:
                await stub.EmbedInputs(request, timeout=DEADLINE_S)
                answered += 1
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    refused_s.append(time.perf_counter() - begun_s)
                    hints += any(
                        b"RetryInfo" in value for _, value in error.trailing_metadata() if isinstance(value, bytes)
                    )

        calls: set[asyncio.Task[None]] = set()
        started = time.perf_counter()
        sent = 0
        while (now := time.perf_counter() - started) < OVERLOAD_SECONDS:
            while sent < now * rate:
                task = asyncio.create_task(call(next(requests)))
                calls.add(task)
                task.add_done_callback(calls.discard)
                sent += 1
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.005)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    return answered, refused_s, hints, peak
