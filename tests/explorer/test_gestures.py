"""Drops and pastes reach a page as those of people do; otherwise tests would prove nothing about these."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.explorer.conftest import NewPage
from tests.explorer.gestures import drop, paste, tab_through
from tests.explorer.loopback import served_page
from tests.explorer.samples import PICTURES

DOG = PICTURES / "dog.png"
PAGE = """<!doctype html><title>a page</title>
<a href="#a">first</a><button>second</button><div id="zone">here</div>
<script>
const zone = document.getElementById("zone");
zone.addEventListener("dragover", (event) => event.preventDefault());
zone.addEventListener("drop", (event) => {
  event.preventDefault();
  const kind = (item) => item.webkitGetAsEntry().isDirectory ? "folder" : "file";
  const items = [...event.dataTransfer.items];
  zone.textContent = items.map((item) => `${kind(item)} ${item.webkitGetAsEntry().name}`).join();
});
addEventListener("paste", (event) => {
  zone.textContent = [...event.clipboardData.files].map((file) => `${file.type} ${file.size > 100}`).join();
});
</script>"""


async def test_files_and_folders_are_dropped(new_page: NewPage, tmp_path: Path) -> None:
    async with served_page(PAGE) as url:
        page = await new_page(url)
        await page.goto("/")

        await drop(page.locator("#zone"), DOG, tmp_path)

        await expect(page.locator("#zone")).to_have_text(f"file dog.png,folder {tmp_path.name}")


async def test_a_drop_that_the_browser_loses_is_made_again_and_one_that_came_is_not(new_page: NewPage) -> None:
    # What lies under the pointer goes between the last dragover of the first try and its drop.
    replacing = """<script>
    let overs = 0, drops = 0;
    const lies = (name) => zone.innerHTML = `<p id=${name}>here</p>`;
    lies("old");
    addEventListener("dragover", () => { if (++overs === 2) queueMicrotask(() => lies("new")); });
    addEventListener("drop", () => { document.title = `dropped ${++drops}`; });
    </script>"""
    async with served_page(PAGE + replacing) as url:
        page = await new_page(url)
        await page.goto("/")

        await drop(page.locator("#old"), DOG)
        assert await page.title() == "dropped 1"
        await drop(page.locator("#zone"), DOG)

        assert await page.title() == "dropped 2"
        assert await page.evaluate("overs") == 6


async def test_a_page_that_takes_no_drop_is_told_of(new_page: NewPage) -> None:
    async with served_page("<p>here</p>") as url:
        page = await new_page(url)
        await page.goto("/")

        with pytest.raises(AssertionError, match="refused"):
            await drop(page.get_by_text("here"), DOG)


async def test_a_picture_is_pasted(new_page: NewPage) -> None:
    async with served_page(PAGE) as url:
        page = await new_page(url)
        await page.goto("/")

        await paste(page, DOG.read_bytes())

        await expect(page.locator("#zone")).to_have_text("image/png true")


async def test_the_focus_comes_round(new_page: NewPage) -> None:
    hidden = (
        "<style>#b:focus { outline: none }</style><button id=b>third</button><a href='#c' onfocus='this.blur()'>no</a>"
    )
    async with served_page(PAGE + hidden) as url:
        page = await new_page(url)
        await page.goto("/")

        seen = await tab_through(page)

        assert seen.names == ("a first", "button second", "button third")
        assert seen.unmarked == ("button third",)
        assert seen.missed == ("a no",)
