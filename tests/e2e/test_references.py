"""A table of references on an object store, with pictures there and on the web: by the service, and in bulk."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.domain import hash_image
from service.domain.keys import key_id
from service.settings import WeaviateSettings
from tests.conftest import assert_close
from tests.e2e.serving import ROOT, Serving, serving, tiny_model
from tests.fakes.embedder import picture
from tests.fakes.weaviate import variables_of
from tests.service import conftest
from vecgate.client import Client
from vecgate.v1 import collection_service_pb2 as pb

bucket, s3 = conftest.bucket, conftest.s3

MAPPING = """
images = "s3://pictures/images"

[columns]
sku = "id, sku"
photo = "photo, link"
"""
ROWS = 8


class Site:
    """Files of a folder on a web server, and the paths that it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        site = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *args: object) -> None: ...

            def do_GET(self) -> None:
                site.asked.append(self.path)
                super().do_GET()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    """A site that is listed, and another one."""
    (tmp_path / "web" / "p").mkdir(parents=True)
    found = Site(tmp_path / "web"), Site(tmp_path / "web")
    threads = [threading.Thread(target=each.server.serve_forever) for each in found]
    for thread in threads:
        thread.start()
    yield found
    for each in found:
        each.server.shutdown()
        each.server.server_close()
    for thread in threads:
        thread.join()


@pytest.fixture
def variables(weaviate_settings: WeaviateSettings, sites: tuple[Site, Site], tmp_path: Path) -> dict[str, str]:
    """Settings of the server and of the bulk job."""
    listed, _ = sites
    (tmp_path / "origins.toml").write_text(f'[origins.site]\nurl = "{listed.url}/p/"\nprivate_addresses = true\n')
    return {
        **tiny_model(tmp_path / "tiny"),
        **variables_of(weaviate_settings),
        "VECGATE_FETCH__ORIGINS_FILE": str(tmp_path / "origins.toml"),
    }


@pytest.fixture
def server(variables: dict[str, str], tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path / "data", **variables) as running:
        yield running


def picture_of(number: int) -> bytes:
    return picture((number * 30, 255 - number * 30, 90))


def write(sites: tuple[Site, Site], bucket: Any, folder: Path) -> None:
    """Write the pictures, and the table: half of its rows refer to the object store, and the last two are faulty."""
    listed, other = sites
    for number in range(ROWS):
        (folder / "web" / "p" / f"{number}.png").write_bytes(picture_of(number))
        bucket.put_object(Key=f"images/{number}.png", Body=picture_of(number))
    bucket.put_object(Key="secret/0.png", Body=picture_of(0))
    on_store = ["s3://pictures/images/{}.png", "{}.png"]
    photos = [(on_store[n // 2 % 2] if n % 2 else listed.url + "/p/{}.png").format(n) for n in range(ROWS)]
    photos += [f"{other.url}/p/0.png", "s3://pictures/secret/0.png"]
    views = [f"{listed.url}/p/{number}.png" for number in range(ROWS)] + [None, None]
    table = pa.table({"sku": [f"sku-{number}" for number in range(ROWS + 2)], "photo": photos, "view": views})
    pq.write_table(table, folder / "t.parquet")
    bucket.upload_file(str(folder / "t.parquet"), "tables/t.parquet")
    (folder / "map.toml").write_text(MAPPING)


def create(client: Client, name: str) -> None:
    """Create a collection that stores of a photo the hash and the reference, and of a view the reference alone."""
    texts = [{"name": each, "data_type": "DATA_TYPE_TEXT"} for each in ("sku", "link", "view")]
    vectors = [{"name": f"by_{each}", "image_fields": [{"name": each}]} for each in ("photo", "view")]
    client.create_collection(
        pb.Collection(
            name=name,
            properties=[*texts, {"name": "photo", "data_type": "DATA_TYPE_BLOB_HASH"}],
            vectors=vectors,
        )
    )


def command(folder: Path, variables: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, with the environment of the object store."""
    program = [sys.executable, "-m", "service", *options]
    where = ["s3://pictures/tables/*.parquet", "--map", str(folder / "map.toml")]
    return subprocess.run(
        [*program, *where],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)
def test_a_table_of_references_is_stored_alike_by_the_service_and_in_bulk(
    server: Serving, variables: dict[str, str], sites: tuple[Site, Site], bucket: Any, tmp_path: Path
) -> None:
    write(sites, bucket, tmp_path)
    with Client(server.address) as client:
        for name in ("ByService", "InBulk"):
            create(client, name)

        tried = command(tmp_path, variables, "bulk", "--dry-run", "--collection", "InBulk")
        by_service = command(tmp_path, {}, "--address", server.address, "import", "--collection", "ByService")
        in_bulk = command(tmp_path, variables, "bulk", "--collection", "InBulk", "--ledger", str(tmp_path / "ledger"))

        assert "8 rows tried without a fault, 2 would be refused; nothing is stored" in tried.stdout, tried
        assert "photo: IMAGE_URI_NOT_ALLOWED: this server fetches no pictures from there" in tried.stdout
        assert (by_service.returncode, by_service.stdout.splitlines()[0]) == (1, "ByService: 8 stored, 2 failed")
        assert "IMAGE_URI_NOT_ALLOWED" in by_service.stdout
        assert "it refers to a picture outside the folder of pictures" in by_service.stdout
        assert in_bulk.returncode == 0, in_bulk
        assert "10 rows in = 8 stored + 2 rejected + 0 duplicates" in in_bulk.stdout
        rejected = pq.read_table(tmp_path / "ledger" / "rejected").to_pylist()
        assert {(each["place"], each["reason"]) for each in rejected} == {
            ("t.parquet, row 9", "IMAGE_URI_NOT_ALLOWED"),
            ("t.parquet, row 10", "ROW_REFUSED"),
        }
        listed, other = sites
        assert {*listed.asked} == {f"/p/{number}.png" for number in range(ROWS)}
        assert other.asked == []
        for number in range(ROWS):
            check_same(client, f"sku-{number}", hash_image(picture_of(number)))
        for name in ("ByService", "InBulk"):
            client.delete_collection(name)


def check_same(client: Client, sku: str, digest: str) -> None:
    """Check that an object is the same in both collections, with the same vector from both of its references."""
    one, other = (
        client.get_object(
            name,
            key_id(name, sku),
            return_properties=["sku", "link", "view", "photo"],
            return_vectors=["by_photo", "by_view"],
        )
        for name in ("ByService", "InBulk")
    )
    assert one.properties == other.properties
    assert (one.properties["sku"], one.properties["photo"]) == (sku, digest)
    for each in (one, other):
        assert_close(each.vectors["by_photo"], one.vectors["by_view"], 1e-5)
        assert_close(np.linalg.norm(each.vectors["by_view"]), 1.0, 1e-5)
