"""connect-web calls the server in a real browser: from its own page, and from another origin where that is allowed."""

from typing import Any

import pytest
from playwright.async_api import Page

from service.cli.demo import COLLECTION
from tests.e2e.serving import Serving
from tests.explorer.conftest import Guarded, NewPage
from tests.explorer.scripts import Scripts
from tests.explorer.watching import Watch

WIRES = ("connect-json", "connect-binary", "connect-get", "grpc-web")
WORDS = "a dog"


async def search(page: Page, wire: str, url: str, collection: str = COLLECTION, key: str = "") -> dict[str, Any]:
    """Search by the program in a page, and return what it found, or the error."""
    found: dict[str, Any] = await page.evaluate("(given) => search(...given)", [wire, url, collection, WORDS, key])
    return found


@pytest.mark.parametrize("wire", WIRES)
async def test_a_page_of_the_server_finds_what_grpc_finds(
    wire: str, gallery: Serving, page: Page, scripts: Scripts
) -> None:
    with gallery.client() as client:
        expected = [hit.object.id for hit in client.search(COLLECTION, text=WORDS, limit=5).hits]
    await page.goto("/")
    await page.evaluate(scripts.connect)

    found = await search(page, wire, gallery.url)

    assert found["ids"] == expected
    assert found["embedder"] in found["embedders"]
    assert COLLECTION in found["collections"]


@pytest.mark.parametrize("wire", WIRES)
async def test_an_error_comes_with_its_code_and_text(
    wire: str, gallery: Serving, page: Page, watch: Watch, scripts: Scripts
) -> None:
    watch.expect("status of 404")
    await page.goto("/")
    await page.evaluate(scripts.connect)

    found = await search(page, wire, gallery.url, "Missing")

    assert found["code"] == "NotFound"
    assert "Missing" in found["message"]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_page_of_another_origin_is_refused_unless_the_server_lists_it(
    wire: str, guarded: Guarded, gallery: Serving, new_page: NewPage, watch: Watch, scripts: Scripts
) -> None:
    watch.expect("asked another origin", "CORS policy", "net::ERR_FAILED")
    page = await new_page(guarded.friend)
    await page.goto("/")
    await page.evaluate(scripts.connect)

    allowed = await search(page, wire, guarded.server.url, key=guarded.keys["reader"])
    refused = await search(page, wire, gallery.url)

    assert len(allowed["ids"]) == 5
    assert refused["code"] == "Unknown"
    assert any("CORS policy" in each for each in watch.faults)
