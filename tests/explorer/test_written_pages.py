"""The pages that commands write: everybody can read them, in both themes and on a phone."""

import asyncio
import sys
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import expect

from service.cli.demo import COLLECTION
from tests.e2e.serving import ROOT, Serving
from tests.explorer.conftest import NewPage
from tests.explorer.scripts import Scripts, grave_violations

SYSTEMS = ("--system", "alpha=0.3", "--system", "alpha=0.7")
COMMANDS = {
    "evaluate": ("evaluate", COLLECTION, "--caption-field", "name", "--sample", "40", "--suggest", *SYSTEMS),
    "duplicates": ("duplicates", COLLECTION, "--threshold", "0.9"),
}


async def write(server: Serving, command: str, file: Path) -> None:
    """Let a command write its page."""
    arguments = ["--address", server.address, *COMMANDS[command], "--html", str(file)]
    program = [sys.executable, "-m", "service", *arguments]
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_page_that_a_command_writes_keeps_nobody_out_in_both_themes(
    command: str, gallery: Serving, new_page: NewPage, scripts: Scripts, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    await write(gallery, command, file)
    page = await new_page(file.as_uri())
    await page.goto(file.as_uri())
    await expect(page.get_by_role("heading", level=1)).to_be_visible()

    found = []
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for theme in themes:
        await page.emulate_media(color_scheme=theme)
        found += [f"{theme}: {fault}" for fault in await grave_violations(page, scripts.axe)]

    assert not found, "\n".join(found)
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
