"""Whatever stands in a collection, nothing of it runs, breaks the layout, or makes the page ask elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, ViewportSize, expect

from tests.e2e.serving import Serving
from tests.explorer.gestures import DESK, PHONE, drop
from tests.explorer.hostile import FILES, PROPERTY, RUN, TEXTS, objects
from tests.explorer.layout import layout_faults
from tests.explorer.scenes import (
    all_pictures_shown,
    at_rest,
    import_done,
    make_collection,
    results,
    run_evaluation,
    start_import,
)
from tests.explorer.watching import Watch
from tests.fakes.embedder import picture
from vecgate.client import Object
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2

NAME = "Z" + "w" * 254
"""As long as Weaviate allows, without a place to break, and behind all others."""

TENANT = "t" * 64

IMPORTED = "HostileFiles"
REFUSED = ("svg file", "gif and script", "page", "nothing")
"""Those of FILES that are no pictures; "page in png" is one, whose text is left out."""


@pytest.fixture(scope="module")
def hostile(gallery: Serving) -> Iterator[str]:
    """Return the name of a collection of hostile objects, one for each text and each file."""
    text = {"data_type": property_pb2.DATA_TYPE_TEXT}
    bare = {**text, "index_filterable": False, "index_searchable": False}
    with gallery.client() as client:
        client.create_collection(
            pb.Collection(
                name=NAME,
                description=TEXTS["handler"],
                properties=[
                    property_pb2.Property(name="image", data_type=property_pb2.DATA_TYPE_BLOB),
                    property_pb2.Property(name="title", **text),
                    property_pb2.Property(name="note", description=TEXTS["script"], **bare),
                    property_pb2.Property(name="path", **bare),
                    property_pb2.Property(name=PROPERTY, **text),
                ],
                vectors=[pb.VectorConfig(name="default", text_fields=[{"name": "title"}])],
            )
        )
        files = [picture()] * len(TEXTS) + list(FILES.values())
        made = [
            Object({**properties, PROPERTY: properties["path"]}, images={"image": content})
            for properties, content in zip(objects(), files, strict=True)
        ]
        failed = [outcome.error for outcome in client.import_objects(NAME, made) if outcome.error]
        assert failed == []
        yield NAME
        client.delete_collection(NAME)


async def assert_harmless(page: Page) -> None:
    """Assert that nothing ran, and that the layout holds on a desk and on a phone."""
    for size in (DESK, PHONE):
        await page.set_viewport_size(size)
        faults = await layout_faults(page)
        assert not faults, f"{size['width']} px: {faults}"
    assert await page.evaluate("globalThis.ran") is None
    assert await page.locator("base, iframe, object, embed, form[action]").count() == 0


async def test_hits_of_hostile_objects_are_text_and_pictures(hostile: str, page: Page) -> None:
    await page.goto(f"#/search?collection={hostile}&words=script")
    await expect(results(page)).to_have_count(len(TEXTS) + len(FILES))

    await results(page).last.scroll_into_view_if_needed()
    await all_pictures_shown(page)

    await assert_harmless(page)
    assert RUN in await page.get_by_role("region", name="Results").inner_text()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_a_condition_on_a_property_with_a_long_name_hides_none_of_its_controls(
    size: ViewportSize, hostile: str, page: Page
) -> None:
    await page.set_viewport_size(size)
    await page.goto(f"#/search?collection={hostile}")
    await expect(results(page).first).to_be_visible()
    if size is PHONE:
        await page.locator("summary", has_text="Options").click()

    await page.get_by_role("button", name="Add a condition").click()
    await page.get_by_label("Property").select_option(label=f"{PROPERTY[:60]}…")
    await page.get_by_label("Value", exact=True).fill("x")
    await at_rest(page)

    assert await layout_faults(page) == []
    await page.get_by_role("button", name="Remove this condition").click()


async def ids(gallery: Serving, collection: str) -> dict[str, str]:
    """Return the ids of the hostile objects by what is bad about them."""
    with gallery.client() as client:
        return {str(each.properties["title"]): each.id for each in client.list_objects(collection)}


async def test_pages_of_hostile_objects_are_text_and_pictures(hostile: str, gallery: Serving, page: Page) -> None:
    known = await ids(gallery, hostile)
    for kind in (*TEXTS, *FILES):
        await page.goto(f"#/object?collection={hostile}&id={known[kind]}")
        await expect(page.get_by_role("heading", level=1)).to_have_text(kind)
        await expect(page.get_by_role("heading", name="Properties")).to_be_visible()

        closed = page.get_by_role("button", name="Show all")
        while await closed.count():
            await closed.first.click()

        await assert_harmless(page)


async def test_other_pages_hold_a_hostile_collection(hostile: str, page: Page, watch: Watch) -> None:
    watch.expect("status of 400")  # the collection has no tenants
    for path in ("search", "map", "compare", "evaluate", "import", "collections", "status"):
        await page.goto(f"#/{path}?collection={hostile}&tenant={TENANT}")
        await at_rest(page)

        await assert_harmless(page)


async def test_an_evaluation_by_hostile_texts_is_text_and_pictures(hostile: str, page: Page) -> None:
    await page.goto(f"#/evaluate?collection={hostile}&by=captions&property=note&limit=2&ways=present;alpha=0")
    await run_evaluation(page)

    await page.get_by_role("list", name="Found by").last.scroll_into_view_if_needed()
    await all_pictures_shown(page)

    assert "<b>long</b>" in await page.get_by_role("region", name="Queries that win and lose most").inner_text()
    await assert_harmless(page)


async def test_hostile_addresses_are_text(page: Page, watch: Watch) -> None:
    watch.expect("status of 4")
    await page.goto("/")
    for text in (each for name, each in TEXTS.items() if name != "megabyte"):
        for path in ("search", "object", "map", "evaluate", text):
            address = {"collection": text, "words": text, "id": text, "tenant": text, "property": text, "ways": text}
            await page.evaluate(
                "([path, given]) => { location.hash = `/${path}?${new URLSearchParams(given)}`; }", [path, address]
            )
            await at_rest(page)

            await assert_harmless(page)


async def test_hostile_files_that_are_dropped_and_imported_are_stored_or_refused_with_their_names(
    page: Page, gallery: Serving, tmp_path: Path
) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    names = {kind: f"\u202egnp.{kind}<b>'\".png" for kind in FILES}
    for kind, name in names.items():
        (folder / name).write_bytes(FILES[kind])
    (folder / f"{'w' * 240}.png").write_bytes(picture())
    await page.goto("#/import")
    await expect(page.get_by_role("button", name="Import", exact=True)).to_be_visible()

    await drop(page.get_by_role("main"), folder)

    await expect(page.get_by_role("main")).to_contain_text(f"{len(FILES) + 1} pictures")
    await assert_harmless(page)
    await make_collection(page, IMPORTED)
    try:
        await start_import(page)
        await import_done(page, failed=len(REFUSED))

        failures = page.get_by_role("region", name="Pictures that failed").locator("tbody tr")
        shown = await failures.all_inner_texts()
        await assert_harmless(page)
    finally:
        with gallery.client() as client:
            client.delete_collection(IMPORTED)
    assert len(shown) == len(REFUSED)
    for kind in REFUSED:
        (row,) = (each for each in shown if kind in each)
        assert "IMAGE_UNDECODABLE" in row
