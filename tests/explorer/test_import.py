"""The page that imports a folder of pictures, in front of a real server."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest
from playwright.async_api import Page, Response, Route, expect

from service.cli.pictures import picture_id
from tests.e2e.serving import Serving
from tests.explorer.conftest import Guarded, NewPage
from tests.explorer.gestures import drop
from tests.explorer.hostile import FILES as HOSTILE_FILES
from tests.explorer.samples import PICTURES
from tests.explorer.scenes import at_rest, import_done, make_collection, start_import
from tests.explorer.scripts import Scripts, grave_violations
from tests.explorer.watching import GONE, Watch
from tests.fakes.proxy import Fault, Proxy
from vecgate.client import Client, VecgateError

NAMES = (
    "plain.png",
    "UPPER.PNG",
    "sub folder/deep/dög 😀.png",
    "cafe\u0301.png",
    "<img src=x onerror=alert(1)>.png",
    "'quoted\" & name.png",
    "\u202egnp.tac.png",
    "=1+1.png",
    ".hidden.png",
    "W" * 200 + ".png",
)
"""Of sound pictures; some names would run or break a page that is careless."""
OTHERS = ("notes.txt", "drawing.svg", "photo.heic", "no suffix")
BROKEN = ("cut.png", "page.jpg", "empty.gif")
SPENT, SPENT_INPUTS = "a text of another program with the same key", 40
"""What uses up a quota of eight inputs a second for four seconds."""


@dataclass(frozen=True)
class Album:
    """A folder to import.

    Attributes:
        folder: where it is.
        pictures: the paths of its sound pictures, as they are stored.
    """

    folder: Path
    pictures: tuple[str, ...]


@pytest.fixture
def album(tmp_path: Path) -> Album:
    """Make a folder of pictures with odd names, with broken ones and other files among them."""
    folder = tmp_path / "album"
    samples = sorted(PICTURES.glob("*.png"))[:: 619 // 15]
    for name, sample in zip((*NAMES, *(f"more/{each.name}" for each in samples)), samples * 2, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample, folder / name)
    pictures = tuple(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    (folder / "cut.png").write_bytes(samples[0].read_bytes()[:200])
    (folder / "page.jpg").write_bytes(HOSTILE_FILES["page"])
    (folder / "empty.gif").touch()
    for name in OTHERS:
        (folder / name).write_bytes(HOSTILE_FILES["svg file"])
    return Album(folder, tuple(name.replace("e\u0301", "\u00e9") for name in pictures))


@pytest.fixture
def collection(request: pytest.FixtureRequest, gallery: Serving) -> Iterator[str]:
    """Give a name for a collection, and delete it afterwards."""
    name = "Import" + "".join(filter(str.isalnum, request.node.name.title()))[:80]
    yield name
    with gallery.client() as client:
        client.delete_collection(name)


async def choose(page: Page, folder: Path) -> None:
    """Open the page and choose a folder."""
    await page.goto("#/import")
    await page.get_by_label("Choose a folder").set_input_files(folder)


def check(client: Client, collection: str, album: Album) -> None:
    """Check that each picture is stored once, by the command line's id, and found by itself."""
    stored = {each.id: each for each in client.list_objects(collection, return_images="image")}
    assert {picture_id(collection, path) for path in album.pictures} == set(stored)
    assert sorted(str(each.properties["path"]) for each in stored.values()) == sorted(album.pictures)
    for path in album.pictures[:2]:
        (file,) = (each for each in album.folder.rglob("*") if each.is_file() and _path(each, album) == path)
        hits = client.search(collection, image=file, limit=5).hits
        # Some samples are there twice, under two names.
        assert picture_id(collection, path) in {hit.object.id for hit in hits}
        assert stored[picture_id(collection, path)].images["image"] == file.read_bytes()


def _path(file: Path, album: Album) -> str:
    return file.relative_to(album.folder).as_posix().replace("e\u0301", "\u00e9")


async def test_a_folder_is_imported_into_a_new_collection_by_a_page_that_keeps_nobody_out(
    page: Page, gallery: Serving, album: Album, collection: str, scripts: Scripts
) -> None:
    await choose(page, album.folder)
    total = len(album.pictures) + len(BROKEN)
    await expect(page.get_by_text(f"{total} pictures", exact=True)).to_be_visible()
    await page.get_by_text(f"{len(OTHERS)} other files are not sent").click()
    await expect(page.get_by_text("HEIC is not read")).to_be_visible()
    await page.get_by_label("a new collection").check()
    grave = await grave_violations(page, scripts.axe)
    await make_collection(page, collection)
    grave += await grave_violations(page, scripts.axe)

    await start_import(page)
    await import_done(page, failed=len(BROKEN))

    assert grave + await grave_violations(page, scripts.axe) == []

    await expect(page.get_by_text(f"{len(album.pictures)} stored", exact=True)).to_be_visible()
    failures = page.get_by_role("region", name="Pictures that failed").locator("tbody tr")
    await expect(failures).to_have_count(len(BROKEN))
    for name in BROKEN:
        reason = "the file is empty" if name == "empty.gif" else "IMAGE_UNDECODABLE"
        await expect(failures.filter(has_text=name)).to_contain_text(reason)
    with gallery.client() as client:
        check(client, collection, album)
        assert client.search(collection, text="an animal", limit=3).hits


async def test_what_an_import_still_needs_is_said_and_the_focus_stays_on_the_page(
    page: Page, album: Album, collection: str
) -> None:
    await page.goto("#/import")
    button = page.get_by_role("button", name="Import", exact=True)
    await expect(button).to_have_accessible_description("Choose a folder or pictures first.")
    await page.get_by_label("Choose a folder").set_input_files(album.folder)
    await page.get_by_label("a new collection").check()
    await expect(button).to_be_disabled()
    await expect(button).to_have_accessible_description(re.compile("A new one has to be created first"))
    await make_collection(page, collection)
    await expect(button).to_have_accessible_description("")

    await start_import(page)
    await expect(page.get_by_role("heading", name="Import", level=1)).to_be_focused()
    await import_done(page, failed=len(BROKEN))
    await page.get_by_role("button", name="Import something else").click()

    await expect(page.get_by_role("heading", name="Import", level=1)).to_be_focused()


async def test_an_import_goes_on_behind_another_page_and_a_second_one_changes_nothing_of_what_is_stored(
    page: Page, gallery: Serving, album: Album, collection: str
) -> None:
    await choose(page, album.folder)
    await make_collection(page, collection)
    await start_import(page)
    await page.get_by_role("link", name="Status").click()
    await page.get_by_role("link", name="Import").click()
    await import_done(page, failed=len(BROKEN))
    with gallery.client() as client:
        check(client, collection, album)
    await page.reload()

    await page.get_by_role("combobox", name="Collection", exact=True).select_option(collection)
    await drop(page.get_by_text("or drop a folder here"), album.folder)
    await expect(page.get_by_text(f"{len(album.pictures) + len(BROKEN)} pictures", exact=True)).to_be_visible()
    await start_import(page)
    await import_done(page, failed=len(BROKEN))

    await expect(page.get_by_text(f"{len(album.pictures)} stored before")).to_be_visible()
    await expect(page.get_by_text("0 stored", exact=True)).to_be_visible()
    with gallery.client() as client:
        check(client, collection, album)


async def test_an_import_stops_and_goes_on(page: Page, gallery: Serving, album: Album, collection: str) -> None:
    await choose(page, album.folder)
    await make_collection(page, collection)
    held: list[Route] = []

    async def hold(route: Route) -> None:
        held.append(route)

    await page.route("**/ImportObjects", hold)
    await start_import(page)
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("The import has stopped")).to_be_visible()

    await page.unroute("**/ImportObjects")
    await page.get_by_role("button", name="Go on").click()
    await import_done(page, failed=len(BROKEN))

    with gallery.client() as client:
        check(client, collection, album)


async def test_the_browser_asks_before_it_leaves_a_running_import(
    page: Page, watch: Watch, album: Album, collection: str
) -> None:
    async def never(_: Route) -> None:
        return None

    watch.expect("dialog")
    await choose(page, album.folder)
    await make_collection(page, collection)
    await page.route("**/ImportObjects", never)
    await start_import(page)
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()

    async with page.expect_event("dialog") as asked:
        await page.close(run_before_unload=True)

    assert (await asked.value).type == "beforeunload"


async def test_what_failed_is_tried_again_after_it_was_mended(
    page: Page, gallery: Serving, album: Album, collection: str
) -> None:
    async def broken(route: Route) -> None:
        await route.fulfill(
            json={
                "results": [
                    {"id": each["id"], "error": {"code": 13, "message": "out of luck"}}
                    for each in route.request.post_data_json["objects"]
                ]
            }
        )

    await choose(page, album.folder)
    await make_collection(page, collection)
    await page.route("**/ImportObjects", broken)
    await start_import(page)
    await import_done(page, failed=len(album.pictures) + len(BROKEN))
    await expect(page.get_by_text("0 stored", exact=True)).to_be_visible()
    await page.unroute("**/ImportObjects")

    await page.get_by_role("button", name="Try those that failed again").click()

    await expect(page.get_by_text(f"{len(album.pictures)} stored", exact=True)).to_be_visible(timeout=60_000)
    await import_done(page, failed=len(BROKEN))
    with gallery.client() as client:
        check(client, collection, album)


async def test_the_server_may_go_and_come_back_meanwhile(
    new_page: NewPage, watch: Watch, gallery: Serving, album: Album, collection: str
) -> None:
    watch.expect(*GONE)
    with Proxy(int(gallery.url.rpartition(":")[2])) as proxy:
        page = await new_page(f"http://{proxy.address}")
        await choose(page, album.folder)
        await make_collection(page, collection)
        await at_rest(page)

        proxy.fault = Fault("reset", requests=True)
        await start_import(page)
        await expect(page.get_by_text("The server does not answer")).to_be_visible()
        await expect(page.get_by_text("The import waits")).to_be_visible()
        proxy.fault = None
        # It tries by itself, too, and has perhaps just done so.
        await page.get_by_role("button", name="Try now").evaluate_all("(all) => all.forEach((each) => each.click())")
        await import_done(page, failed=len(BROKEN))

    with gallery.client() as client:
        check(client, collection, album)


async def test_a_quota_makes_the_import_wait_and_no_picture_fails(
    new_page: NewPage, watch: Watch, guarded: Guarded, gallery: Serving, album: Album, collection: str
) -> None:
    watch.expect("401", "429")
    page = await new_page(guarded.server.url)
    key = guarded.keys["importer"]
    await page.goto("#/import")
    await page.get_by_label("Key or token").fill(key)
    await page.keyboard.press("Enter")
    await page.get_by_label("Choose a folder").set_input_files(album.folder)
    await make_collection(page, collection)
    refused: list[Response] = []
    page.on(
        "response", lambda answer: refused.append(answer) if answer.status == HTTPStatus.TOO_MANY_REQUESTS else None
    )

    with guarded.server.client(api_key=key) as another:

        async def spend_and_go_on(route: Route) -> None:
            # On a slow machine the import alone may never use up the quota of its key.
            if not refused:
                with suppress(VecgateError):
                    await asyncio.to_thread(another.embed, [SPENT] * SPENT_INPUTS)
            await route.continue_()

        await page.route("**/ImportObjects", spend_and_go_on)
        await start_import(page)
        await import_done(page, failed=len(BROKEN))
        await page.unroute_all(behavior="wait")

    assert refused

    with gallery.client() as client:
        check(client, collection, album)
