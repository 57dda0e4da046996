"""Pages that may use the port from a browser, and pages that may not."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from service.settings import AuthSettings, ServerSettings, WebSettings
from tests.fakes.clients import key_of, let_in
from tests.service.conftest import start_wire, stop_wire

pytestmark = pytest.mark.parametrize("transport", ["connect-json"], indirect=True)

PAGE = "https://pictures.example.com"
LIST = "/vecgate.v1.EmbeddingService/ListEmbedders"
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def run(*origins: str, auth: AuthSettings | None = None) -> AsyncIterator[httpx.AsyncClient]:
        wire = await start_wire(
            web=WebSettings(port=0, cors_origins=list(origins)), auth=auth, server=ServerSettings(port=0)
        )
        try:
            async with httpx.AsyncClient(base_url=wire.web.address) as http:
                yield http
        finally:
            await stop_wire(wire)

    return run


async def ask(http: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await http.post(LIST, json={}, headers={name.replace("_", "-"): each for name, each in headers.items()})


async def prepare(http: httpx.AsyncClient, origin: str, path: str = LIST) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,connect-protocol-version",
    }
    return await http.options(path, headers=headers)


@pytest.mark.parametrize("path", [LIST, "/v1/embeddings"])
async def test_a_listed_origin_is_let_in_without_a_key_for_the_question(
    serve: Serve, tmp_path: Path, path: str
) -> None:
    auth = let_in(tmp_path / "clients.toml", page='permissions = ["embed"]')
    async with serve(PAGE, auth=auth) as http:
        asked = await prepare(http, PAGE, path)
        answer = await ask(http, origin=PAGE, authorization=f"Bearer {key_of('page')}")
        refused = await ask(http, origin=PAGE)

    assert asked.status_code == httpx.codes.NO_CONTENT
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert asked.headers["access-control-allow-headers"] == "authorization,content-type,connect-protocol-version"
    assert "access-control-allow-credentials" not in asked.headers
    assert (answer.status_code, refused.status_code) == (200, 401)
    for each in (answer, refused):
        assert each.headers["access-control-allow-origin"] == PAGE
        assert "server-timing" in each.headers["access-control-expose-headers"]
        assert each.headers["timing-allow-origin"] == PAGE
        assert "origin" in each.headers["vary"].lower()


@pytest.mark.parametrize(
    "origin", ["https://other.example.com", "http://pictures.example.com", f"{PAGE}:8443", f"{PAGE}.evil.org", "null"]
)
async def test_another_origin_is_not_let_in(serve: Serve, origin: str) -> None:
    async with serve(PAGE) as http:
        asked = await prepare(http, origin)
        answer = await ask(http, origin=origin, sec_fetch_site="cross-site")

    assert asked.status_code == httpx.codes.FORBIDDEN
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    for each in (asked, answer):
        assert "access-control-allow-origin" not in each.headers


async def test_no_other_origin_is_let_in_by_default(serve: Serve) -> None:
    async with serve() as http:
        asked = await prepare(http, PAGE)
        answer = await ask(http, origin=PAGE)

    assert asked.status_code == httpx.codes.METHOD_NOT_ALLOWED
    for each in (asked, answer):
        assert not [name for name in each.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)]
)
async def test_a_get_that_a_page_of_another_origin_causes_is_refused(serve: Serve, site: str, status: int) -> None:
    async with serve() as http:
        answer = await http.get(
            LIST,
            params={"encoding": "json", "message": "{}"},
            headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"},
        )

    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site", "content-type": "text/plain"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": PAGE}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"host": "host.docker.internal"}, 200),
    ],
)
async def test_the_routes_of_a_nim_take_nothing_from_pages_of_other_origins(
    serve: Serve, headers: dict[str, str], status: int
) -> None:
    async with serve(PAGE) as http:
        answer = await http.post("/v1/embeddings", json={"model": "fake/model", "input": "a cat"}, headers=headers)

    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8070", 200),
        ("[::1]:8070", 200),
        ("localhost", 200),
        ("localhost.:8070", 200),
        ("vecgate.localhost:80", 200),
        ("pictures.example.com", 200),
        ("rebound.example.com:8070", 403),
        ("localhost.example.com", 403),
        ("127.0.0.1.example.com", 403),
        ("[::1", 403),
    ],
)
async def test_a_server_without_keys_takes_calls_under_the_names_of_its_machine_only(
    serve: Serve, host: str, status: int
) -> None:
    async with serve(PAGE) as http:
        answer = await ask(http, host=host)

    assert answer.status_code == status


async def test_a_server_with_keys_takes_calls_under_any_name(serve: Serve, tmp_path: Path) -> None:
    auth = let_in(tmp_path / "clients.toml", page='permissions = ["embed"]')
    async with serve(auth=auth) as http:
        answer = await ask(http, host="vecgate.example.com", authorization=f"Bearer {key_of('page')}")

    assert answer.status_code == httpx.codes.OK


@pytest.mark.parametrize(
    "origin", ["*", "pictures.example.com", f"{PAGE}/", f"{PAGE}/page", "https://Pictures.com", "null"]
)
def test_what_is_no_exact_origin_is_no_setting(origin: str) -> None:
    with pytest.raises(ValueError, match="no origin"):
        WebSettings(cors_origins=[origin])
