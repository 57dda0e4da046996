"""The explorer's files as a browser gets them."""

import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from tests.fakes.clients import let_in
from tests.fakes.web import MODEL, running_web

ROOT = Path(__file__).parents[4]
EXPLORER = ROOT / "service" / "web" / "explorer"
STATIC = EXPLORER / "static"
MOST_BYTES = 300_000
TYPES = {
    "explorer.css": "text/css; charset=utf-8",
    "explorer.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with running_web() as web, httpx.AsyncClient(base_url=web.url) as client:
        yield client


class Page(HTMLParser):
    """The addresses that a page loads, and what it has inline."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [address for name in ("href", "src") if (address := given.get(name))]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.inline += [tag] if tag == "style" or (tag == "script" and "src" not in given) else []


async def test_the_page_and_its_files_come_with_their_types_and_a_strict_policy(http: httpx.AsyncClient) -> None:
    index = await http.get("/")
    files = {name: await http.get(f"/explorer/{name}") for name in TYPES}

    assert (index.status_code, index.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert index.content == (STATIC / "index.html").read_bytes()
    assert {name: answer.headers["content-type"] for name, answer in files.items()} == TYPES
    for answer in (index, *files.values()):
        policy = dict(each.partition(" ")[::2] for each in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert policy["img-src"] == "'self' blob:"
        assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("place", ["/", "/a/b/"])
async def test_the_page_names_its_files_relative_to_itself_under_every_prefix(place: str) -> None:
    async with running_web(path_prefix="/a/b") as web, httpx.AsyncClient(base_url=web.url) as http:
        page = Page((await http.get(place)).text)
        found = [(await http.get(urljoin(place, address))).status_code for address in page.addresses]

    assert len(found) >= len(TYPES)
    assert set(found) == {200}
    assert [address for address in page.addresses if address.startswith(("/", "http"))] == []
    assert page.inline == []


async def test_the_prefix_without_its_slash_leads_to_the_page() -> None:
    async with running_web(path_prefix="/a/b") as web, httpx.AsyncClient(base_url=web.url) as http:
        answer = await http.get("/a/b")

    assert (answer.status_code, answer.headers["location"]) == (308, "b/")


async def test_a_browser_that_has_a_file_gets_no_second_copy(http: httpx.AsyncClient) -> None:
    first = await http.get("/explorer/explorer.js")
    tag = first.headers["etag"]
    given = (tag, f'"a", {tag.removeprefix("W/")}')
    known = [await http.get("/explorer/explorer.js", headers={"if-none-match": each}) for each in given]
    other = await http.get("/explorer/explorer.js", headers={"if-none-match": '"a"'})

    assert [(each.status_code, each.content, each.headers["etag"]) for each in known] == [(304, b"", tag)] * 2
    assert (other.status_code, other.content) == (200, first.content)


async def test_a_browser_that_unpacks_gets_a_third_of_the_bytes_and_others_the_file_itself(
    http: httpx.AsyncClient,
) -> None:
    path, content = "/explorer/explorer.js", (STATIC / "explorer.js").read_bytes()

    packed = await http.get(path, headers={"accept-encoding": "br, gzip"})
    plain = [await http.get(path, headers={"accept-encoding": each}) for each in ("identity", "gzip;q=0", "")]

    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(content) / 2.5
    assert [each.content for each in (packed, *plain)] == [content] * 4
    assert all("content-encoding" not in each.headers for each in plain)
    assert {each.headers["vary"] for each in (packed, *plain)} == {"accept-encoding"}


async def test_head_tells_the_size_and_other_methods_are_refused(http: httpx.AsyncClient) -> None:
    head = await http.head("/", headers={"accept-encoding": "identity"})
    post = await http.post("/")

    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == (STATIC / "index.html").stat().st_size
    assert (post.status_code, post.headers["allow"]) == (405, "GET, HEAD")


async def test_the_page_needs_no_key_but_a_call_does(tmp_path: Path) -> None:
    auth = let_in(tmp_path / "clients.toml", a='permissions = ["embed"]')
    async with running_web(auth=auth) as web, httpx.AsyncClient(base_url=web.url) as http:
        open_ = [(await http.get(path)).status_code for path in ("/", "/explorer/explorer.js")]
        closed = [(await http.get(path)).status_code for path in ("/v1/models", "/explorer/", "/explorer/secret.js")]
        called = await http.post("/v1/embeddings", json={"model": MODEL, "input": "a cat"})

    assert open_ == [200, 200]
    assert closed == [401, 401, 401]
    assert called.status_code == 401


async def test_a_server_without_the_explorer_has_nothing_there() -> None:
    async with running_web(explorer=False, path_prefix="/a") as web, httpx.AsyncClient(base_url=web.url) as http:
        answers = [await http.get(path) for path in ("/", "/a", "/a/", "/explorer/explorer.js")]
        other = await http.get("/v1/models")

    assert [(each.status_code, each.json()["error"]["code"]) for each in answers] == [(404, "path_not_found")] * 4
    assert other.status_code == 200


@pytest.mark.parametrize(
    "path", ["/explorer/../index.html", "/explorer/%2e%2e/%2e%2e/serving.py", "/explorer/index.html"]
)
async def test_nothing_but_the_files_is_served(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404


def test_the_files_are_small_and_name_no_host() -> None:
    files = {path.name: path.read_bytes() for path in STATIC.iterdir()}
    hosts = {
        (name, match)
        for name, content in files.items()
        for match in re.findall(r"https?://[^\"'`\s)]+", content.decode("utf-8"))
    }

    assert set(files) == {"index.html", *TYPES}
    assert sum(map(len, files.values())) <= MOST_BYTES
    # Names of namespaces, which nothing asks for.
    assert {match for _, match in hosts if not match.startswith("http://www.w3.org/")} == set()


def test_what_the_page_is_built_from_is_pinned_and_names_no_registry() -> None:
    packages = json.loads((EXPLORER / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    installed = {name: each for name, each in packages.items() if name}

    assert installed
    assert [name for name, each in installed.items() if "resolved" in each] == []
    assert [name for name, each in installed.items() if not each.get("integrity")] == []


def test_nothing_of_the_page_turns_text_into_code_or_markup() -> None:
    risky = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|\beval\(|new Function"
    )
    sources = sorted(EXPLORER.glob("src/**/*.ts*"))

    assert len(sources) > 10
    assert [path.name for path in sources if risky.search(path.read_text(encoding="utf-8"))] == []
