"""Everybody can use each page: axe finds nothing grave, it fits every width, and the keyboard is enough."""

from typing import Literal

import pytest
from playwright.async_api import Page, ViewportSize, expect

from tests.e2e.serving import Serving
from tests.explorer.gestures import DESK, PHONE, tab_through
from tests.explorer.layout import layout_faults
from tests.explorer.scenes import SCENES, SEARCH, at_rest, results, search_by_picture, search_by_words
from tests.explorer.scripts import Scripts, grave_violations
from tests.explorer.watching import Watch
from vecgate.v1.collection_service_pb2 import Collection

TITLE = {"name": "title", "data_type": "DATA_TYPE_TEXT"}
LOOKS: tuple[tuple[ViewportSize, Literal["light", "dark"]], ...] = (
    (DESK, "light"),
    (DESK, "dark"),
    (PHONE, "dark"),
    (PHONE, "light"),
)

REFUSED = {"wrong-key": "status of 401", "quota-exceeded": "status of 429", "server-down": "ERR_FAILED"}
"""What the browser says of the scenes in which calls fail."""


@pytest.mark.parametrize("scene", SCENES)
async def test_a_page_keeps_nobody_out_in_both_themes_on_a_phone_and_by_keyboard(
    scene: str, page: Page, scripts: Scripts, watch: Watch
) -> None:
    if scene in REFUSED:
        watch.expect(REFUSED[scene])
    await SCENES[scene](page)

    found = []
    for number, (size, theme) in enumerate(LOOKS):
        await page.set_viewport_size(size)
        await page.emulate_media(color_scheme=theme)
        # A page of the same elements differs in colours alone.
        rules = [] if size != LOOKS[number - 1][0] else ["color-contrast"]
        faults = await grave_violations(page, scripts.axe, rules) + await layout_faults(page)
        found += [f"{theme}, {size['width']} px: {fault}" for fault in faults]
    await page.set_viewport_size(DESK)
    await at_rest(page)
    seen = await tab_through(page)

    assert not found, "\n".join(found)
    assert seen.missed == ()
    assert seen.unmarked == ()


async def test_what_gets_the_focus_does_not_hide_behind_the_navigation(page: Page) -> None:
    await search_by_words(page, "a dog")
    await results(page).nth(30).get_by_role("link", name="More like").focus()

    for _ in range(30):
        await page.keyboard.press("Shift+Tab")

        top, bottom = await page.evaluate(
            "[document.activeElement.getBoundingClientRect().top, "
            "document.querySelector('header').getBoundingClientRect().bottom]"
        )
        assert top >= bottom


async def test_the_focus_stays_near_conditions_that_are_removed(page: Page) -> None:
    await page.goto(SEARCH)
    await expect(results(page).first).to_be_visible()
    add = page.get_by_role("button", name="Add a condition")
    await add.click()

    await page.get_by_role("button", name="Remove this condition").press("Enter")
    await expect(page.get_by_label("Property")).to_have_count(0)
    await expect(add).to_be_focused()
    await add.click()
    await page.get_by_label("Value").fill("pizza")
    await page.get_by_role("button", name="Remove all").press("Enter")

    await expect(page.get_by_label("Property")).to_have_count(0)
    await expect(add).to_be_focused()


async def test_the_focus_goes_to_the_words_when_the_picture_or_the_object_is_removed(page: Page) -> None:
    remove = page.get_by_role("button", name="Remove the picture from the search")
    await search_by_picture(page)

    await remove.press("Enter")
    await expect(remove).to_have_count(0)
    await expect(page.get_by_role("searchbox", name="Search by words")).to_be_focused()
    await results(page).first.get_by_role("link", name="More like").click()
    await remove.press("Enter")

    await expect(remove).to_have_count(0)
    await expect(page.get_by_role("searchbox", name="Search by words")).to_be_focused()


async def test_the_focus_stays_in_the_list_of_collections_when_another_is_chosen(page: Page, gallery: Serving) -> None:
    with gallery.client() as client:
        client.create_collection(
            Collection(
                name="Elsewhere", properties=[TITLE], vectors=[{"name": "v", "text_fields": [{"name": "title"}]}]
            )
        )
    await search_by_words(page)
    choice = page.get_by_role("complementary", name="Options").get_by_role("combobox").first
    await choice.focus()

    await choice.select_option("Elsewhere")

    await expect(results(page)).to_have_count(0)
    await expect(choice).to_be_focused()
    with gallery.client() as client:
        client.delete_collection("Elsewhere")
