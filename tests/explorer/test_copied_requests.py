"""The requests that the page offers to copy, run: they find what the page shows."""

import asyncio
import json
import shlex
import sys
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.e2e.serving import ROOT, Serving
from tests.explorer.samples import QUERIES
from tests.explorer.scenes import settled

ROCKET = QUERIES / "twemoji" / "rocket.png"
FILTER = (
    '{"join":"none","items":[{"target":"property:name","operator":"FILTER_OPERATOR_CONTAINS_ANY",'
    '"values":["pizza","it\'s"]},{"target":"length:name","operator":"FILTER_OPERATOR_LESS","values":["4"]}]}'
)

WAYS = ("curl", "grpcurl", "Python")
STAND_IN = f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m tests.e2e.stand_in grpcurl"


def hits(page: Page) -> Locator:
    return page.locator(".hit")


async def look_for(page: Page, words: str) -> None:
    await page.get_by_role("searchbox", name="Search by words").fill(words)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**words=*")
    await settled(page)


@pytest.mark.parametrize(
    "search",
    [
        'words=it\'s "a dog" $HOME `id` \\ \u202e',
        "words=a+dog&alpha=0.4",
        "words=dog&alpha=0",
        f"words=food&filter={FILTER}",
        "sort=name&descending=yes",
    ],
    ids=["quotes", "hybrid", "keywords", "filter", "listing"],
)
async def test_a_copied_request_finds_what_the_page_shows(page: Page, gallery: Serving, search: str) -> None:
    await page.goto(f"#/search?{search}")
    await settled(page)

    assert await run_copied(page, gallery, Path()) == [await shown(page)] * len(WAYS)


@pytest.mark.parametrize("words", ["", "at night"])
async def test_a_copied_request_with_a_picture_reads_it_from_a_file(
    page: Page, gallery: Serving, tmp_path: Path, words: str
) -> None:
    (tmp_path / "my rocket.png").write_bytes(ROCKET.read_bytes())
    await page.goto("#/search")
    await page.locator("input[type=file]").first.set_input_files(tmp_path / "my rocket.png")
    await expect(page.get_by_role("status").filter(has_text="hits by")).to_be_visible()
    if words:
        await look_for(page, words)
    await settled(page)

    assert await run_copied(page, gallery, tmp_path) == [await shown(page)] * len(WAYS)


async def run_copied(page: Page, gallery: Serving, folder: Path) -> list[list[str]]:
    """Run the request in each way that the page offers to copy, and return the ids that each finds."""
    await page.get_by_text("This request as a command or a program").click()
    texts = []
    for way in WAYS:
        await page.get_by_role("button", name=way, exact=True).click()
        texts.append(await page.get_by_label(f"{way} request", exact=True).inner_text())
    return await asyncio.gather(*(run(text, gallery, folder) for text in texts))


async def shown(page: Page) -> list[str]:
    """Return the ids of the hits, in order."""
    addresses = await hits(page).locator(".frame").evaluate_all("(all) => all.map((each) => each.hash)")
    return [address.partition("id=")[2] for address in addresses]


async def run(text: str, server: Serving, folder: Path) -> list[str]:
    """Run what was copied, and return the ids that it finds."""
    ours = text.replace("127.0.0.1:50070", server.address)
    command = ["bash", "-c", f'grpcurl() {{ {STAND_IN} "$@"; }}\n{ours}']
    if text.startswith(("from", "import")):
        command = [sys.executable, "-c", ours]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{shlex.join(command)}: {err.decode()}"
    if command[0] != "bash":
        words = [line.split() for line in out.decode().splitlines()]
        return [next(word for word in line if len(word) == 36 and word.count("-") == 4) for line in words]
    answer = json.loads(out)
    found = answer.get("objects") or [each["object"] for each in answer["hits"]]
    return [each["id"] for each in found]
