"""What a search has found: more of it, pictures as they come into view, one object with all of it, and the way back."""

from datetime import datetime

from playwright.async_api import Page, Route, expect

from service.cli.demo import COLLECTION
from tests.e2e.serving import Serving
from tests.explorer.scenes import SEARCH, all_pictures_shown, results, search_by_words, settled, titles
from tests.explorer.watching import Watch
from vecgate.client import Object, near_object
from vecgate.v1.collection_service_pb2 import Collection

PAGE = 48
WITHIN_VIEW = (
    "(hit) => { const {top, bottom} = hit.getBoundingClientRect(); return top >= 0 && bottom <= innerHeight; }"
)
COLOURS = """(canvas) => {
    const drawn = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(drawn.data.buffer)).size;
}"""


async def test_a_hundred_hits_come_behind_each_other_with_their_pictures_as_they_come_into_view(page: Page) -> None:
    await page.goto(f"{SEARCH}&words=food")
    await expect(results(page)).to_have_count(PAGE)
    await all_pictures_shown(page)  # What comes late moves the button.
    first = await titles(page).all_text_contents()
    assert await results(page).locator("img").count() < PAGE

    for pages in (2, 3):
        await page.get_by_role("button", name="Show more").click()
        await expect(results(page).nth(PAGE * (pages - 1))).to_be_attached()
    assert (await titles(page).all_text_contents())[:PAGE] == first
    addresses = await results(page).locator(".frame").evaluate_all("(all) => all.map((each) => each.href)")
    assert len(set(addresses)) == len(addresses) > 100
    await results(page).nth(99).scroll_into_view_if_needed()

    await expect(results(page).nth(99).locator("img")).to_be_visible()


async def test_back_from_a_hit_keeps_the_place_and_the_hits_that_were_loaded(page: Page) -> None:
    await page.goto(f"{SEARCH}&words=food")
    await expect(results(page)).to_have_count(PAGE)
    await all_pictures_shown(page)  # What comes late moves the button.
    await page.get_by_role("button", name="Show more").click()
    await expect(results(page)).to_have_count(2 * PAGE)
    hit = results(page).nth(PAGE + 20)
    name = await hit.locator(".title").inner_text()
    await hit.get_by_role("link", name="Show").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    await page.wait_for_function("scrollY === 0")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    await page.go_back()

    await expect(results(page)).to_have_count(2 * PAGE)
    await page.wait_for_function("scrollY > innerHeight")
    await expect(hit.get_by_role("link", name="Show")).to_be_in_viewport(ratio=1)
    assert not any("SearchObjects" in each for each in asked)
    await hit.get_by_role("link", name="More like").click()
    await expect(page.get_by_text("like this object")).to_be_in_viewport()


async def test_more_hits_that_fail_say_so_where_people_look_and_come_when_tried_again(page: Page, watch: Watch) -> None:
    watch.expect("ERR_FAILED")
    await page.goto(f"{SEARCH}&words=food")
    await settled(page)
    await page.route("**/SearchObjects", lambda route: route.abort())

    await page.get_by_role("button", name="Show more").click()
    await expect(page.get_by_role("alert")).to_be_in_viewport()
    assert (await page.get_by_role("alert").inner_text()).count("The server does not answer") == 1
    await expect(results(page)).to_have_count(PAGE)
    await page.unroute("**/SearchObjects")
    await page.get_by_role("button", name="Try again").click()

    await expect(results(page)).to_have_count(2 * PAGE)
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_a_picture_that_the_server_was_too_busy_for_comes_by_itself(page: Page, watch: Watch) -> None:
    watch.expect("status of 503")
    busy = {"status": 503, "json": {"code": "unavailable", "message": "busy"}}
    refused: list[str] = []

    async def once(route: Route) -> None:
        body = route.request.post_data or ""
        if body in refused:
            await route.continue_()
        else:
            refused.append(body)
            await route.fulfill(**busy)

    await page.route("**/GetObject", once)
    await page.goto(SEARCH)

    await expect(results(page).first.locator("img")).to_be_visible()
    assert refused


async def test_a_hit_shows_its_certainty_all_that_is_stored_and_the_history_of_its_vector(
    page: Page, gallery: Serving
) -> None:
    await search_by_words(page, "a dog")
    shown, title = await page.locator("meter").first.evaluate("(each) => [each.value.toFixed(3), each.title]")
    assert title == f"certainty {shown}"

    await results(page).first.get_by_role("link", name="Show").click()

    main = page.get_by_role("main")
    await expect(main.get_by_role("heading", level=1)).to_contain_text("dog")
    with gallery.client() as client:
        hit = client.search(COLLECTION, text="a dog", limit=1).hits[0].object
    for value in hit.properties.values():
        await expect(main).to_contain_text(str(value))
    await expect(main).to_contain_text(hit.id)
    vector = main.get_by_role("heading", name="default").locator("xpath=ancestor::*[contains(@class, 'panel')]")
    with gallery.client() as client:
        (config,) = client.get_collection(COLLECTION).vectors
        (embedder,) = client.embedders().embedders
        found = client.search(COLLECTION, query=near_object(hit.id), limit=1, return_times=True).hits[0]
    facts = {"Space": config.space, "Model at creation": config.model, "Embedder now": f"{embedder.name} ready"}
    for name, value in facts.items():
        fact = vector.locator("dl > div").filter(has=page.get_by_text(name, exact=True))
        await expect(fact.locator("dd")).to_have_text(value)
    strip = vector.get_by_role("img", name=f"{config.dimension} values of the vector default, length 1.000")
    assert await strip.evaluate(COLOURS) > config.dimension / 4
    for name, time in {"Created": found.created, "Last updated": found.updated}.items():
        shown = main.locator("dl > div").filter(has=page.get_by_text(name, exact=True)).locator("time")
        assert datetime.fromisoformat(await shown.get_attribute("datetime") or "") == time


async def test_an_object_without_its_vector_says_so(page: Page, gallery: Serving) -> None:
    name = {"name": "title", "data_type": "DATA_TYPE_TEXT"}
    with gallery.client() as client:
        client.create_collection(
            Collection(name="Bare", properties=[name], vectors=[{"name": "v", "text_fields": [{"name": "title"}]}])
        )
        try:
            (stored,) = client.import_objects("Bare", [Object({})])
            await page.goto(f"#/object?collection=Bare&id={stored.id}")

            await expect(page.get_by_text("missing", exact=True)).to_be_visible()
            await expect(page.get_by_text("Searches of this named vector do not find the object")).to_be_visible()
        finally:
            client.delete_collection("Bare")


async def test_an_object_that_is_not_there_is_an_error_with_its_reason_and_nothing_to_try_again(
    page: Page, watch: Watch
) -> None:
    watch.expect("404")
    await page.goto(f"#/object?collection={COLLECTION}&id=00000000-0000-0000-0000-000000000000")

    await expect(page.get_by_role("alert")).to_contain_text("OBJECT_NOT_FOUND")
    await expect(page.get_by_role("button", name="Try again")).to_have_count(0)
