"""Every snippet of every page, run where it can be and checked where it cannot."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme
import yaml

from helm.tools.helm import HELM
from service.access.clients import read_clients
from service.fetching import read_origins
from service.settings import load_settings
from service.sources import Mapping
from tests.e2e.serving import Serving, serving
from tests.e2e.stand_in import PROGRAMS
from tests.helm.render import render
from tests.pages import ROOT, Block, blocks, pages
from vecgate.client import Client

PAGES = [page for page in pages() if blocks(page)]
DAYS = {str(UUID(int=number)): f"day {number} at the sea" for number in range(1, 41)}
# What a page takes for granted.
HOLIDAYS = f"""
from vecgate.client import Client, Object
from vecgate.v1.collection_service_pb2 import Collection
client = Client("127.0.0.1:50070")
client.create_collection(
    Collection(
        name="Holidays",
        properties=[{{"name": "title", "data_type": "DATA_TYPE_TEXT"}}],
        vectors=[{{"name": "default", "text_fields": [{{"name": "title"}}]}}],
    )
)
list(client.import_objects("Holidays", [Object({{"title": title}}, id=id_) for id_, title in {DAYS}.items()]))
"""
# Bound as the page binds it, which then changes nothing.
ARTICLES = """
client.create_collection(
    Collection(
        name="Articles",
        properties=[{"name": "title", "data_type": "DATA_TYPE_TEXT"}, {"name": "photo", "data_type": "DATA_TYPE_BLOB"}],
        vectors=[
            {
                "name": "default",
                "text_fields": [{"name": "title", "weight": 0.25}],
                "image_fields": [{"name": "photo", "weight": 0.75}],
            }
        ],
    )
)
"""
BEFORE = {"service/README.md": HOLIDAYS + ARTICLES}


@pytest.fixture(scope="module")
def running(weaviate_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Run a server with the bundled model and the sample pictures, as `make run` does."""
    with serving(tmp_path_factory.mktemp("data")) as server:
        # As the demo does it.
        options = ["import", "tests/data/pictures", "--collection", "Pictures", "--text-field", "name=0.5"]
        program = [sys.executable, "-m", "service", "--address", server.address, *options]
        subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        yield server


@pytest.fixture
def site(running: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Go to a folder with the project's files and the files that pages name, and leave the sample pictures alone."""
    for each in ROOT.iterdir():
        (tmp_path / each.name).symlink_to(each)
    authority = trustme.CA()
    certificate = authority.issue_cert("vecgate")
    certificate.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "tls.crt"))
    for name in ("clients.crt", "company.pem"):
        authority.cert_pem.write_to_path(str(tmp_path / name))
    (tmp_path / "archive.token").write_text("a token", encoding="utf-8")
    queries = [json.dumps({"text": title, "answers": [id_]}) for id_, title in DAYS.items()]
    (tmp_path / "queries.jsonl").write_text("\n".join(queries), encoding="utf-8")
    (tmp_path / "map.toml").touch()
    (tmp_path / "bulk-rayjob.yaml").touch()
    picture = (ROOT / "tests/data/pictures/pizza.png").read_bytes()
    products = {"sku": ["a-1"], "title": ["a pizza"], "photo": [picture]}
    pq.write_table(pa.table(products), tmp_path / "products.parquet")
    (tmp_path / "products.csv").write_text("sku,photo\na-1,tests/data/pictures/pizza.png\n", encoding="utf-8")
    for name in ("nim", "vit-h-14.safetensors"):
        (tmp_path / name).write_text("any")
    for name in PROGRAMS:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.e2e.stand_in {name} "$@"\n')
        program.chmod(0o755)
    HELM.install()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("VECGATE_ADDRESS", running.address)
    # A refusal is not what a page's curl is to show.
    (tmp_path / ".curlrc").write_text("fail-with-body\n")
    monkeypatch.setenv("CURL_HOME", str(tmp_path))
    yield tmp_path
    with Client(running.address) as client:
        for alias in client.list_aliases():
            client.delete_alias(alias.name)
        for collection in client.list_collections():
            if collection.name != "Pictures":
                client.delete_collection(collection.name)


def here(code: str, running: Serving, site: Path) -> str:
    """Return a snippet with this machine's addresses and folders."""
    code = code.replace("127.0.0.1:50070", running.address).replace("http://127.0.0.1:8070", running.url)
    return re.sub(r"/run/secrets|/etc/ssl|/models(?=/)", str(site), code).replace("source .venv/bin/activate\n", "")


def run(block: Block, scope: dict[str, Any], running: Serving, site: Path) -> None:
    code = here(block.code, running, site)
    match block.language:
        case "python":
            exec(compile(code, block.page, "exec"), scope)
        case "sh":
            subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True, timeout=120)
        case "yaml":
            assert render(yaml.safe_load(code))
        case "toml" if code.startswith("[clients."):
            assert read_clients(code.encode(), block.page)
        case "toml" if code.startswith("[origins."):
            assert read_origins(code.encode(), block.page)
        case "toml" if "[columns]" in code:
            file = site / "map.toml"
            file.write_text(code, encoding="utf-8")
            assert Mapping.load(file).columns
        case "toml":
            file = site / "settings.toml"
            file.write_text(code, encoding="utf-8")
            with mock.patch.dict(os.environ, VECGATE_CONFIG_FILE=str(file)):
                assert load_settings()
        case "json":
            json.loads(code)
        case _:
            assert block.language == "", f"nobody checks {block.language}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_snippets_of_a_page_do_what_they_say(page: Path, running: Serving, site: Path) -> None:
    scope: dict[str, Any] = {}
    exec(here(BEFORE.get(str(page.relative_to(ROOT)), ""), running, site), scope)

    # Snippets with a name stand beside those of Weaviate's documentation, in test_snippets.
    for block in blocks(page):
        if not block.name:
            run(block, scope, running, site)


def test_the_pictures_in_the_readme_are_what_the_search_finds(running: Serving, site: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (query,) = re.findall(r'^vecgate search "(.*?)"', text, re.MULTILINE)
    shown = re.findall(r"!\[\]\((tests/data/pictures/.*?)\)", text)

    with Client(running.address) as client:
        hits = client.search("Pictures", text=query, limit=len(shown)).hits

    assert [f"tests/data/pictures/{hit.object.properties['path']}" for hit in hits] == shown
