"""Pictures of each page, light, dark and on a phone: python -m tests.explorer.screenshots FOLDER [PAGE...].

README.md shows two of them: copy search-light.png and map-dark.png to service/web/explorer/screenshots.
"""

import asyncio
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import expect

from tests.e2e.serving import serving
from tests.explorer.chromium import launched
from tests.explorer.gestures import DESK, PHONE
from tests.explorer.samples import store_samples
from tests.explorer.scenes import SCENES

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESK, "color_scheme": "light"},
    "dark": {"viewport": DESK, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
    "phone-dark": {"viewport": PHONE, "color_scheme": "dark"},
}
PATIENCE_MS = 60_000
LATER_MS = {"map": 3_000, "status": 8_000}
"""Milliseconds until a page has what comes by and by: pictures on the map, and lines of the charts."""


def compressed(picture: bytes) -> bytes:
    """Return a PNG with a palette, which is a third as large and looks the same."""
    file = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()


async def take(url: str, folder: Path, names: Sequence[str]) -> None:
    """Take pictures of pages in each look."""
    async with launched() as browser:
        for look, options in LOOKS.items():
            context = await browser.new_context(base_url=f"{url}/", reduced_motion="reduce", **options)
            context.set_default_timeout(PATIENCE_MS)
            for name in names:
                page = await context.new_page()
                await SCENES[name](page)
                await page.wait_for_timeout(LATER_MS.get(name, 0))
                path = folder / f"{name}-{look}.png"
                await asyncio.to_thread(path.write_bytes, compressed(await page.screenshot()))
                await page.close()
                sys.stdout.write(f"{path}\n")
            await context.close()


def main() -> None:
    """Run a server with the sample pictures, and take pictures of its pages."""
    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(SCENES)
    folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=PATIENCE_MS)
    with tempfile.TemporaryDirectory() as data, serving(Path(data)) as server:
        with server.client() as client:
            store_samples(client, every=1)
        asyncio.run(take(server.url, folder, names))


if __name__ == "__main__":
    main()
