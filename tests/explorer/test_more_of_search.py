"""Pages of a search: its address, its conditions, more hits; and objects that lack something."""

from playwright.async_api import Locator, Page, expect

from service.cli.demo import COLLECTION
from tests.e2e.serving import Serving
from tests.explorer.watching import Watch
from vecgate.client import Object
from vecgate.v1.collection_service_pb2 import Collection

PAGE = 48


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
    await page.goto("#/search")
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
    await page.goto("#/search?words=food")
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
