"""What containers under test meet in their network.

`nim` serves a NIM, and `stores FOLDER` a Weaviate, with its data in the folder, and an S3 server with tables of
pictures: both print the environment variables by which a container finds them. `call ADDRESS` makes an EmbedInputs
call, and `probe URL` a kubelet's request: both print what they are told.
"""

import asyncio
import io
import json
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from service.settings import WeaviateSettings
from service.store.embedded.server import EmbeddedWeaviate
from tests.bench import tables
from tests.fakes.embedder import picture
from tests.fakes.nim import FakeNim
from tests.fakes.weaviate import at_ports, variables_of
from vecgate.client import Client, Health

TEXTS = ("a dog", "a bicycle")
ROWS, FILES = 48, 3
PROBE_S = 5.0


def tell(variables: Mapping[str, str]) -> None:
    """Print what the containers are given."""
    sys.stdout.write(f"{json.dumps(variables)}\n")
    sys.stdout.flush()


async def serve_nim() -> None:
    """Serve a NIM on a free port of loopback until this process is ended."""
    async with FakeNim() as nim:
        tell({"VECGATE_EMBEDDERS__NIM__KIND": "nim", "VECGATE_EMBEDDERS__NIM__BASE_URL": nim.base_url})
        await asyncio.Event().wait()


async def serve_stores(folder: Path) -> None:
    """Run Weaviate and an S3 server until this process is ended; Weaviate ends with it."""
    with ExitStack() as ends:
        bucket, variables = ends.enter_context(tables.s3())
        bucket.meta.client.create_bucket(Bucket="jobs")
        for file in range(FILES):
            numbers = range(file, ROWS, FILES)
            columns = {"sku": list(map(str, numbers)), "image": list(map(tables.varied_picture, numbers))}
            table = io.BytesIO()
            pq.write_table(pa.table(columns), table)
            bucket.put_object(Key=f"2026/{file}.parquet", Body=table.getvalue())
        weaviate = EmbeddedWeaviate(WeaviateSettings(embedded=True, data_dir=folder, **at_ports(0, 0)))
        await weaviate.start()
        tell({**variables, **variables_of(weaviate.client_settings)})
        await asyncio.Event().wait()


def call(address: str) -> dict[str, object]:
    """Embed two texts and a picture, and return what came back."""
    with Client(address) as client:
        answer = client.embed([*TEXTS, picture()])
        return {
            "alive": client.health("liveness") is Health.SERVING,
            "embedding": client.health("vecgate.v1.EmbeddingService") is Health.SERVING,
            # With Weaviate.
            "whole": client.health() is Health.SERVING,
            "model": answer.embedder.model,
            "shape": list(answer.matrix().shape),
        }


def probe(url: str) -> dict[str, object]:
    """Return the answer to a probe; an exception if it fails."""
    with urllib.request.urlopen(url, timeout=PROBE_S) as answer:
        return {"status": answer.status, "body": answer.read().decode()}


if __name__ == "__main__":
    # What it answers goes to standard output, alone.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    match sys.argv[1:]:
        case ["nim"]:
            asyncio.run(serve_nim())
        case ["stores", folder]:
            asyncio.run(serve_stores(Path(folder)))
        case ["call", address]:
            json.dump(call(address), sys.stdout)
        case ["probe", url]:
            json.dump(probe(url), sys.stdout)
