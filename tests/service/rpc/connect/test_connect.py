"""Connect and gRPC-Web, as curl and browsers speak them."""

import asyncio
import json
from typing import Any

import httpx
import pytest
import structlog

from service.process.metrics import CALLS
from service.rpc.server.calls import CallInterceptor
from tests.service.conftest import Wire

SEARCH = "/vecgate.v1.SearchService/SearchObjects"
EMBED = "/vecgate.v1.EmbeddingService/EmbedInputs"
LIST = "/vecgate.v1.EmbeddingService/ListEmbedders"
BACKFILL = "/vecgate.v1.ObjectService/BackfillVectors"
A_DOG = {"collection": "Pictures", "nearText": {"concepts": ["a dog"]}}


pytestmark = pytest.mark.parametrize("transport", ["connect-json"], indirect=True)


@pytest.fixture
async def api(wire: Wire) -> Wire:
    await wire.create_pictures()
    return wire


async def ask(
    wire: Wire, path: str, content: object, kind: str | None = "application/json", **headers: str
) -> httpx.Response:
    sent = content if isinstance(content, bytes) else json.dumps(content).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(base_url=wire.web.address) as http:
        return await http.post(path, content=sent, headers=names if kind is None else {"content-type": kind, **names})


async def test_a_search_in_json_answers_in_json(api: Wire) -> None:
    answer = await ask(api, SEARCH, A_DOG)

    assert answer.status_code == httpx.codes.OK
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["embedder"]["name"] == "fake"
    assert "content-encoding" not in answer.headers


async def test_a_call_over_http_is_counted_and_logged_once_and_as_over_grpc(api: Wire) -> None:
    counted = CALLS.labels(SEARCH.removeprefix("/"), "OK", "anonymous")
    before = counted._value.get()  # type: ignore[no-untyped-call]
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answer = await ask(api, SEARCH, A_DOG, x_request_id="mine")

    assert answer.headers["x-request-id"] == "mine"
    assert counted._value.get() == before + 1  # type: ignore[no-untyped-call]
    (line,) = [each for each in lines if each["event"] == "call"]
    assert (line["method"], line["code"], line["request_id"]) == (SEARCH, "OK", "mine")
    assert line["peer"].startswith("127.0.0.1:")


async def test_a_deadline_that_passes_before_the_call_has_answered_has_its_reason_and_request_id(
    api: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CallInterceptor, "_time_left", lambda *_: 60.0)
    api.embedder.gate = asyncio.Event()

    answer = await ask(api, SEARCH, A_DOG, connect_timeout_ms="300", x_request_id="mine")

    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    reason, request = (each["debug"] for each in answer.json()["details"])
    assert (reason["reason"], request["requestId"]) == ("DEADLINE_EXCEEDED", "mine")


async def test_every_answer_says_how_long_it_took(api: Wire) -> None:
    for path, content in ((SEARCH, A_DOG), (SEARCH, {}), ("/vecgate.v1.SearchService/Other", {})):
        assert "total;dur=" in (await ask(api, path, content)).headers["server-timing"]
    async with httpx.AsyncClient(base_url=api.web.address) as http:
        assert "total;dur=" in (await http.get("/v1/models")).headers["server-timing"]


async def test_an_error_has_its_details_in_json_too(api: Wire) -> None:
    answer = await ask(api, SEARCH, {**A_DOG, "collection": "Other"})

    assert answer.status_code == httpx.codes.NOT_FOUND
    error = answer.json()
    assert (error["code"], "Other" in error["message"]) == ("not_found", True)
    shown: dict[str, Any] = {each["type"]: each["debug"] for each in error["details"]}
    assert shown["google.rpc.ErrorInfo"]["reason"] == "COLLECTION_NOT_FOUND"
    assert shown["google.rpc.RequestInfo"]["requestId"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "kind", "status", "code"),
    [
        ("/vecgate.v1.SearchService/Other", "application/json", 501, "unimplemented"),
        ("/vecgate.v1.OtherService/Other", "application/json", 501, "unimplemented"),
        ("/vecgate.v2.SearchService/SearchObjects", "application/json", 501, "unimplemented"),
        ("/grpc.health.v1.Health/Other", "application/json", 501, "unimplemented"),
        ("/vecgate.v1.SearchService/Other", "text/plain", 404, "unimplemented"),
        ("/vecgate.v1.SearchService/Other", None, 404, "unimplemented"),
        (SEARCH, None, 415, "invalid_argument"),
        (SEARCH, "text/plain", 415, "invalid_argument"),
        (SEARCH, "text/plain; application/json", 415, "invalid_argument"),
        (SEARCH, "application/x-www-form-urlencoded", 415, "invalid_argument"),
        (SEARCH, "multipart/form-data; boundary=x", 415, "invalid_argument"),
        (SEARCH, "application/grpc", 415, "invalid_argument"),
        (SEARCH, "application/grpc+proto", 415, "invalid_argument"),
        (SEARCH, "application/connect+json", 415, "invalid_argument"),
        (BACKFILL, "application/json", 415, "invalid_argument"),
    ],
)
async def test_what_is_no_call_is_refused_in_the_form_of_the_wire(
    api: Wire, path: str, kind: str | None, status: int, code: str
) -> None:
    answer = await ask(api, path, {}, kind)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"]
    assert answer.json()["details"][0]["debug"] == {"reason": "INVALID_INPUT", "domain": "vecgate"}


async def test_a_method_without_side_effects_takes_get_and_others_do_not(api: Wire) -> None:
    async with httpx.AsyncClient(base_url=api.web.address) as http:
        listed = await http.get(LIST, params={"encoding": "json", "message": "{}", "connect": "v1"})
        changing = await http.get(
            "/vecgate.v1.ObjectService/DeleteObject", params={"encoding": "json", "message": "{}"}
        )
        unknown = await http.get("/vecgate.v1.ObjectService/Other")

    assert listed.json()["embedders"][0]["name"] == "fake"
    assert (changing.status_code, changing.headers["allow"]) == (httpx.codes.METHOD_NOT_ALLOWED, "POST")
    assert changing.json()["details"][0]["debug"]["reason"] == "INVALID_INPUT"
    assert (unknown.status_code, unknown.json()["code"]) == (httpx.codes.NOT_FOUND, "unimplemented")
