"""axe sees what keeps people from using a page, under a policy that allows no script."""

from tests.explorer.conftest import NewPage
from tests.explorer.loopback import served_page
from tests.explorer.scripts import Scripts, grave_violations

POLICY = {"content-security-policy": "default-src 'none'"}
GOOD = "<!doctype html><html lang=en><title>a page</title><main><h1>Title</h1><label>Name <input></label></main></html>"


async def test_axe_finds_a_field_without_a_label_and_nothing_in_a_good_page(
    new_page: NewPage, scripts: Scripts
) -> None:
    bad = GOOD.replace("<label>Name <input></label>", "<input>")
    found = []
    for html in (GOOD, bad):
        async with served_page(html, POLICY) as url:
            page = await new_page(url)
            await page.goto("/")
            found.append(await grave_violations(page, scripts.axe))

    assert found[0] == []
    assert [each.partition(" ")[0] for each in found[1]] == ["label"]
