"""What surrounds every page: its addresses, the navigation, and files that nothing takes."""

from playwright.async_api import Page, expect

from tests.e2e.serving import Serving
from tests.explorer.conftest import NewPage
from tests.explorer.gestures import PHONE, drop
from tests.explorer.samples import PICTURES
from tests.explorer.scenes import at_rest, settled


async def test_an_address_of_no_page_shows_the_search(page: Page) -> None:
    for name in ("constructor", "toString", "nowhere"):
        await page.goto(f"#/{name}")
        await page.reload()

        await settled(page)


async def test_a_file_that_is_dropped_where_nothing_takes_it_leaves_the_page_as_it_is(page: Page) -> None:
    for name in ("Status", "Collections"):
        await page.goto(f"#/{name.lower()}")
        heading = page.get_by_role("heading", level=1, name=name)
        await expect(heading).to_be_visible()
        address = page.url

        await drop(page.get_by_role("main"), PICTURES / "dog.png")

        await at_rest(page)
        await expect(heading).to_be_visible()
        await expect(page).to_have_url(address)


async def test_the_navigation_shows_where_one_is_on_a_phone(gallery: Serving, new_page: NewPage) -> None:
    page = await new_page(gallery.url, viewport=PHONE)

    await page.goto("#/status")

    await expect(page.get_by_role("link", name="Status", exact=True)).to_be_in_viewport(ratio=1)
    await expect(page).to_have_title("Status · Vecgate")
