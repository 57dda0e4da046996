"""The status page says what the server does, while it does it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from service.store.embedded.server import EmbeddedWeaviate
from tests.e2e.serving import Serving, serving
from tests.explorer.conftest import Guarded, NewPage
from tests.explorer.watching import Watch
from tests.fakes.nim import FakeNim
from tests.fakes.nim_server import Fault as NimFault
from tests.fakes.proxy import Fault, Proxy
from tests.fakes.weaviate import variables_of
from vecgate.client import VecgateError

REFUSED = r"Failed to load resource: (net::ERR_\w+|the server responded with a status of \d{3})"
"""What Chromium itself says of a call that fails."""

HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class Behind:
    """A server of a test's own, and the ways in which what it needs can fail."""

    def __init__(self, server: Serving, weaviate: list[Proxy], nim: FakeNim | None) -> None:
        self.server = server
        self.weaviate = weaviate
        self.nim = nim


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def behind(weaviate: EmbeddedWeaviate, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Behind]:
    """Run a server with a NIM, and with a Weaviate behind proxies that can cut it off."""
    settings = variables_of(weaviate.client_settings)
    async with AsyncExitStack() as ends:
        nim = await ends.enter_async_context(FakeNim(dimension=8))
        proxies = []
        for name in ("HTTP", "GRPC"):
            variable = f"VECGATE_WEAVIATE__{name}_URL"
            address = settings[variable]
            proxies.append(ends.enter_context(Proxy(int(address.rpartition(":")[2]))))
            settings[variable] = f"{address.rpartition(':')[0]}:{proxies[-1].port}"
        settings |= {"VECGATE_EMBEDDERS__NIM__KIND": "nim", "VECGATE_EMBEDDERS__NIM__BASE_URL": nim.base_url}
        server = ends.enter_context(serving(tmp_path_factory.mktemp("behind"), **settings))
        await asyncio.to_thread(lambda: server.address)
        yield Behind(server, proxies, nim)


def region(page: Page, name: str) -> Locator:
    """Return a part of the page by its heading."""
    return page.get_by_role("region", name=name, exact=False).first


def fact(within: Locator, name: str) -> Locator:
    """Return what stands under a name."""
    return within.locator("dl.short-facts > div").filter(has=within.page.get_by_text(name, exact=True)).locator("dd")


async def test_the_page_shows_what_the_server_says(gallery: Serving, page: Page) -> None:
    await page.goto("#/status")
    with gallery.client() as client:
        client.embed(["what the page will show"])
        status, listed = client.server_status(), client.embedders()

    (embedder,) = listed.embedders
    server, weaviate = region(page, "Server"), region(page, "Weaviate")
    card = page.get_by_role("article", name=f"Embedder {embedder.name}")
    await expect(fact(server, "Release")).to_have_text(status.release)
    await expect(fact(server, "Processes")).to_have_text("1")
    await expect(fact(weaviate, "Version")).to_have_text(status.store.version)
    await expect(weaviate.get_by_role("row", name=status.store.nodes[0].name)).to_contain_text("healthy")
    await expect(card.get_by_text("ready", exact=True)).to_be_visible()
    await expect(fact(card, "Space")).to_have_text(embedder.space)
    await expect(fact(card, "Inputs embedded")).to_have_text(f"{status.embedders[0].embedded_inputs:,}")
    queue = card.get_by_role("meter", name="Queue", exact=True)
    await expect(queue).to_have_attribute("aria-valuemax", str(status.embedders[0].max_queued_inputs))
    await expect(page.get_by_text("everybody may use it")).to_be_visible()


async def test_it_leads_to_the_collections_for_counts_and_missing_vectors(page: Page) -> None:
    await page.goto("#/status")

    await region(page, "Weaviate").get_by_role("link", name="Collections").click()

    await expect(page.get_by_role("heading", name="Collections")).to_be_visible()


async def test_charts_move_with_the_work_and_have_words_and_numbers(gallery: Serving, page: Page) -> None:
    await page.goto("#/status")
    card = page.get_by_role("article", name="Embedder")
    inputs = card.get_by_role("img", name="Inputs, the last two minutes")
    await expect(inputs).to_have_attribute("aria-label", "Inputs, the last two minutes: now 0/s, between 0/s and 0/s")

    with gallery.client() as client:
        client.embed([f"a new text {number}" for number in range(40)])

    await expect(inputs).to_have_attribute("aria-label", re.compile(r"and [1-9][0-9.]*/s$"))
    await expect(card.get_by_role("img", name="Batch, the last two minutes: mean now")).to_be_attached()
    await card.get_by_text("Numbers").click()
    table = card.get_by_role("region", name="Numbers of embedder")
    await expect(table.get_by_role("columnheader", name="Batch, p95")).to_be_visible()
    await expect(table.get_by_role("row").nth(1)).to_be_attached()


async def test_a_weaviate_that_stops_is_shown_and_so_is_its_return(behind: Behind, new_page: NewPage) -> None:
    page = await new_page(behind.server.url)
    await page.goto("#/status")
    weaviate = region(page, "Weaviate")
    await expect(weaviate.get_by_text("answers", exact=True)).to_be_visible()

    for proxy in behind.weaviate:
        proxy.fault = Fault("reset")
        proxy.cut()
    await expect(weaviate.get_by_text("does not answer", exact=True)).to_be_visible()
    await expect(weaviate.locator(".fault")).to_contain_text("Weaviate")

    for proxy in behind.weaviate:
        proxy.fault = None
    await expect(weaviate.get_by_text("answers", exact=True)).to_be_visible()
    await expect(fact(weaviate, "Version")).to_be_visible()


async def test_an_open_breaker_is_shown_and_so_is_its_end(behind: Behind, new_page: NewPage) -> None:
    page = await new_page(behind.server.url)
    await page.goto("#/status")
    card = page.get_by_role("article", name="Embedder nim")
    await expect(card.get_by_text("ready", exact=True)).to_be_visible()
    await expect(fact(card, "Breaker opened")).to_have_text("never")

    assert behind.nim is not None
    behind.nim.fault = NimFault(status=404)
    await asyncio.to_thread(embed_in_vain, behind.server)
    await expect(card.get_by_text("breaker open", exact=True)).to_be_visible()
    await expect(fact(card, "Breaker opened")).to_have_text("once")
    await expect(card.locator(".fault")).to_be_visible()

    behind.nim.fault = None
    await expect(card.get_by_text("ready", exact=True)).to_be_visible()


def embed_in_vain(server: Serving) -> None:
    """Make a call that fails."""
    with server.client() as client, pytest.raises(VecgateError):
        client.embed(["a text that the NIM does not embed"])


async def unlock(page: Page, key: str) -> None:
    """Give the page a client's key."""
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Key or token").fill(key)
    await dialog.get_by_role("button", name="Use this key").click()


async def test_who_uses_what_quota_is_shown_to_admins(guarded: Guarded, new_page: NewPage, watch: Watch) -> None:
    watch.expect(REFUSED)
    with guarded.server.client(api_key=guarded.keys["anna"]) as anna:
        anna.embed(["one", "two"])
    page = await new_page(guarded.server.url)
    await page.goto("#/status")
    await unlock(page, guarded.keys["admin"])

    row = region(page, "Clients").get_by_role("row", name="anna")
    await expect(row.get_by_role("meter", name="Quota of inputs of anna")).to_have_attribute(
        "aria-valuetext", "2 of 0.01"
    )
    await expect(row).to_contain_text("in ")
    await expect(region(page, "Clients").get_by_role("row", name=re.compile("^admin"))).to_contain_text("no quota")


async def test_without_the_permission_the_rest_is_shown(guarded: Guarded, new_page: NewPage, watch: Watch) -> None:
    watch.expect(REFUSED)
    page = await new_page(guarded.server.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto("#/status")
    await unlock(page, guarded.keys["reader"])

    await expect(page.get_by_text("for keys with the permission admin")).to_be_visible()
    await expect(page.get_by_role("article", name="Embedder").get_by_text("ready", exact=True)).to_be_visible()
    await expect(region(page, "Weaviate").get_by_text("answers", exact=True)).to_be_visible()
    await expect(page.get_by_role("heading", name="Clients")).to_have_count(0)
    async with page.expect_request("**/ListEmbedders"):
        pass
    before = [url for url in asked if "GetServerStatus" in url]
    for _ in range(2):
        async with page.expect_request("**/ListEmbedders"):
            pass
    assert [url for url in asked if "GetServerStatus" in url] == before


# Counted in the page: the browser's own reports come late on a busy machine.
COUNT_CALLS = """
  globalThis.asked = 0;
  const real = fetch;
  globalThis.fetch = (...what) => {
    asked++;
    return real(...what);
  };
"""


async def test_a_hidden_page_asks_nothing(gallery: Serving, page: Page) -> None:
    await page.add_init_script(COUNT_CALLS)
    await page.clock.install()
    await page.goto("#/status")
    await expect(region(page, "Server")).to_be_visible()
    # What one answer makes it ask next, it asks now.
    await page.wait_for_load_state("networkidle")

    await page.evaluate(HIDE, True)
    before = await page.evaluate("asked")
    await page.clock.run_for(60_000)
    while_hidden = await page.evaluate("asked")
    async with page.expect_request("**/GetServerStatus"):
        await page.evaluate(HIDE, False)

    assert while_hidden == before > 0


async def test_a_server_that_goes_away_is_told_and_so_is_its_return(
    gallery: Serving, new_page: NewPage, watch: Watch
) -> None:
    watch.expect(REFUSED)
    page = await new_page(gallery.url)
    await page.goto("#/status")
    await expect(region(page, "Server")).to_be_visible()

    await page.context.set_offline(True)
    await expect(page.get_by_text("No answer since")).to_be_visible()
    await expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    await expect(page.get_by_text("What follows is the last answer")).to_be_visible()
    await page.context.set_offline(False)

    await expect(page.get_by_text("The server answers again")).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(0)
