"""What people do to a page beside clicking and typing: drop files on it, and paste pictures into it."""

import base64
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Locator, Page, ViewportSize

DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 780}
COPY = 1
"""The operation of a drag that copies, in the mask of Chromium's protocol."""

TRIES = 10

WATCH_FOR_A_DROP = """() => {
  globalThis.vecgateDropped = false;
  // Before all others, so that no listener of the page can hide it.
  addEventListener("drop", () => { globalThis.vecgateDropped = true; }, {capture: true, once: true});
}"""

TO_CLIPBOARD = """async (content) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
}"""


async def drop(target: Locator, *paths: Path) -> None:
    """Drop files or folders, of absolute paths, onto an element, as from the desktop.

    The browser itself reads them, so a page gets folders as it does from people. It loses a drop where the page has
    just replaced the element under the pointer; then the drop is made again, as people do.

    Raises:
        AssertionError: no drop reaches the page.
    """
    page = target.page
    # Not its middle: what is longer than the window has that below.
    box, size = await target.bounding_box(), page.viewport_size
    assert box is not None, "what is not visible takes no drop"
    assert size is not None, "the page has a size"
    place = {
        "x": (max(box["x"], 0) + min(box["x"] + box["width"], size["width"])) / 2,
        "y": (max(box["y"], 0) + min(box["y"] + box["height"], size["height"])) / 2,
    }
    files = [str(path) for path in paths]
    data = {"items": [], "files": files, "dragOperationsMask": COPY}
    session = await page.context.new_cdp_session(page)
    await page.evaluate(WATCH_FOR_A_DROP)
    for _ in range(TRIES):
        for kind in ("dragEnter", "dragOver", "drop"):
            # Each ends when the page has handled its events.
            await session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
        if await page.evaluate("vecgateDropped"):
            break
    else:
        raise AssertionError(f"the page refused {TRIES} drops")
    await session.detach()


async def paste(page: Page, picture: bytes) -> None:
    """Put a PNG into the clipboard and paste it where the focus is."""
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.evaluate(TO_CLIPBOARD, base64.b64encode(picture).decode())
    await page.keyboard.press("Control+V")


@dataclass(frozen=True)
class Round:
    """What the key Tab leads to in a page, from its beginning to its end.

    Attributes:
        names: what had the focus, in order, each by its element and label.
        missed: what can be used but was never reached.
        unmarked: what does not show that it has the focus.
    """

    names: tuple[str, ...]
    missed: tuple[str, ...]
    unmarked: tuple[str, ...]


async def tab_through(page: Page, most: int = 500) -> Round:
    """Press Tab until the focus comes back to where it was first.

    Raises:
        AssertionError: it never comes back: something traps it, or there is more than `most`.
    """
    await page.evaluate(PREPARE)
    names, unmarked = [], []
    for _ in range(most):
        await page.keyboard.press("Tab")
        name, is_new, is_marked = await page.evaluate("vecgateFocus.next()")
        if not is_new:
            missed = await page.evaluate("vecgateFocus.missed()")
            return Round(tuple(names), tuple(missed), tuple(unmarked))
        if name == NOTHING:
            continue
        names.append(name)
        if not is_marked:
            unmarked.append(name)
    raise AssertionError(f"the focus does not come round within {most} presses of Tab: {names[-10:]}")


NOTHING = "body"
"""What has the focus between the end of a page and its beginning."""

PREPARE = """() => {
  const usable = "a[href], button, input, select, textarea, summary, [tabindex]:not([tabindex='-1'])";
  const seen = new Set();
  const nameOf = (element) => {
    if (element === document.body) return "body";
    const name = element.getAttribute("aria-label") || element.labels?.[0]?.textContent || element.textContent || "";
    return `${element.localName} ${name.trim().replace(/\\s+/g, " ").slice(0, 60)}`.trim();
  };
  const isMarked = (element) => {
    // A field that is hidden behind its label shows its focus there.
    const places = [element, ...(element.labels ?? []), element.parentElement].filter(Boolean);
    return places.some((each) => {
      const {outlineStyle, outlineWidth, boxShadow} = getComputedStyle(each);
      return (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || boxShadow !== "none";
    });
  };
  // The rest of a page is out of reach while a dialog is open.
  const within = document.querySelector("dialog:modal") ?? document;
  const isReachable = (element) => element.checkVisibility({visibilityProperty: true}) && !element.disabled &&
    element.tabIndex >= 0 && !(element.type === "radio" && !element.checked);
  document.activeElement?.blur();
  getSelection().removeAllRanges();
  globalThis.vecgateFocus = {
    next() {
      const element = document.activeElement;
      const isNew = !seen.has(element);
      seen.add(element);
      return [nameOf(element), isNew, isMarked(element)];
    },
    missed() {
      const all = [...within.querySelectorAll(usable)];
      return all.filter((each) => isReachable(each) && !seen.has(each)).map(nameOf);
    },
  };
}"""
