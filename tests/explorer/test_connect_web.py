"""connect-web calls the server in a real browser: from its own page, and from another origin where that is allowed."""

from typing import Any

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


async def test_a_page_of_the_server_finds_what_grpc_finds_over_every_wire(
    gallery: Serving, page: Page, scripts: Scripts
) -> None:
    with gallery.client() as client:
        expected = [hit.object.id for hit in client.search(COLLECTION, text=WORDS, limit=5).hits]
    await page.goto("/")
    await page.evaluate(scripts.connect)

    for wire in WIRES:
        found = await search(page, wire, gallery.url)

        assert found["ids"] == expected, wire
        assert found["embedder"] in found["embedders"], wire
        assert COLLECTION in found["collections"], wire


async def test_an_error_comes_with_its_code_and_text_over_every_wire(
    gallery: Serving, page: Page, watch: Watch, scripts: Scripts
) -> None:
    watch.expect("status of 404")
    await page.goto("/")
    await page.evaluate(scripts.connect)

    for wire in WIRES:
        found = await search(page, wire, gallery.url, "Missing")

        assert found["code"] == "NotFound", wire
        assert "Missing" in found["message"], wire


async def test_a_page_of_another_origin_is_refused_unless_the_server_lists_it(
    guarded: Guarded, gallery: Serving, new_page: NewPage, watch: Watch, scripts: Scripts
) -> None:
    watch.expect("asked another origin", "CORS policy", "net::ERR_FAILED")
    page = await new_page(guarded.friend)
    await page.goto("/")
    await page.evaluate(scripts.connect)

    for wire in WIRES:
        allowed = await search(page, wire, guarded.server.url, key=guarded.keys["reader"])
        async with page.expect_console_message(lambda message: "CORS policy" in message.text):
            refused = await search(page, wire, gallery.url)

        assert len(allowed["ids"]) == 5, wire
        assert refused["code"] == "Unknown", wire
