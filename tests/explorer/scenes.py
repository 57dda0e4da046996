"""Each page of the explorer with something on it: what tests and screenshots look at."""

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from playwright.async_api import Locator, Page, expect

from service.cli.demo import COLLECTION
from service.error_table import rule_for, to_status
from service.errors import CredentialsInvalid, QuotaExceeded, ServiceError
from service.rpc.connect.errors import connect_code
from tests.explorer.gestures import drop
from tests.explorer.samples import PICTURES, QUERIES

SEARCH = f"#/search?collection={COLLECTION}"
"""Other tests may have made other collections, which a page may show first."""

WORDS = "something cold to drink"
EVALUATED_WAYS = "present;alpha=0.5"
EVALUATION_MS = 120_000
"""Milliseconds that a whole evaluation may take on a busy machine."""

ALL_IN_VIEW = """() => ![...document.querySelectorAll("main .loading")].some((each) => {
  const {top, bottom} = each.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}) && [...document.querySelectorAll("main img")].every((each) => each.complete)"""


AT_REST = """() => new Promise((done) => {
  let quiet = 0;
  const look = () => {
    const waits = document.querySelector("main .busy, main .waiting") && !document.querySelector("dialog:modal");
    quiet = waits ? 0 : quiet + 1;
    if (quiet > 5) done(); else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})"""
"""Between two things that a page waits for there may be a frame or two without either; behind a dialog it waits for
people."""


async def at_rest(page: Page) -> None:
    """Wait until the page has drawn what its address says, and nothing of it is on its way but pictures."""
    await page.evaluate(AT_REST)


def results(page: Page) -> Locator:
    """Return the hits of a search."""
    return page.get_by_role("region", name="Results").get_by_role("listitem")


def titles(page: Page) -> Locator:
    """Return what the hits are called."""
    return results(page).locator(".title")


async def settled(page: Page) -> None:
    """Wait until the answer to the latest search is shown."""
    await expect(results(page).first).to_be_visible()
    await at_rest(page)


async def all_pictures_shown(page: Page) -> None:
    """Wait until every picture in view is there; those below are fetched when they come into view."""
    await expect(page.locator("main img").first).to_be_visible()
    await page.wait_for_function(ALL_IN_VIEW)


async def search_by_words(page: Page, words: str = WORDS) -> None:
    """Search by words, typed as people do."""
    await page.goto(SEARCH)
    await page.get_by_role("searchbox").fill(words)
    await page.get_by_role("searchbox").press("Enter")
    await expect(page.get_by_role("status").filter(has_text="hits")).to_be_visible()
    await expect(results(page).first).to_contain_text("distance")
    await all_pictures_shown(page)


async def search_by_picture(page: Page, picture: Path = QUERIES / "fluent" / "pizza.png") -> None:
    """Search by a picture that is dropped."""
    await page.goto(SEARCH)
    await expect(results(page).first).to_be_visible()
    await drop(page.get_by_role("main"), picture)
    await expect(page.get_by_alt_text("The picture that is searched by")).to_be_visible()
    await expect(results(page).first).to_contain_text("distance")
    await all_pictures_shown(page)


async def filtered(page: Page) -> None:
    """Search by words among the objects that fit a condition."""
    await search_by_words(page)
    add = page.get_by_role("button", name="Add a condition")
    if not await add.is_visible():  # on a phone
        await page.locator("summary", has_text="Options").click()
    await add.click()
    await page.get_by_label("Comparison").select_option("has a word like")
    await page.get_by_label("Value", exact=True).fill("glas*")
    await page.keyboard.press("Tab")
    await page.wait_for_url("**filter=*")
    await settled(page)
    await all_pictures_shown(page)


async def more_like_this(page: Page) -> None:
    """Go from a hit to its likes."""
    await search_by_words(page, "a dog")
    await results(page).first.get_by_role("link", name="More like").click()
    await expect(page.get_by_text("like this object")).to_be_visible()
    await settled(page)
    await all_pictures_shown(page)


async def camera(page: Page) -> None:
    """Look through the camera, which `launched` gives to the browser."""
    await page.context.grant_permissions(["camera"])
    await page.goto(SEARCH)
    await page.get_by_role("button", name="Camera").click()
    await expect(page.get_by_role("button", name="Use this picture")).to_be_enabled()


async def object_(page: Page) -> None:
    """Show what is stored of an object."""
    await search_by_words(page, "a dog")
    await results(page).first.get_by_role("link").first.click()
    await expect(page.get_by_role("heading", name="Properties")).to_be_visible()
    await all_pictures_shown(page)


async def map_(page: Page) -> None:
    """Show the map of the sample pictures, so near that the pictures are seen."""
    await page.goto(f"#/map?collection={COLLECTION}")
    await expect(page.get_by_role("status").filter(has_text="objects.")).to_be_visible()
    await page.locator("canvas").hover()
    for _ in range(3):
        await page.mouse.wheel(0, -300)
    await page.mouse.move(0, 0)
    await expect(page.locator("canvas")).to_have_attribute("aria-busy", "false")


async def compare(page: Page) -> None:
    """Compare some texts with some pictures."""
    await page.goto("#/compare")
    await page.get_by_label("Texts, one a line").fill("a dog\na cat\nsomething to eat")
    await drop(page.get_by_role("main"), *(PICTURES / f"{name}.png" for name in ("dog", "cat", "pizza", "automobile")))
    await expect(page.get_by_role("list", name="Pictures to compare").get_by_role("listitem")).to_have_count(4)
    await page.get_by_role("button", name="Compare", exact=True).click()
    await expect(page.get_by_role("region", name="Cosines")).to_be_visible()
    await at_rest(page)


async def run_evaluation(page: Page) -> None:
    """Evaluate as the form says, and wait for the end."""
    await page.get_by_role("button", name="Evaluate", exact=True).click()
    await expect(page.get_by_text("The evaluation is done.")).to_be_visible(timeout=EVALUATION_MS)


async def evaluate(page: Page) -> None:
    """Evaluate the search by names, in two ways."""
    await page.goto(f"#/evaluate?collection={COLLECTION}&by=captions&property=name&limit=3&ways={EVALUATED_WAYS}")
    await run_evaluation(page)
    await page.get_by_role("heading", name="Queries that win and lose most").scroll_into_view_if_needed()
    await all_pictures_shown(page)


async def import_(page: Page) -> None:
    """Choose where pictures are to be imported."""
    await page.goto("#/import")
    await expect(page.get_by_role("button", name="Import", exact=True)).to_be_visible()
    await drop(page.get_by_role("main"), QUERIES / "fluent")
    await expect(page.get_by_text("pictures").first).to_be_visible()


async def collections(page: Page) -> None:
    """List the collections."""
    await page.goto("#/collections")
    await expect(page.get_by_role("article", name=COLLECTION)).to_contain_text(re.compile(r"\d objects?"))


async def collection(page: Page) -> None:
    """Show one collection with its schema."""
    await page.goto(f"#/collections?collection={COLLECTION}")
    await expect(page.get_by_role("region", name="Named vectors")).to_be_visible()


async def status(page: Page) -> None:
    """Show what the server does."""
    await page.goto("#/status")
    await expect(page.get_by_role("main")).to_contain_text("pictogram-clip")


async def refuse(page: Page, error: ServiceError) -> None:
    """Let searches and lists be refused by an error of the table, as the server writes it."""
    rule, told = rule_for(error), to_status(error, "")
    details = [{"type": each.TypeName(), "value": base64.b64encode(each.value).decode()} for each in told.details]
    body = {"code": connect_code(rule.code).value, "message": told.message, "details": details}
    await page.route(
        re.compile("/(SearchObjects|ListObjects)$"), lambda route: route.fulfill(status=rule.http, json=body)
    )


async def wrong_key(page: Page) -> None:
    """Ask for another key in place of a wrong one."""
    await refuse(page, CredentialsInvalid("unknown API key; ask the operator of this server for one"))
    await page.goto(SEARCH)
    await expect(page.get_by_role("dialog", name="API key")).to_contain_text("CREDENTIALS_INVALID")


async def quota_exceeded(page: Page) -> None:
    """Search with a key whose quota is used up."""
    await refuse(page, QuotaExceeded("anna", "inputs_per_second", "10", retry_after_s=95))
    await page.goto(f"{SEARCH}&words=a+dog")
    await expect(page.get_by_role("alert")).to_contain_text("Try again in")


async def server_down(page: Page) -> None:
    """Search while nobody answers."""
    await page.route("**/SearchObjects", lambda route: route.abort())
    await page.goto(f"{SEARCH}&words=a+dog")
    await expect(page.get_by_role("alert")).to_contain_text("The server does not answer")


SCENES: Mapping[str, Callable[[Page], Awaitable[None]]] = {
    "search": search_by_words,
    "search-by-picture": search_by_picture,
    "filter": filtered,
    "more-like-this": more_like_this,
    "camera": camera,
    "object": object_,
    "map": map_,
    "compare": compare,
    "evaluate": evaluate,
    "import": import_,
    "collections": collections,
    "collection": collection,
    "status": status,
    "wrong-key": wrong_key,
    "quota-exceeded": quota_exceeded,
    "server-down": server_down,
}
"""By the names of their screenshots."""


async def make_collection(page: Page, name: str) -> None:
    """Make a new collection on the page of imports."""
    await page.get_by_label("a new collection").check()
    await page.get_by_role("textbox", name="Name", exact=True).fill(name)
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("combobox", name="Collection", exact=True)).to_have_value(name)


async def start_import(page: Page) -> None:
    """Begin an import of what was chosen."""
    await page.get_by_role("button", name="Import", exact=True).click()


async def import_done(page: Page, *, failed: int) -> None:
    """Wait for the end of an import, in which so many pictures failed."""
    await expect(page.get_by_text("The import is done")).to_be_visible(timeout=120_000)
    await expect(page.get_by_text(f"{failed} failed", exact=True)).to_be_visible()
