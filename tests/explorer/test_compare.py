"""The page that compares texts with pictures, in front of a real server."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from playwright.async_api import Page, Route, expect

from service.store.embedded.server import EmbeddedWeaviate
from tests.conftest import assert_close
from tests.e2e.serving import Serving, serving, tiny_model
from tests.explorer.conftest import NewPage
from tests.explorer.samples import PICTURES
from tests.explorer.scripts import Scripts, grave_violations
from tests.fakes.weaviate import variables_of

TEXTS = ("a dog", "a slice of pizza", "<b>a cat</b>", "=1+1")
FILES = tuple(PICTURES / name for name in ("dog.png", "pizza.png", "cat.png", "automobile.png"))
TINY = "clip"
"""The name that `tiny_model` gives."""


async def fill(page: Page, *files: Path, texts: tuple[str, ...] = TEXTS) -> None:
    """Open the page and give it texts and pictures."""
    await page.goto("#/compare")
    await page.get_by_label("Texts, one a line").fill("\n".join(texts))
    await page.get_by_label("Choose pictures").set_input_files(files)
    await expect(page.get_by_label("Pictures to compare").get_by_role("listitem")).to_have_count(len(files))


async def compare(page: Page) -> None:
    """Let the page compare, and wait until it has."""
    await page.get_by_role("button", name="Compare", exact=True).click()
    await expect(page.get_by_text("pictures are compared")).to_be_attached()


async def shown_cosines(page: Page, table: int = 0) -> list[list[float]]:
    """Return the cosines of a table as the page has them, NaN where there is none."""
    values: list[list[float | None]] = (
        await page.locator(".heat table")
        .nth(table)
        .locator("tbody tr")
        .evaluate_all(
            "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.dataset.cosine ?? null))"
        )
    )
    return [[np.nan if value is None else float(value) for value in row] for row in values]


def true_cosines(server: Serving, embedder: str = "") -> npt.NDArray[np.float64]:
    """Return the cosines of the client's vectors."""
    with server.client() as client:
        vectors = client.embed([*TEXTS, *FILES], embedder=embedder).matrix().astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[: len(TEXTS)] @ vectors[len(TEXTS) :].T


@pytest.fixture(scope="module")
def two_models(weaviate: EmbeddedWeaviate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Run a server with the bundled model and one of random weights."""
    settings = {
        **variables_of(weaviate.client_settings),
        **tiny_model(tmp_path_factory.mktemp("model") / "tiny"),
        "VECGATE_EMBEDDERS__BUNDLED__KIND": "clip",
        "VECGATE_EMBEDDER__ORDER": f"bundled,{TINY}",
    }
    with serving(tmp_path_factory.mktemp("two"), **settings) as server:
        yield server


async def test_the_matrix_has_the_cosines_of_the_vectors_and_marks_the_best(page: Page, gallery: Serving) -> None:
    expected = true_cosines(gallery)

    await fill(page, *FILES)
    await compare(page)

    assert_close(await shown_cosines(page), expected, 1e-5)
    rows = page.locator(".heat tbody tr")
    for row, best in enumerate(expected.argmax(axis=1)):
        cell = rows.nth(row).get_by_role("cell").nth(int(best))
        await expect(cell).to_contain_text("best picture of its text")
        await expect(rows.nth(row).get_by_text("best picture of its text")).to_have_count(1)
    for column, best in enumerate(expected.argmax(axis=0)):
        await expect(rows.nth(int(best)).get_by_role("cell").nth(column)).to_contain_text("best text of its picture")
    await expect(page.get_by_role("rowheader", name="<b>a cat</b>")).to_be_visible()
    await expect(page.get_by_role("columnheader", name="pizza.png")).to_be_visible()


async def test_what_fails_is_shown_where_it_is_and_spoils_nothing_else(
    page: Page, gallery: Serving, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(FILES[0].read_bytes()[:300])
    drawing = tmp_path / "drawing.svg"
    drawing.write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    expected = np.insert(true_cosines(gallery), [1, 4], np.nan, axis=1)

    await fill(page, FILES[0], broken, *FILES[1:], drawing)
    await compare(page)

    assert_close(await shown_cosines(page), expected, 1e-5)
    for name, reason in ((broken.name, "broken or cut short"), (drawing.name, "SVG, which is not supported")):
        header = page.get_by_role("columnheader", name=name)
        await expect(header.locator(".failure")).to_contain_text(reason)


async def test_the_table_is_copied_as_csv(page: Page, gallery: Serving) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await fill(page, *FILES)
    await compare(page)

    await page.get_by_role("button", name="Copy as CSV").click()
    await expect(page.get_by_text("Copied")).to_be_visible()
    head, *rows = csv.reader(io.StringIO(await page.evaluate("navigator.clipboard.readText()")))

    assert head == ["embedder", "text", *(file.name for file in FILES)]
    assert [row[1] for row in rows] == [*TEXTS[:-1], "'=1+1"]
    assert_close([[float(value) for value in row[2:]] for row in rows], true_cosines(gallery), 1e-5)


async def test_the_table_is_copied_without_the_clipboard_of_safe_pages(page: Page) -> None:
    await page.context.grant_permissions(["clipboard-read"])
    await page.add_init_script("Navigator.prototype.__defineGetter__('clipboard', () => undefined)")
    await fill(page, *FILES)
    await compare(page)

    await page.get_by_role("button", name="Copy as CSV").click()
    await expect(page.get_by_text("Copied")).to_be_visible()
    await page.get_by_label("Texts, one a line").fill("")
    await page.keyboard.press("Control+V")

    await expect(page.get_by_label("Texts, one a line")).to_have_value(re.compile("^embedder,text,dog.png"))


async def test_axe_finds_nothing_grave_in_a_comparison(page: Page, scripts: Scripts) -> None:
    await fill(page, *FILES)
    await compare(page)

    assert await grave_violations(page, scripts.axe) == []


async def test_two_embedders_stand_side_by_side_with_how_far_they_agree(new_page: NewPage, two_models: Serving) -> None:
    page = await new_page(two_models.url)
    expected = [true_cosines(two_models, embedder) for embedder in ("bundled", TINY)]
    same = int((expected[0].argmax(axis=1) == expected[1].argmax(axis=1)).sum())

    await fill(page, *FILES)
    await page.get_by_label("Second embedder").select_option(TINY)
    await compare(page)

    for table, cosines in enumerate(expected):
        assert_close(await shown_cosines(page, table), cosines, 1e-5)
    await expect(page.get_by_text(f"The same best picture for {same} of {len(TEXTS)} texts.")).to_be_visible()
    agreement = page.get_by_role("region", name="Agreement for each text").locator("tbody tr")
    for row, (one, other) in enumerate(zip(*expected, strict=True)):
        ranks = [values.argsort().argsort() for values in (one, other)]
        await expect(agreement.nth(row)).to_contain_text(f"{np.corrcoef(ranks)[0, 1]:.2f}")


async def test_what_an_embedder_does_not_read_is_said_and_not_sent(page: Page) -> None:
    async def without_images(route: Route) -> None:
        answer = await route.fetch()
        told = await answer.json()
        for each in told["embedders"]:
            each["modalities"] = ["MODALITY_TEXT"]
        await route.fulfill(response=answer, json=told)

    sent = 0

    async def count(route: Route) -> None:
        nonlocal sent
        sent += len((route.request.post_data_json or {})["inputs"])
        await route.continue_()

    await page.route("**/ListEmbedders", without_images)
    await page.route("**/EmbedInputs", count)
    await fill(page, *FILES)
    await compare(page)

    await expect(page.get_by_text("This embedder does not read pictures.")).to_be_visible()
    assert sent == len(TEXTS)


async def test_pictures_come_from_a_collection(page: Page) -> None:
    await page.goto("#/compare")
    await page.get_by_label("Texts, one a line").fill("a dog")
    await page.get_by_text("From a collection").click()

    await page.get_by_role("button", name="Add ").first.click()
    await page.get_by_role("button", name="Add ").nth(1).click()
    await expect(page.get_by_label("Pictures to compare").get_by_role("listitem")).to_have_count(2)
    await compare(page)

    assert np.isfinite(await shown_cosines(page)).all()


async def test_a_file_that_comes_again_is_not_embedded_again(page: Page) -> None:
    await fill(page, FILES[0])
    await compare(page)
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url) if request.url.endswith("/EmbedInputs") else None)

    await page.get_by_role("button", name="Remove").click()
    await expect(page.get_by_text("Still needed: a picture.")).to_be_visible()
    await page.get_by_label("Choose pictures").set_input_files([FILES[0], FILES[0]])
    await expect(page.get_by_label("Pictures to compare").get_by_role("listitem")).to_have_count(2)
    await page.get_by_role("button", name="Compare", exact=True).click()
    await expect(page.get_by_text("2 pictures are compared")).to_be_attached()

    assert calls == []


async def test_a_comparison_can_be_cancelled(page: Page) -> None:
    async def never(_: Route) -> None:
        return None

    await fill(page, *FILES)
    await page.route("**/EmbedInputs", never)

    await page.get_by_role("button", name="Compare", exact=True).click()
    await page.get_by_role("button", name="Cancel").click()

    await expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    await page.unroute("**/EmbedInputs")
    await compare(page)
    assert np.isfinite(await shown_cosines(page)).all()


async def test_the_address_keeps_texts_and_embedders(page: Page) -> None:
    await fill(page, *FILES)
    await compare(page)

    await page.reload()

    await expect(page.get_by_label("Texts, one a line")).to_have_value("\n".join(TEXTS))
