"""What the page costs: its files, what is sent before the first picture shows, and how many answers that waits for."""

from pathlib import Path

from playwright.async_api import Page, Response

from service.web import explorer
from tests.explorer.scenes import SEARCH, all_pictures_shown

MOST_BYTES = 300_000
MOST_ROUND_TRIPS = 6
"""Page, script, collections, search, picture; and one to spare."""
LATENCY_MS = 500
"""Of each answer, so that calls which do not wait for each other overlap, however slow the machine is."""


def test_the_files_of_the_page_are_small() -> None:
    files = [path for path in (Path(explorer.__file__).parent / "static").rglob("*") if path.is_file()]

    assert files
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


async def test_the_first_picture_is_there_after_few_bytes_and_round_trips(page: Page) -> None:
    session = await page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": LATENCY_MS, "downloadThroughput": -1, "uploadThroughput": -1}
    await session.send("Network.emulateNetworkConditions", slow)
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 -- it takes no built-in

    await page.goto(f"{SEARCH}&words=a+dog")
    await all_pictures_shown(page)

    timings = [(each.url, each.request.timing) for each in answers]
    spans = sorted((each["startTime"], each["startTime"] + max(each["responseEnd"], 0)) for _, each in timings)
    picture = min(each["startTime"] + each["responseEnd"] for url, each in timings if url.endswith("/GetObject"))
    rounds, until = 0, 0.0
    for start, end in spans:
        if until <= start < picture:
            rounds, until = rounds + 1, end
    sizes = [await each.request.sizes() for each in answers]
    assert sum(each["responseBodySize"] + each["responseHeadersSize"] for each in sizes) <= MOST_BYTES
    assert rounds <= MOST_ROUND_TRIPS
