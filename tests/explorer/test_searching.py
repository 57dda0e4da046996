"""People look for pictures: by words, by a picture of their own, by both, among some, and from one to the next."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Page, Request, Route, expect

from service.cli.demo import COLLECTION
from tests.e2e.serving import Serving
from tests.explorer.gestures import drop, paste
from tests.explorer.samples import PICTURES, QUERIES
from tests.explorer.scenes import (
    SEARCH,
    all_pictures_shown,
    at_rest,
    camera,
    results,
    search_by_picture,
    search_by_words,
    settled,
    titles,
)
from vecgate.client import Object
from vecgate.v1.collection_service_pb2 import Collection
from vecgate.v1.tenant_pb2 import Tenant

PIZZA = QUERIES / "fluent" / "pizza.png"
"""Not the one that is stored, and drawn by others."""

MOVE_TWICE = """([first, last, order]) => {
  const slider = document.querySelector("input[type=range]");
  const move = (to) => {
    slider.value = to;
    slider.dispatchEvent(new Event("input", {bubbles: true}));
  };
  // Right after the page has the first value, and before its next frame.
  const next = () => queueMicrotask(() => move(last));
  if (order === "as the first counts") addEventListener("hashchange", next, {once: true});
  move(first);
  const busy = () => {
    const end = performance.now() + 500;
    while (performance.now() < end);
    move(last);
  };
  if (order === "when the first is due") requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(busy)));
}"""
ORDERS = ("as the first counts", "when the first is due")

COUNT_READ_FILES = """() => {
  globalThis.readFiles = 0;
  const read = FileReader.prototype.readAsDataURL;
  FileReader.prototype.readAsDataURL = function (file) {
    this.addEventListener("loadend", () => { readFiles++; });
    return read.call(this, file);
  };
}"""

KEEP_CAMERAS = """
globalThis.cameras = [];
const open = MediaDevices.prototype.getUserMedia;
MediaDevices.prototype.getUserMedia = async function (...wishes) {
  const stream = await open.apply(this, wishes);
  cameras.push(...stream.getTracks());
  return stream;
};
"""
CAMERAS_ON = "cameras.map((each) => each.readyState === 'live')"

REPLACE_PICTURES_UNDER_A_DRAG = """() => addEventListener("dragover", () => queueMicrotask(() => {
  for (const each of document.querySelectorAll("main img")) each.replaceWith(each.cloneNode());
}))"""


@asynccontextmanager
async def held_calls(page: Page, pattern: str) -> AsyncIterator[asyncio.Queue[Route]]:
    """Hold the page's calls and give them, in order; afterwards calls go on by themselves."""
    held: asyncio.Queue[Route] = asyncio.Queue()
    await page.route(pattern, held.put)
    yield held
    while not held.empty():
        await held.get_nowait().continue_()
    await page.unroute(pattern)


async def ended(request: Request) -> None:
    """Wait until a call has come to its end, with an answer or because the page gave it up."""
    if answer := await request.response():
        await answer.finished()


async def read_files(page: Page, number: int) -> None:
    """Wait until the page has read so many files, after `COUNT_READ_FILES`, and has done what follows from that."""
    await page.wait_for_function("(number) => readFiles === number", arg=number)
    await at_rest(page)


async def test_words_find_pictures_and_tell_by_what_and_how_long(page: Page) -> None:
    # Words that no other test has: embedding them is not needed twice.
    await search_by_words(page, "a small dog")

    await expect(titles(page).first).to_contain_text("dog")
    told = page.get_by_role("status").filter(has_text="hits")
    await expect(told).to_contain_text("pictogram-clip")
    for part in ("embed", "store"):
        await expect(page.get_by_role("region", name="Results")).to_contain_text(part)
    assert await results(page).first.locator("img").evaluate("(image) => image.naturalWidth") == 64
    await expect(page).to_have_title("a small dog · Search · Vecgate")


async def test_a_picture_of_ones_own_finds_pictures_pasted_chosen_or_dropped(page: Page) -> None:
    for way in ("pasted", "chosen", "dropped"):
        await page.goto(SEARCH)
        await expect(page.get_by_role("status").filter(has_text="objects")).to_be_visible()

        if way == "pasted":
            await paste(page, PIZZA.read_bytes())
        elif way == "chosen":
            await page.get_by_label("Choose a picture").set_input_files(PIZZA)
        else:
            await drop(page.get_by_role("main"), PIZZA)

        await expect(results(page).first).to_contain_text("distance")
        assert any("pizza" in each for each in (await titles(page).all_inner_texts())[:3]), way


async def test_a_picture_that_the_camera_takes_finds_pictures_and_the_camera_is_off_again(page: Page) -> None:
    await page.add_init_script(KEEP_CAMERAS)
    await camera(page)
    assert await page.evaluate(CAMERAS_ON) == [True]

    await page.get_by_role("button", name="Use this picture").press("Enter")

    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.get_by_label("Query", exact=True)).to_contain_text("camera.jpg")
    await expect(results(page).first).to_contain_text("distance")
    assert await page.evaluate(CAMERAS_ON) == [False]


async def test_a_camera_that_may_not_be_used_is_told_and_the_focus_comes_back(page: Page) -> None:
    await page.context.grant_permissions([])
    await page.goto(SEARCH)
    button = page.get_by_role("button", name="Camera")
    await button.press("Enter")
    dialog = page.get_by_role("dialog", name="Take a picture")

    await expect(dialog.get_by_role("alert")).to_contain_text("There is no picture from the camera")
    await expect(dialog.get_by_role("button", name="Use this picture")).to_be_disabled()
    await page.keyboard.press("Escape")

    await expect(dialog).to_have_count(0)
    await expect(button).to_be_focused()


async def test_a_drop_is_taken_although_the_pictures_under_it_have_just_come(page: Page) -> None:
    await page.goto(SEARCH)
    await all_pictures_shown(page)
    await page.evaluate(REPLACE_PICTURES_UNDER_A_DRAG)

    await drop(results(page).first.locator("img"), PIZZA)

    await expect(page.get_by_alt_text("The picture that is searched by")).to_be_visible()
    # Nothing is in the way of the pointer any more.
    await results(page).first.locator("img").click(trial=True)


async def test_words_and_a_picture_count_by_their_weights(page: Page) -> None:
    await search_by_picture(page)
    await page.get_by_role("searchbox").fill("a dog")
    await page.get_by_role("searchbox").press("Enter")
    slider = page.get_by_label("Words or picture")

    await slider.fill("0")
    await page.wait_for_url("**weight=0*")
    await at_rest(page)
    await expect(results(page).first).to_contain_text("dog")
    await slider.fill("1")
    await page.wait_for_url("**weight=1*")
    await at_rest(page)

    await expect(results(page).first).to_contain_text("pizza")


async def test_the_last_place_of_a_slider_counts_whenever_it_comes(page: Page) -> None:
    await search_by_words(page, "pizza")
    slider = page.get_by_role("slider")

    for order, (first, last) in zip(ORDERS, (("0", "0.4"), ("0.8", "0.2")), strict=True):
        await page.evaluate(MOVE_TWICE, [first, last, order])

        await page.wait_for_url(f"**alpha={last}*")
        await at_rest(page)
        await expect(slider).to_have_value(last)


async def test_the_last_place_of_a_slider_counts_although_an_answer_is_late(page: Page) -> None:
    await search_by_words(page, "pizza")
    slider = page.get_by_role("slider")

    async with held_calls(page, "**/SearchObjects") as held:
        await slider.fill("0")
        first = await held.get()
        await slider.fill("0.5")
        await (await held.get()).continue_()
        await page.wait_for_url("**alpha=0.5*")
        await first.continue_()
        await ended(first.request)
    await at_rest(page)

    await expect(page).to_have_url(re.compile("alpha=0.5"))
    await expect(slider).to_have_value("0.5")


async def test_of_two_pictures_the_last_one_counts_with_the_words_typed_meanwhile(page: Page) -> None:
    await page.goto(SEARCH)
    await settled(page)
    await page.evaluate(COUNT_READ_FILES)
    async with held_calls(page, "**/ListEmbedders") as held:
        await drop(page.get_by_role("main"), PICTURES / "dog.png")
        first = await held.get()
        await drop(page.get_by_role("main"), PIZZA)
        await page.get_by_role("searchbox").fill("a dog")
        await (await held.get()).continue_()
        await expect(page.get_by_alt_text("The picture that is searched by")).to_be_visible()
        await read_files(page, 1)
        await first.continue_()
        # The first picture is read after the second one.
        await read_files(page, 2)

    await expect(page.get_by_label("Query", exact=True)).to_contain_text("pizza.png")
    await expect(page).to_have_url(re.compile(r"words=a\+dog"))


async def test_a_picture_that_is_still_read_does_not_bring_back_a_page_that_was_left(page: Page) -> None:
    await page.goto(SEARCH)
    await settled(page)
    await page.evaluate(COUNT_READ_FILES)
    async with held_calls(page, "**/ListEmbedders") as held:
        await drop(page.get_by_role("main"), PIZZA)
        first = await held.get()
        await page.get_by_role("link", name="Collections").click()
        await expect(page.get_by_role("heading", name="Collections")).to_be_visible()
        await first.continue_()
        await read_files(page, 1)

    await expect(page.get_by_role("heading", name="Collections")).to_be_visible()


async def test_words_that_were_typed_but_not_sent_count_beside_a_picture(page: Page) -> None:
    await page.goto(SEARCH)
    await settled(page)
    await page.get_by_role("searchbox").fill("a dog")

    await drop(page.get_by_role("main"), PIZZA)

    await expect(page.get_by_label("Words or picture")).to_be_visible()
    await expect(page).to_have_url(re.compile(r"words=a\+dog"))


async def test_keywords_alone_find_what_has_the_word_and_the_address_keeps_them(page: Page) -> None:
    await search_by_words(page, "pizza")

    await page.get_by_label("Keywords or meaning (alpha)").fill("0")
    await expect(results(page).first).to_contain_text("score")
    await expect(results(page).first).to_contain_text("pizza")
    await page.reload()

    await expect(page.get_by_role("searchbox")).to_have_value("pizza")
    await expect(page.get_by_role("slider")).to_have_value("0")
    await expect(titles(page).first).to_have_text("pizza")
    await expect(results(page).first).to_contain_text("score")


async def test_a_slider_that_is_moved_by_keys_makes_no_place_to_go_back_to(page: Page) -> None:
    await search_by_words(page, "a dog")
    places = await page.evaluate("history.length")

    for _ in range(4):
        await page.get_by_role("slider").press("ArrowLeft")

    await page.wait_for_url("**alpha=0.8*")
    assert await page.evaluate("history.length") == places


async def test_conditions_leave_the_objects_that_fit_and_stay_in_the_address(page: Page) -> None:
    await page.goto(SEARCH)
    await settled(page)
    total = await results(page).count()

    await page.get_by_role("button", name="Add a condition").click()
    await expect(page.get_by_label("Property").locator("option:checked")).to_have_text("name")
    await page.get_by_label("Comparison").select_option("has any of")
    await page.get_by_label("Values, one on each line").fill("pizza\ncat")
    await page.keyboard.press("Tab")
    await expect(results(page).filter(has_text="pizza")).to_have_count(1)
    await expect(page.get_by_role("status").filter(has_text="objects")).not_to_contain_text("The first")
    named = set(await titles(page).all_text_contents())
    await page.get_by_role("button", name="Add a group").click()
    group = page.get_by_role("group", name="Group of conditions")
    await page.get_by_label("Value", exact=True).fill("cat")
    await page.keyboard.press("Tab")
    await group.get_by_role("combobox").first.select_option("none of these")

    await expect(titles(page).filter(has_text="cat")).to_have_count(0)
    assert {"pizza", "cat"} <= named
    await page.reload()
    await expect(results(page).filter(has_text="pizza")).to_have_count(1)
    await expect(titles(page).filter(has_text="cat")).to_have_count(0)
    await page.get_by_role("button", name="Remove all").click()
    await expect(results(page)).to_have_count(total)


async def test_what_is_typed_stays_although_an_answer_comes_meanwhile(page: Page) -> None:
    await page.goto(SEARCH)
    await settled(page)
    await page.get_by_role("button", name="Add a condition").click()
    await page.get_by_label("Value", exact=True).fill("cat")
    async with held_calls(page, "**/ListObjects") as held:
        await page.keyboard.press("Tab")
        asked = await held.get()
        await page.get_by_label("Value", exact=True).press("End")
        await page.keyboard.type("astrophe")
        await asked.continue_()
        await ended(asked.request)
        await at_rest(page)

        await expect(page.get_by_label("Value", exact=True)).to_have_value("catastrophe")


async def test_tenants_and_named_vectors_are_chosen_where_there_are_several(page: Page, gallery: Serving) -> None:
    text = {"data_type": "DATA_TYPE_TEXT"}
    with gallery.client() as client:
        client.create_collection(
            Collection(
                name="Stalls",
                properties=[{"name": "title", **text}, {"name": "note", **text}],
                vectors=[{"name": each, "text_fields": [{"name": each}]} for each in ("title", "note")],
                default_vector="title",
                multi_tenancy={"enabled": True},
            )
        )
        client.create_tenants("Stalls", [Tenant(name="anna"), Tenant(name="ben")])
        apple = Object({"title": "an apple", "note": "a dog"})
        dog = Object({"title": "a dog", "note": "an apple"})
        for tenant, stored in {"anna": [apple, dog], "ben": [apple]}.items():
            assert all(each.stored for each in client.import_objects("Stalls", stored, tenant=tenant))
    try:
        await page.goto("#/search?collection=Stalls&words=an+apple")
        await expect(page.get_by_text("Choose one to see its objects")).to_be_visible()
        tenant = page.get_by_label("Tenant", exact=True)

        await tenant.fill("anna")
        await tenant.press("Enter")
        await expect(results(page).first).to_contain_text("an apple")
        await expect(results(page)).to_have_count(2)
        await page.get_by_label("Named vector").select_option("note")
        await page.wait_for_url("**vector=note*")
        await at_rest(page)
        await expect(results(page).first.get_by_role("link").first).to_contain_text("a dog")
        await tenant.fill("ben")
        await tenant.press("Enter")

        await expect(results(page)).to_have_count(1)
    finally:
        with gallery.client() as client:
            client.delete_collection("Stalls")


async def test_more_like_this_goes_from_one_picture_to_its_likes_and_back(page: Page) -> None:
    await search_by_words(page, "a dog")
    first = await titles(page).first.inner_text()

    await results(page).first.get_by_role("link", name="More like").click()
    await expect(page.get_by_text("like this object")).to_be_visible()
    await expect(titles(page).first).to_have_text(first)
    await page.go_back()

    await expect(page.get_by_role("searchbox")).to_have_value("a dog")


async def test_an_old_answer_is_not_told_of_new_words(page: Page) -> None:
    await search_by_words(page, "a dog")
    told = page.locator(".answer [role=status]")

    async with held_calls(page, "**/SearchObjects") as held:
        await page.get_by_role("searchbox").fill("a cat")
        await page.get_by_role("searchbox").press("Enter")

        await expect(told).to_have_text("Searching…")
        await (await held.get()).continue_()
        await expect(told).to_contain_text("hits")


async def test_a_picture_can_be_chosen_again_after_a_reload(page: Page) -> None:
    await search_by_picture(page)
    await page.reload()
    await expect(page.get_by_text("is not kept; choose it again")).to_be_visible()

    await drop(page.get_by_role("main"), PIZZA)

    await expect(page.get_by_alt_text("The picture that is searched by")).to_be_visible()
    await expect(results(page).first).to_contain_text("distance")


async def test_files_that_cannot_be_searched_by_are_refused_by_name_and_not_sent(
    page: Page, gallery: Serving, tmp_path: Path
) -> None:
    with gallery.client() as client:
        most = client.embedders().embedders[0].limits.max_image_bytes
    large = tmp_path / "large.png"
    large.write_bytes(PIZZA.read_bytes())
    with large.open("r+b") as file:
        file.truncate(most + 1)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    await page.goto(SEARCH)
    await settled(page)

    await drop(page.get_by_role("main"), PICTURES / "pictures.csv")
    await expect(page.get_by_role("alert")).to_contain_text("pictures.csv is not a picture")
    await drop(page.get_by_role("main"), large)

    bound = f"large.png has {most + 1:,} bytes, and the server takes at most {most:,}"
    await expect(page.get_by_role("alert")).to_contain_text(bound)
    assert not any("SearchObjects" in each for each in sent)
    assert COLLECTION in page.url
