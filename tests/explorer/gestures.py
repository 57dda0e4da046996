"""What people do to a page beside clicking and typing: drop files on it, and paste pictures into it."""

import base64
from collections.abc import Sequence
from pathlib import Path

from playwright.async_api import Locator, Page, ViewportSize

DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
COPY = 1
"""The operation of a drag that copies, in the mask of Chromium's protocol."""

TO_CLIPBOARD = """async (content) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
}"""


async def drop(target: Locator, *paths: Path) -> None:
    """Drop files or folders, of absolute paths, onto an element, as from the desktop.

    The browser itself reads them, so a page gets folders as it does from people.
    """
    page = target.page
    await target.scroll_into_view_if_needed()
    box = await target.bounding_box()
    assert box is not None, "what is not visible takes no drop"
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    files = [str(path) for path in paths]
    session = await page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": files, "dragOperationsMask": COPY}
        await session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    await session.detach()


async def paste(page: Page, picture: bytes) -> None:
    """Put a PNG into the clipboard and paste it where the focus is."""
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.evaluate(TO_CLIPBOARD, base64.b64encode(picture).decode())
    await page.keyboard.press("Control+V")


async def tab_through(page: Page, most: int = 200) -> Sequence[str]:
    """Press Tab until the focus comes back to where it was first, and return what had it, in order.

    Raises:
        AssertionError: it never comes back: something traps it, or there is more than `most`.
    """
    seen: list[str] = []
    marks = "tabStop"
    await page.evaluate(f"delete globalThis.{marks}; document.activeElement?.blur?.()")
    for _ in range(most):
        await page.keyboard.press("Tab")
        known, name = await page.evaluate(FOCUSED)
        if known:
            return seen
        seen.append(name)
    raise AssertionError(f"the focus does not come round within {most} presses of Tab: {seen[-10:]}")


FOCUSED = """() => {
  const element = document.activeElement;
  const seen = (globalThis.tabStop ??= new WeakSet());
  const known = seen.has(element);
  seen.add(element);
  const name = element.getAttribute("aria-label") || element.labels?.[0]?.textContent || element.textContent || "";
  return [known, `${element.localName} ${name.trim().replace(/\\s+/g, " ").slice(0, 60)}`];
}"""
