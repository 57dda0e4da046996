"""A page holds no data; each call needs what the same call over gRPC needs, and the page says what is missing."""

from playwright.async_api import Page, expect

from tests.explorer.conftest import Guarded, NewPage
from tests.explorer.scenes import SEARCH, results
from tests.explorer.watching import Watch

REFUSED = ("status of 401", "status of 403", "status of 429")


async def with_key(page: Page, key: str) -> None:
    """Give a key to a page that asks for one."""
    dialog = page.get_by_role("dialog", name="API key")
    await dialog.get_by_label("Key or token").fill(key)
    await dialog.get_by_role("button", name="Use this key").click()


async def test_a_page_without_a_key_asks_for_one_and_goes_on(guarded: Guarded, new_page: NewPage, watch: Watch) -> None:
    watch.expect(*REFUSED)
    page = await new_page(guarded.server.url)
    await page.goto(SEARCH)
    dialog = page.get_by_role("dialog", name="API key")
    await expect(dialog).to_contain_text("CREDENTIALS_MISSING")

    await with_key(page, "wrong")
    await expect(dialog).to_contain_text("CREDENTIALS_INVALID")
    await with_key(page, guarded.keys["reader"])

    await expect(results(page).first).to_be_visible()
    await expect(dialog).to_have_count(0)


async def test_a_key_is_kept_in_memory_only(guarded: Guarded, new_page: NewPage, watch: Watch) -> None:
    watch.expect(*REFUSED)
    page = await new_page(guarded.server.url)
    await page.goto(SEARCH)
    await with_key(page, guarded.keys["reader"])
    await expect(results(page).first).to_be_visible()

    kept = await page.evaluate(
        "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href, history.state])"
    )
    await page.reload()

    assert guarded.keys["reader"] not in kept
    await expect(page.get_by_role("dialog", name="API key")).to_be_visible()


async def test_a_person_who_gives_no_key_is_told_what_is_missing(
    guarded: Guarded, new_page: NewPage, watch: Watch
) -> None:
    watch.expect(*REFUSED)
    page = await new_page(guarded.server.url)
    await page.goto(SEARCH)
    await expect(page.get_by_role("dialog", name="API key")).to_be_visible()

    await page.keyboard.press("Escape")

    await expect(page.get_by_role("alert")).to_contain_text("The server needs an API key")
    await expect(page.get_by_role("button", name="Key", exact=True)).to_be_visible()


async def test_a_key_for_one_collection_shows_that_one_and_refuses_others(
    guarded: Guarded, new_page: NewPage, watch: Watch
) -> None:
    watch.expect(*REFUSED)
    page = await new_page(guarded.server.url)
    await page.goto("#/search?collection=Secret&words=a+dog")
    await with_key(page, guarded.keys["reader"])

    await expect(page.get_by_role("alert")).to_contain_text("Secret, or this key may not use it")
    await page.goto("#/object?collection=Secret&id=00000000-0000-0000-0000-000000000001")

    await expect(page.get_by_role("alert")).to_contain_text("PERMISSION_DENIED")


async def test_a_quota_that_is_used_up_says_when_to_try_again(
    guarded: Guarded, new_page: NewPage, watch: Watch
) -> None:
    watch.expect(*REFUSED)
    page = await new_page(guarded.server.url)
    await page.goto("#/search?collection=Pictures&words=a+dog")
    await with_key(page, guarded.keys["frugal"])
    await expect(results(page).first).to_be_visible()

    await page.get_by_role("searchbox").fill("a cat")
    await page.get_by_role("searchbox").press("Enter")

    note = page.get_by_role("alert")
    await expect(note).to_contain_text("The quota of this key is used up")
    await expect(note.get_by_role("button")).to_contain_text("Try again in")


async def test_a_key_that_is_forgotten_takes_what_it_showed_along(
    guarded: Guarded, new_page: NewPage, watch: Watch
) -> None:
    watch.expect(*REFUSED)
    page = await new_page(guarded.server.url)
    await page.goto(SEARCH)
    await with_key(page, guarded.keys["reader"])
    await expect(results(page).first).to_be_visible()
    await expect(page.get_by_role("main")).to_be_focused()

    await page.get_by_role("button", name="Forget key").click()

    await expect(page.get_by_role("dialog", name="API key")).to_contain_text("CREDENTIALS_MISSING")
    await expect(results(page)).to_have_count(0)
    await expect(page.get_by_role("combobox")).to_have_count(0)


async def test_pictures_that_need_a_key_do_not_ask_for_it(page: Page, watch: Watch) -> None:
    watch.expect(*REFUSED)
    missing = {"code": "unauthenticated", "message": "no key, no picture"}
    await page.route("**/GetObject", lambda route: route.fulfill(status=401, json=missing))

    await page.goto(SEARCH)

    await expect(results(page).first).to_contain_text("no key, no picture")
    await expect(page.get_by_role("dialog")).to_have_count(0)
