"""People look for pictures: by words, by a picture of their own, by both, among some, and from one to the next."""

import json

import pytest
from playwright.async_api import Page, expect

from service.cli.demo import COLLECTION
from tests.e2e.serving import Serving
from tests.explorer.gestures import drop, paste
from tests.explorer.samples import PICTURES, QUERIES
from tests.explorer.scenes import SEARCH, results, search_by_picture, search_by_words

PIZZA = QUERIES / "fluent" / "pizza.png"
"""Not the one that is stored, and drawn by others."""


async def names(page: Page) -> list[str]:
    """Return what the hits are called, in order."""
    return await results(page).locator(".title").all_inner_texts()


async def test_words_find_pictures_and_tell_by_what_and_how_long(page: Page) -> None:
    # Words that no other test has: embedding them is not needed twice.
    await search_by_words(page, "a small dog")

    assert "dog" in (await names(page))[0]
    told = page.get_by_role("status").filter(has_text="hits")
    await expect(told).to_contain_text("pictogram-clip")
    for part in ("embed", "store"):
        await expect(page.get_by_role("region", name="Results")).to_contain_text(part)
    assert await results(page).first.locator("img").evaluate("(image) => image.naturalWidth") == 64


@pytest.mark.parametrize("way", ["dropped", "pasted", "chosen"])
async def test_a_picture_of_ones_own_finds_pictures(way: str, page: Page) -> None:
    await page.goto(SEARCH)
    await expect(results(page).first).to_be_visible()

    if way == "dropped":
        await drop(page.get_by_role("main"), PIZZA)
    elif way == "pasted":
        await paste(page, PIZZA.read_bytes())
    else:
        await page.get_by_label("Choose a picture").set_input_files(PIZZA)

    await expect(results(page).first).to_contain_text("distance")
    assert any("pizza" in each for each in (await names(page))[:3])


async def test_words_and_a_picture_count_by_their_weights(page: Page) -> None:
    await search_by_picture(page)
    await page.get_by_role("searchbox").fill("a dog")
    await page.get_by_role("searchbox").press("Enter")
    slider = page.get_by_label("Picture beside words")

    await slider.fill("0")
    await expect(results(page).first).to_contain_text("dog")
    await slider.fill("1")

    await expect(results(page).first).to_contain_text("pizza")


async def test_keywords_alone_find_what_has_the_word(page: Page) -> None:
    await search_by_words(page, "pizza")

    await page.get_by_label("Vectors beside keywords (alpha)").fill("0")

    await expect(results(page).first).to_contain_text("score")
    await expect(results(page).first).to_contain_text("pizza")


async def test_a_filter_leaves_what_fits_and_stays_in_the_address(page: Page, gallery: Serving) -> None:
    await search_by_words(page, "something to eat")
    await page.get_by_role("button", name="Add a condition").click()
    await page.get_by_label("Property").select_option(label="path")
    await page.get_by_label("Comparison").select_option(label="has the words")
    await page.get_by_label("Value").fill("pizza")
    await page.get_by_label("Value").press("Enter")

    await expect(results(page)).to_have_count(1)
    address = page.url
    await page.goto("about:blank")
    await page.goto(address)

    await expect(results(page)).to_have_count(1)
    await expect(results(page).first).to_contain_text("pizza")


async def test_more_like_this_goes_from_one_picture_to_its_likes_and_back(page: Page) -> None:
    await search_by_words(page, "a dog")
    first = (await names(page))[0]

    await results(page).first.get_by_role("link", name="More like").click()
    await expect(page.get_by_text("like this object")).to_be_visible()
    await expect(results(page).first.locator(".title")).to_have_text(first)
    await page.go_back()

    await expect(page.get_by_role("searchbox")).to_have_value("a dog")


async def test_a_hit_shows_all_that_is_stored(page: Page, gallery: Serving) -> None:
    await search_by_words(page, "a dog")
    await results(page).first.get_by_role("link", name="Show").click()

    main = page.get_by_role("main")
    await expect(main.get_by_role("heading", level=1)).to_contain_text("dog")
    with gallery.client() as client:
        hit = client.search(COLLECTION, text="a dog", limit=1).hits[0].object
    for value in hit.properties.values():
        await expect(main).to_contain_text(str(value))
    await expect(main).to_contain_text(hit.id)
    await expect(main).to_contain_text("pictogram-clip")


async def test_the_request_as_curl_is_the_request(page: Page) -> None:
    await search_by_words(page, "a dog")

    await page.get_by_text("This request as a command or a program").click()
    shown = await page.locator(".snippets pre, .snippets code").first.inner_text()

    body = shown[shown.index("{") : shown.rindex("}") + 1]
    assert json.loads(body)["collection"] == COLLECTION
    assert "a dog" in body


async def test_a_hundred_hits_come_with_their_pictures_as_they_come_into_view(page: Page) -> None:
    await page.goto(SEARCH)
    await expect(results(page).first).to_be_visible()
    more = page.get_by_role("button", name="Show more")
    while await more.count() and await results(page).count() < 100:
        before = await results(page).count()
        await more.click()
        await expect(results(page).nth(before)).to_be_attached()

    await results(page).nth(99).scroll_into_view_if_needed()

    await expect(results(page).nth(99).locator("img")).to_be_visible()
    assert await results(page).locator("img").count() > 12


async def test_a_file_that_is_no_picture_is_refused_by_name(page: Page) -> None:
    await page.goto(SEARCH)
    await expect(results(page).first).to_be_visible()

    await drop(page.get_by_role("main"), PICTURES / "pictures.csv")

    await expect(page.get_by_role("alert")).to_contain_text("pictures.csv is not a picture")
