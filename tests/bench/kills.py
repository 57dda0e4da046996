"""Bulk jobs under kills: pictures as Parquet and as WebDataset on S3, into a real Weaviate.

The command, an embedder, a writer and Weaviate are killed, each at a moment that a seed decides, and the command is
started again at once after its own end. Then everything is counted by other means than the command's own: each row is
stored once, each object is found by its own vector, pictures that are embedded anew have their stored vectors, and each
rejected row has its reason.

BENCH_OBJECTS sets how many pictures, BENCH_SEED the moments.
"""

import asyncio
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq

from embedders.clip.config import ClipConfig
from embedders.clip.embedder import ClipEmbedder
from embedders.contract import DOCUMENT, Embedding, ImageInput
from service.bulk.loop import BackgroundLoop
from service.domain import (
    Collection,
    DataType,
    NamedVector,
    Property,
    ReturnFields,
    SearchOptions,
    SearchSpec,
    Space,
    StoredObject,
    TargetVectors,
    WeightedField,
)
from service.settings import WeaviateSettings, read_secret
from service.store.embedded.server import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore
from tests.bench.tables import BUCKET, put_table, s3, varied_picture
from tests.e2e.serving import ROOT, tiny_model
from tests.fakes.tiny_clip import DIMENSION
from tests.fakes.weaviate import at_ports, variables_of

PICTURES = int(os.environ.get("BENCH_OBJECTS", "20000"))
SEED = int(os.environ.get("BENCH_SEED", "0"))
NAME = "Kills"
DRIVER, EMBEDDER, WRITER, WEAVIATE = "the command", "an embedder", "a writer", "Weaviate"
VICTIMS = (DRIVER, DRIVER, EMBEDDER, WRITER, WEAVIATE)
STAGES = {EMBEDDER: "MapBatches(Embed)", WRITER: "MapBatches(Write)"}
BROKEN_EVERY, TWICE_EVERY = 500, 400
"""Rows between two that are no picture, and between two that are in the table again."""
POLL_S = 0.25
STRAY_S = 90.0
PAGE, AT_ONCE, NEAREST = 500, 8, (10, 1000)
NEAR = 1e-4
ANEW_EVERY = 10
"""Pictures between two that are embedded anew."""
SAME = 1e-3
"""How far the two vectors of a picture may be apart: batches of another size round otherwise."""


@dataclass
class Kills:
    """What is to be killed, and what became of that.

    Attributes:
        left: moments, as objects in Weaviate, and what is killed then.
        log: what was killed, in words.
        strays: processes of Ray that a killed command left, with the time of the kill.
        lived: how many seconds they lived after it, by name.
        began_s: when the run began, by time.monotonic.
    """

    left: deque[tuple[int, str]]
    log: list[str] = field(default_factory=list)
    strays: dict[psutil.Process, float] = field(default_factory=dict)
    lived: dict[str, float] = field(default_factory=dict)
    began_s: float = field(default_factory=time.monotonic)

    def due(self, stored: int) -> str:
        """Return what is to be killed now that so many objects are stored; empty for nothing."""
        return self.left[0][1] if self.left and stored >= self.left[0][0] else ""

    def kill(self, victim: str, driver: psutil.Process, weaviate: EmbeddedWeaviate, stored: int) -> None:
        """Kill a process, if it is there."""
        below = driver.children(recursive=True)
        if victim == WEAVIATE:
            target = None if weaviate.pid is None else psutil.Process(weaviate.pid)
        elif victim == DRIVER:
            target = driver
        else:
            target = next((each for each in below if STAGES[victim] in _title(each)), None)
        if target is None:
            return
        target.kill()
        self.left.popleft()
        self.log.append(f"{victim} after {stored} objects")
        print(f"  {time.monotonic() - self.began_s:.0f} s: killed {self.log[-1]}", flush=True)
        if victim == DRIVER:
            self.strays |= dict.fromkeys(below, time.monotonic())

    def watch(self) -> None:
        """Note how long processes of a killed command live."""
        for each, killed_s in list(self.strays.items()):
            if not _lives(each):
                del self.strays[each]
                continue
            name = _title(each)[:60] or "?"
            self.lived[name] = max(self.lived.get(name, 0.0), time.monotonic() - killed_s)


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(Path(each).name if at < 2 else each for at, each in enumerate(process.cmdline()))
    return ""


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def bench_kills() -> None:
    """Print what was killed, how long that took, and what is missing at the end."""
    wanted = {number: varied_picture(number) for number in range(PICTURES)}
    broken = set(range(BROKEN_EVERY // 2, PICTURES, BROKEN_EVERY))
    wanted |= dict.fromkeys(broken, b"no picture")
    half = PICTURES // 2
    halves = {"parquet": range(half), "tar": range(half, PICTURES)}
    chance = random.Random(SEED)
    victims = chance.sample(VICTIMS, len(VICTIMS))
    moments = sorted(chance.randrange(PICTURES // 50, PICTURES * 9 // 10) for _ in victims)
    kills = Kills(deque(zip(moments, victims, strict=True)))
    print(f"bulk of {PICTURES} pictures under kills, seed {SEED}:", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        s3() as (bucket, variables),
        _weaviate(Path(folder)) as (loop, server),
    ):
        settings = server.client_settings
        environment = {**variables, **variables_of(settings), **tiny_model(Path(folder) / "model")}
        store = WeaviateStore(settings)
        loop.run(store.start())
        loop.run(store.create_collection(_collection(environment)))
        for suffix, numbers in halves.items():
            table = [(each, wanted[each]) for at in numbers for each in ([at, at] if not at % TWICE_EVERY else [at])]
            began_s = time.monotonic()
            said = _until_done(put_table(bucket, suffix, table), suffix, environment, kills, server)
            print(f"  {suffix}: {len(table)} rows in {time.monotonic() - began_s:.0f} s; the command says at its end:")
            print(*(f"    {line}" for line in said if " rows in" in line or "objects; " in line), sep="\n", flush=True)
        while kills.strays and time.monotonic() - max(kills.strays.values()) < STRAY_S:
            kills.watch()
            time.sleep(POLL_S)
        model = ClipEmbedder(_model(environment))
        loop.run(model.start())
        found = loop.run(_found(store, {each: wanted[each] for each in wanted.keys() - broken}, model))
        loop.run(model.close())
        rejected = _rejected(bucket)
        loop.run(store.close())
    print(f"  {len(kills.log)} of {len(VICTIMS)} were killed")
    for name, seconds in kills.lived.items():
        print(f"  left by a killed command: {name!r} for {seconds:.1f} s")
    print(f"  {found['objects']} objects for {PICTURES - len(broken)} pictures that can be stored; {found['missing']} "
          f"missing, {found['twice']} twice, {found['unexpected']} unexpected, {found['unfound']} not found by their "
          f"own vectors, {found['wrong']} of {found['anew']} have another vector than their picture, "
          f"{len(broken) - rejected} too few rejected rows with a reason (goals 0)")  # fmt: skip


@contextmanager
def _weaviate(folder: Path) -> Iterator[tuple[BackgroundLoop, EmbeddedWeaviate]]:
    """Run a Weaviate that is started again when it dies."""
    loop = BackgroundLoop()
    server = EmbeddedWeaviate(WeaviateSettings(embedded=True, data_dir=folder / "weaviate", **at_ports(0, 0)))
    loop.run(server.start())
    try:
        yield loop, server
    finally:
        loop.run(server.stop())
        loop.close()


def _model(environment: Mapping[str, str]) -> ClipConfig:
    return ClipConfig(model=environment["VECGATE_EMBEDDERS__CLIP__MODEL"])


def _collection(environment: Mapping[str, str]) -> Collection:
    """Return a collection for the space of the tiny model."""
    from service.bulk.pipeline import load_model

    spec = load_model(_model(environment)).spec
    vector = NamedVector("main", Space(spec.space, DIMENSION, spec.model), (WeightedField("image"),))
    return Collection(NAME, (Property("image", DataType.BLOB), Property("number", DataType.INT)), (vector,))


def _until_done(
    url: str, suffix: str, environment: Mapping[str, str], kills: Kills, weaviate: EmbeddedWeaviate
) -> list[str]:
    """Run the command again and again until it is not killed, and return the end of what it says."""
    words = ["bulk", url, "--collection", NAME, "--ledger", f"s3://{BUCKET}/ledger-{suffix}"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("VECGATE_")}
    # Ray's processes would give way to all others, and so wait long on a busy machine.
    own["RAY_worker_niceness"] = "0"
    while True:
        with tempfile.TemporaryFile("w+") as output:
            command = subprocess.Popen(
                [sys.executable, "-m", "service", *words], env=own | environment, cwd=ROOT, stdout=output, stderr=output
            )
            driver = psutil.Process(command.pid)
            try:
                while command.poll() is None:
                    kills.watch()
                    stored = _count(weaviate.client_settings)
                    if victim := kills.due(stored):
                        kills.kill(victim, driver, weaviate, stored)
                    time.sleep(POLL_S)
            finally:
                if command.poll() is None:
                    command.terminate()
                    command.wait()
            output.seek(0)
            said = output.read().splitlines()
        if command.returncode != -signal.SIGKILL:
            assert command.returncode == 0, f"exit code {command.returncode}: {said}"
            return said


def _count(weaviate: WeaviateSettings) -> int:
    """Return how many objects there are; -1 while Weaviate does not answer."""
    key = read_secret(weaviate.api_key, weaviate.api_key_file)
    query = {"query": "{Aggregate{" + NAME + "{meta{count}}}}"}
    try:
        answer = httpx.post(
            f"http://127.0.0.1:{weaviate.http.port}/v1/graphql",
            json=query,
            headers={"Authorization": f"Bearer {key}"},
            timeout=10,
            trust_env=False,
        )
        return int(answer.json()["data"]["Aggregate"][NAME][0]["meta"]["count"])
    except (httpx.HTTPError, LookupError, TypeError, ValueError):
        return -1


async def _found(store: WeaviateStore, wanted: Mapping[int, bytes], model: ClipEmbedder) -> dict[str, int]:
    """Return what is in the collection beside what should be, and how many vectors are not found or not right."""
    seen, unfound, after = Counter[int](), 0, None
    right = list[bool]()
    room = asyncio.Semaphore(AT_ONCE)

    async def look(each: StoredObject) -> bool:
        async with room:
            return await _finds(store, each)

    while True:
        spec = SearchSpec(
            limit=PAGE,
            fields=ReturnFields(properties=["number"], vectors=["main"]),
            options=SearchOptions(after=after),
        )
        hits = await store.search(NAME, spec)
        if not hits:
            break
        after = hits[-1].object.id
        seen.update(int(hit.object.properties["number"]) for hit in hits)
        right += await _right([hit.object for hit in hits], wanted, model)
        unfound += (await asyncio.gather(*(look(hit.object) for hit in hits))).count(False)
    return {
        "objects": seen.total(),
        "missing": len(wanted.keys() - seen.keys()),
        "twice": sum(count > 1 for count in seen.values()),
        "unexpected": len(seen.keys() - wanted.keys()),
        "unfound": unfound,
        "anew": len(right),
        "wrong": right.count(False),
    }


async def _right(objects: Sequence[StoredObject], wanted: Mapping[int, bytes], model: ClipEmbedder) -> list[bool]:
    """Return of some of the objects whether each has the vector of its picture, which is embedded anew."""
    numbers = {int(each.properties["number"]): each.vectors["main"] for each in objects}
    chosen = [each for each in numbers if each in wanted and not each % ANEW_EVERY]
    outcomes = await model.embed([ImageInput(wanted[each]) for each in chosen], DOCUMENT)
    return [
        isinstance(outcome, Embedding) and float(np.linalg.norm(outcome.vector - numbers[number])) < SAME
        for number, outcome in zip(chosen, outcomes, strict=True)
    ]


async def _finds(store: WeaviateStore, stored: StoredObject) -> bool:
    own = stored.vectors["main"]
    for limit in NEAREST:
        hits = await store.search(NAME, SearchSpec(TargetVectors({"main": own}), limit))
        if any(hit.object.id == stored.id for hit in hits):
            return True
        if not hits or (hits[-1].distance or 0.0) > NEAR:
            return False
    return False


def _rejected(bucket: Any) -> int:
    """Return how many rows both ledgers have as no pictures."""
    found = set[str]()
    for each in bucket.objects.all():
        if "/rejected/" in each.key:
            table = pq.read_table(io.BytesIO(each.get()["Body"].read()))
            rows = (row for row in table.to_pylist() if row["reason"] == "IMAGE_UNDECODABLE" and row["message"])
            found.update(f"{row['location']} {row['place']}" for row in rows)
    return len(found)
