"""What makes every test of a page fail, whatever else it looks at."""

import asyncio

import pytest

from tests.explorer.chromium import NAMES, VARIABLE, ChromiumMissing, find_chromium
from tests.explorer.conftest import PATIENCE_MS, NewPage
from tests.explorer.loopback import served_page
from tests.explorer.watching import Watch

POLICY = {"content-security-policy": "default-src 'self'"}


async def noticed(watch: Watch, *faults: str) -> None:
    """Wait until these faults were noticed: the browser tells of them when it can."""
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while not all(any(fault in each for each in watch.faults) for fault in faults):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ("<script>document.title = 'run'</script>", "policy broken: script-src-elem by inline"),
        ("<p onclick='1' style='color: red'>", "policy broken: style-src-attr by inline"),
        ("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", "policy broken: img-src by data"),
        ("<img src='http://203.0.113.1/a.png'>", "policy broken: img-src by http://203.0.113.1/a.png"),
        ("<script src='//localhost:1/a.js'></script>", "policy broken: script-src-elem by http://localhost:1/a.js"),
    ],
    ids=["inline script", "inline style", "data URL", "picture elsewhere", "script elsewhere"],
)
async def test_a_page_that_breaks_its_policy_is_noticed(html: str, fault: str, new_page: NewPage, watch: Watch) -> None:
    watch.expect("")
    async with served_page(html, POLICY) as url:
        page = await new_page(url)
        await page.goto("/")

        await noticed(watch, fault)


async def test_errors_and_requests_to_other_origins_are_noticed(new_page: NewPage, watch: Watch) -> None:
    watch.expect("")
    async with served_page("<title>a page</title>") as url:
        page = await new_page(url)
        await page.goto("/")
        await page.evaluate("setTimeout(() => { throw new Error('thrown') })")
        await page.evaluate("console.error('told')")
        await page.evaluate("fetch('http://localhost:1/').catch(() => null)")

        await noticed(watch, "error: thrown", "error: told", "asked another origin: http://localhost:1/")


async def test_a_quiet_page_has_no_faults(new_page: NewPage, watch: Watch) -> None:
    async with served_page("<title>a page</title><p>text", POLICY) as url:
        page = await new_page(url)
        await page.goto("/")
        await page.wait_for_load_state("networkidle")

    assert watch.faults == []


def test_a_machine_without_chromium_is_told_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(ChromiumMissing, match=r"apt-get install chromium.*CHROMIUM.*-m 'not browser'"):
        find_chromium()


def test_a_variable_that_names_no_program_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/chromium")

    with pytest.raises(ChromiumMissing, match="CHROMIUM names /nowhere/chromium, which is not a program"):
        find_chromium()


def test_the_names_of_chromium_are_looked_for_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(
        "tests.explorer.chromium.shutil.which", lambda name: f"/bin/{name}" if name == NAMES[1] else None
    )

    assert find_chromium() == f"/bin/{NAMES[1]}"
