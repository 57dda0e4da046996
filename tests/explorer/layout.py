"""Whether a page holds together: nothing wider than the window, and nothing over the navigation."""

from playwright.async_api import Page

FAULTS = """() => {
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
  return faults;
}"""


async def layout_faults(page: Page) -> list[str]:
    """Return what is wrong with the layout of a page at its present width."""
    found: list[str] = await page.evaluate(FAULTS)
    return found
