"""Whether a page holds together: nothing wider than the window, and nothing over what people click or fill in."""

from playwright.async_api import Page

FAULTS = """async () => {
  // A page that has just got another size draws itself anew.
  const frame = () => new Promise(requestAnimationFrame);
  for (let frames = 0; frames < 3; frames++) await frame();
  const faults = [];
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) {
    const right = (element) => element.getBoundingClientRect().right;
    const all = [...document.body.querySelectorAll("*")];
    const widest = all.reduce((most, each) => (right(each) > right(most) ? each : most));
    faults.push(`the page is ${wide} px wider than the window: ${widest.outerHTML.slice(0, 200)}`);
  }
  const header = document.querySelector("header").getBoundingClientRect();
  const main = document.querySelector("main").getBoundingClientRect();
  if (scrollY === 0 && main.top < header.bottom - 1) faults.push("the navigation and the content overlap");
  for (const each of document.querySelectorAll("header a, header button")) {
    const { left, right, width, height, x, y } = each.getBoundingClientRect();
    if (each.matches(".skip")) continue;
    const top = document.elementFromPoint(x + width / 2, y + height / 2);
    const isInView = left >= 0 && right <= innerWidth && y >= 0 && !document.querySelector("dialog[open]");
    if (isInView && !each.contains(top)) {
      faults.push(`"${each.textContent}" in the navigation is covered by <${top?.localName}>`);
    }
  }
  const boundOf = (element) => {
    for (let each = element.parentElement; each; each = each.parentElement) {
      const { overflowX, overflowY } = getComputedStyle(each);
      if (/auto|scroll/.test(overflowX + overflowY)) return [each, true];
      if (each.matches(".panel, fieldset, form, dialog, aside, main")) return [each, false];
    }
    return [document.body, false];
  };
  const dialog = document.querySelector("dialog[open]");
  const within = dialog ?? document.querySelector("main");
  for (const each of within.querySelectorAll("a, button, input, select, textarea, summary")) {
    const [place] = each.getClientRects();
    if (!place || each.matches(".hidden") || !each.checkVisibility({visibilityProperty: true})) continue;
    const [bound, scrolls] = boundOf(each);
    const { left, right, top, bottom } = bound.getBoundingClientRect();
    const [x, y] = [place.x + place.width / 2, place.y + place.height / 2];
    const name = each.outerHTML.slice(0, 100);
    if (scrolls && (x < left || x > right || y < top || y > bottom)) continue;
    if (!scrolls && (place.left < left - 1 || place.right > right + 1)) faults.push(`${name} runs out of its panel`);
    if (x < 0 || x > innerWidth || y < (dialog ? 0 : header.bottom) || y > innerHeight) continue;
    const over = document.elementFromPoint(x, y);
    // There is nothing outside of the window, where its edge cuts a pixel.
    if (over && !each.contains(over) && !over.contains(each)) faults.push(`${name} is covered by <${over.localName}>`);
  }
  return faults;
}"""


async def layout_faults(page: Page) -> list[str]:
    """Return what is wrong with the layout of a page at its present width."""
    found: list[str] = await page.evaluate(FAULTS)
    return found
