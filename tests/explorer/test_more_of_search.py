"""Pages of a search: its address, its conditions, more hits; and objects that lack something."""

import asyncio

import pytest
from playwright.async_api import Locator, Page, Route, expect

from service.cli.demo import COLLECTION
from tests.e2e.serving import Serving
from tests.explorer.conftest import NewPage
from tests.explorer.gestures import PHONE, drop
from tests.explorer.samples import QUERIES
from tests.explorer.scenes import SEARCH, search_by_picture, search_by_words
from tests.explorer.watching import Watch
from vecgate.client import Object
from vecgate.v1.collection_service_pb2 import Collection

PAGE = 48
PIZZA = QUERIES / "fluent" / "pizza.png"


def hits(page: Page) -> Locator:
    return page.locator(".hit")


def titles(page: Page) -> Locator:
    return page.locator(".hit .title")


async def settled(page: Page) -> None:
    """Wait until the answer to the latest search is shown."""
    await expect(page.locator(".waiting")).to_have_count(0)
    await expect(hits(page).first).to_be_visible()


async def test_a_search_in_the_address_is_shown_again(page: Page) -> None:
    await page.goto(f"#/search?collection={COLLECTION}&words=pizza&alpha=0.5")

    await expect(page.get_by_role("searchbox")).to_have_value("pizza")
    await expect(page.get_by_role("slider")).to_have_value("0.5")
    await expect(titles(page).first).to_have_text("pizza")
    await expect(hits(page).first).to_contain_text("score")


async def test_conditions_on_properties_leave_the_objects_that_fit(page: Page) -> None:
    await page.goto("#/search?collection=Pictures")
    await settled(page)

    await page.get_by_role("button", name="Add a condition").click()
    await page.get_by_label("Property").select_option("name")
    await page.get_by_label("Comparison").select_option("has any of")
    await page.get_by_label("Values, one on each line").fill("pizza\ncat")
    await page.keyboard.press("Tab")
    await expect(hits(page).filter(has_text="pizza")).to_have_count(1)
    await expect(page.get_by_role("status").filter(has_text="objects")).not_to_contain_text("The first")
    named = set(await titles(page).all_text_contents())
    await page.get_by_role("button", name="Add a group").click()
    await page.get_by_label("Value", exact=True).fill("cat")
    await page.keyboard.press("Tab")
    await page.get_by_role("group", name="Group of conditions").get_by_label("Property").select_option("name")
    await (
        page.get_by_role("group", name="Group of conditions")
        .get_by_role("combobox")
        .first.select_option("none of these")
    )

    await expect(hits(page).filter(has_text="pizza")).to_have_count(1)
    await expect(titles(page).filter(has_text="cat")).to_have_count(0)
    assert {"pizza", "cat"} <= named
    await page.get_by_role("button", name="Remove all").click()
    await expect(hits(page)).to_have_count(PAGE)


async def test_more_hits_come_behind_those_that_are_there(page: Page) -> None:
    await page.goto("#/search?collection=Pictures&words=food")
    await expect(hits(page)).to_have_count(PAGE)
    first = await titles(page).all_text_contents()

    await page.get_by_role("button", name="Show more").click()

    await expect(hits(page)).to_have_count(2 * PAGE)
    every = await titles(page).all_text_contents()
    assert every[:PAGE] == first
    assert (
        len(set(await hits(page).locator(".frame").evaluate_all("(all) => all.map((each) => each.href)"))) == 2 * PAGE
    )


async def test_an_object_without_its_vector_says_so(page: Page, gallery: Serving) -> None:
    name = {"name": "title", "data_type": "DATA_TYPE_TEXT"}
    with gallery.client() as client:
        client.create_collection(
            Collection(name="Bare", properties=[name], vectors=[{"name": "v", "text_fields": [{"name": "title"}]}])
        )
        (stored,) = client.import_objects("Bare", [Object({})])
    await page.goto(f"#/object?collection=Bare&id={stored.id}")

    await expect(page.get_by_text("missing", exact=True)).to_be_visible()
    await expect(page.get_by_text("Searches of this named vector do not find the object")).to_be_visible()
    remove(gallery, "Bare")


def remove(server: Serving, collection: str) -> None:
    with server.client() as client:
        client.delete_collection(collection)


async def test_an_object_that_is_not_there_is_an_error_with_its_reason(page: Page, watch: Watch) -> None:
    watch.expect("404")
    await page.goto(f"#/object?collection={COLLECTION}&id=00000000-0000-0000-0000-000000000000")

    await expect(page.get_by_role("alert")).to_contain_text("OBJECT_NOT_FOUND")


async def test_a_picture_can_be_chosen_again_after_a_reload(page: Page) -> None:
    await search_by_picture(page)
    await page.reload()
    await expect(page.get_by_text("is not kept; choose it again")).to_be_visible()

    await drop(page.get_by_role("main"), PIZZA)

    await expect(page.get_by_alt_text("The picture that is searched by")).to_be_visible()
    await expect(hits(page).first).to_contain_text("distance")


async def test_words_that_were_typed_but_not_sent_count_beside_a_picture(page: Page) -> None:
    await page.goto(SEARCH)
    await settled(page)
    await page.get_by_role("searchbox").fill("a dog")

    await drop(page.get_by_role("main"), PIZZA)

    await expect(page.get_by_label("Picture beside words")).to_be_visible()
    assert "words=a+dog" in page.url


async def test_more_hits_that_fail_say_so_where_people_look_and_come_when_tried_again(page: Page, watch: Watch) -> None:
    watch.expect("ERR_FAILED")
    await page.goto(f"{SEARCH}&words=food")
    await settled(page)
    await page.route("**/SearchObjects", lambda route: route.abort())

    await page.get_by_role("button", name="Show more").click()
    await expect(page.get_by_role("alert")).to_be_in_viewport()
    await expect(hits(page)).to_have_count(PAGE)
    await page.unroute("**/SearchObjects")
    await page.get_by_role("button", name="Try again").click()

    await expect(hits(page)).to_have_count(2 * PAGE)
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_an_old_answer_is_not_told_of_new_words(page: Page) -> None:
    await search_by_words(page, "a dog")
    told, go_on = page.locator(".answer [role=status]"), asyncio.Event()

    async def held(route: Route) -> None:
        await go_on.wait()
        await route.continue_()

    await page.route("**/SearchObjects", held)
    await page.get_by_role("searchbox").fill("a cat")
    await page.get_by_role("searchbox").press("Enter")

    await expect(told).to_have_text("Searching…")
    go_on.set()
    await expect(told).to_contain_text("hits")


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

    await expect(hits(page).first.locator("img")).to_be_visible()
    assert refused


async def test_a_slider_that_is_moved_by_keys_makes_no_place_to_go_back_to(page: Page) -> None:
    await search_by_words(page, "a dog")
    places = await page.evaluate("history.length")

    for _ in range(4):
        await page.get_by_role("slider").press("ArrowLeft")

    await page.wait_for_url("**alpha=0.8*")
    assert await page.evaluate("history.length") == places


async def test_the_meter_of_a_hit_shows_the_number_that_it_names(page: Page) -> None:
    await search_by_words(page, "a dog")

    shown, title = await page.locator("meter").first.evaluate("(each) => [each.value.toFixed(3), each.title]")

    assert title == f"certainty {shown}"


@pytest.mark.parametrize("name", ["constructor", "toString", "nowhere"])
async def test_an_address_of_no_page_shows_the_search(name: str, page: Page) -> None:
    await page.goto(f"#/{name}")

    await settled(page)


@pytest.mark.parametrize("name", ["status", "collections"])
async def test_a_file_that_is_dropped_where_nothing_takes_it_leaves_the_page_as_it_is(name: str, page: Page) -> None:
    await page.goto(f"#/{name}")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    address = page.url

    await drop(page.get_by_role("main"), PIZZA)

    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert page.url == address


async def test_the_navigation_shows_where_one_is_on_a_phone(gallery: Serving, new_page: NewPage) -> None:
    page = await new_page(gallery.url, viewport=PHONE)

    await page.goto("#/status")

    await expect(page.get_by_role("link", name="Status", exact=True)).to_be_in_viewport(ratio=1)
