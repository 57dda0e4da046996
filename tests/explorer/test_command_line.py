"""What the command line opens in a browser is the search that was typed."""

import os
import subprocess
import sys

from playwright.async_api import Page, expect

from service.cli.demo import COLLECTION
from tests.e2e.serving import ROOT, Serving
from vecgate.client import bm25

# No browser of this machine opens.
HERE = {name: value for name, value in os.environ.items() if name not in {"BROWSER", "DISPLAY", "WAYLAND_DISPLAY"}}


def address_of(gallery: Serving, *arguments: str) -> str:
    """Return the address that a search with --open prints where it opens no browser."""
    program = (sys.executable, "-m", "service", "--address", gallery.address, "--explorer-url", gallery.url)
    done = subprocess.run(
        [*program, "search", *arguments, "--open"], cwd=ROOT, env=HERE, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


async def test_words_and_a_condition_arrive(page: Page, gallery: Serving) -> None:
    await page.goto(address_of(gallery, "a dog", "--collection", COLLECTION, "--where", "name=cat"))

    await expect(page.get_by_role("searchbox", name="Search by words")).to_have_value("a dog")
    await expect(page.locator(".hit .title").first).to_contain_text("cat", use_inner_text=True)


async def test_keywords_are_looked_for_as_they_are(page: Page, gallery: Serving) -> None:
    with gallery.client() as client:
        expected = client.search(COLLECTION, query=bm25("apple"), limit=1).hits[0].object.properties["name"]

    await page.goto(address_of(gallery, "apple", "--keywords"))

    await expect(page.locator(".hit .title").first).to_have_text(expected, use_inner_text=True)


async def test_an_object_is_looked_for_by_its_id(page: Page, gallery: Serving) -> None:
    with gallery.client() as client:
        found = client.search(COLLECTION, text="pizza", limit=1).hits[0].object

    await page.goto(address_of(gallery, "--near-object", str(found.id)))

    await expect(page.locator(".hit .title").first).to_have_text(found.properties["name"], use_inner_text=True)
