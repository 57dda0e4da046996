"""What is around the page: a proxy with its own path, a server that is gone and comes back, or that has no page."""

import asyncio
import re
from pathlib import Path

from playwright.async_api import expect

from service.process.ports import free_ports
from service.store.embedded.server import EmbeddedWeaviate
from tests.e2e.serving import Serving, serving
from tests.explorer.conftest import NewPage
from tests.explorer.loopback import proxied
from tests.explorer.scenes import at_rest, results, run_evaluation, search_by_words
from tests.explorer.watching import GONE, Watch
from tests.fakes.weaviate import variables_of


async def test_everything_works_under_a_path_of_a_proxy(gallery: Serving, new_page: NewPage) -> None:
    async with proxied(gallery.url, "/~tools/pictures") as url:
        page = await new_page(url)

        await search_by_words(page, "a dog")
        await results(page).first.get_by_role("link", name="Show").click()

        await expect(page.get_by_role("heading", name="Properties")).to_be_visible()
        await expect(page).to_have_url(re.compile(f"^{re.escape(url)}/#/object"))
        for name in ("Map", "Compare", "Evaluate", "Import", "Collections", "Status"):
            await page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
            await expect(page.get_by_role("heading", level=1)).to_have_text(name)
            await at_rest(page)
            await expect(page.get_by_role("alert")).to_have_count(0)
        await page.goto("#/evaluate?collection=Pictures&by=captions&property=name&limit=5&ways=present;alpha=0")
        await run_evaluation(page)  # a stream
        await page.context.close()


def without_model(weaviate: EmbeddedWeaviate, **settings: str) -> dict[str, str]:
    """Return settings of a server that starts quickly: it can list objects, and its embedder does not answer."""
    return {
        "VECGATE_EMBEDDERS__NIM__KIND": "nim",
        "VECGATE_EMBEDDERS__NIM__BASE_URL": "http://127.0.0.1:9",
        "VECGATE_EMBEDDERS__NIM__MODEL": "nvidia/nvclip",
        **variables_of(weaviate.client_settings),
        **settings,
    }


async def test_an_embedder_of_another_space_and_a_server_that_is_gone_are_told_and_a_return_needs_no_new_page(
    gallery: Serving, weaviate: EmbeddedWeaviate, new_page: NewPage, watch: Watch, tmp_path: Path
) -> None:
    watch.expect(*GONE, "status of 4")
    (port,) = free_ports(1)
    settings = without_model(weaviate, VECGATE_WEB__PORT=str(port))
    with serving(tmp_path, **settings) as first:
        await asyncio.to_thread(first.wait_for, "serving")
        page = await new_page(first.url)
        await page.goto("#/search?collection=Pictures&words=a+dog")
        note = page.get_by_role("alert")
        await expect(note).to_contain_text("EMBEDDING_SPACE_MISMATCH")
        await expect(note.get_by_role("button", name="Try again")).to_have_count(0)
        await page.goto("#/search?collection=Pictures")
        await expect(results(page).first).to_be_visible()
        await asyncio.to_thread(first.end)

        await page.get_by_label("Sorted by").select_option("path")

        await expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    with serving(tmp_path, **settings) as second:
        await asyncio.to_thread(second.wait_for, "serving")

        await page.get_by_role("button", name="Try again").click()

        await expect(results(page).first).to_contain_text("abacus")
        await page.context.close()


async def test_a_server_without_the_explorer_has_no_page_and_answers_calls(
    gallery: Serving, weaviate: EmbeddedWeaviate, new_page: NewPage, watch: Watch, tmp_path: Path
) -> None:
    watch.expect("status of 404")
    with serving(tmp_path, **without_model(weaviate, VECGATE_WEB__EXPLORER="false")) as server:
        page = await new_page(await asyncio.to_thread(lambda: server.url))

        statuses = [
            answer.status for path in ("/", "/explorer/explorer.js") if (answer := await page.goto(path)) is not None
        ]
        listed = await page.request.post(
            "vecgate.v1.CollectionService/ListCollections", data={}, headers={"content-type": "application/json"}
        )

        assert statuses == [404, 404]
        assert listed.ok
        await page.context.close()
