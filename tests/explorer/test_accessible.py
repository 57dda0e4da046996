"""Everybody can use each page: axe finds nothing grave, it fits every width, and the keyboard is enough."""

from typing import Literal

import pytest
from playwright.async_api import Page, ViewportSize

from tests.explorer.gestures import DESK, PHONE, tab_through
from tests.explorer.layout import layout_faults
from tests.explorer.scenes import SCENES
from tests.explorer.scripts import Scripts, grave_violations

LOOKS: tuple[tuple[ViewportSize, Literal["light", "dark"]], ...] = (
    (DESK, "light"),
    (DESK, "dark"),
    (PHONE, "light"),
    (PHONE, "dark"),
)


@pytest.mark.parametrize("scene", SCENES)
async def test_a_page_keeps_nobody_out_in_both_themes_and_on_a_phone(scene: str, page: Page, scripts: Scripts) -> None:
    await SCENES[scene](page)

    found = []
    for size, theme in LOOKS:
        await page.set_viewport_size(size)
        await page.emulate_media(color_scheme=theme)
        faults = await grave_violations(page, scripts.axe) + await layout_faults(page)
        found += [f"{theme}, {size['width']} px: {fault}" for fault in faults]

    assert not found, "\n".join(found)


@pytest.mark.parametrize("scene", SCENES)
async def test_tab_reaches_everything_in_a_page_and_shows_where_it_is(scene: str, page: Page) -> None:
    await SCENES[scene](page)

    seen = await tab_through(page)

    assert seen.missed == ()
    assert seen.unmarked == ()
