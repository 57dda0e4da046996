"""What breaks the protocols, comes slowly or never ends; and callers that leave."""

import asyncio
import gzip
import json
import struct
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import structlog
from grpc import StatusCode

from service.rpc.connect import json_messages
from service.rpc.connect.call import HttpCall
from service.rpc.server import calls
from service.rpc.server.calls import CallInterceptor
from service.settings import ServerSettings
from service.web.bounds import WebBounds
from tests.fakes.clients import key_of, let_in
from tests.fakes.embedder import picture
from tests.fakes.raw_http import Connection
from tests.service.conftest import Wire, start_wire, stop_wire
from tests.service.rpc.connect.test_connect import A_DOG, BACKFILL, EMBED, LIST, SEARCH, ask

over_http = pytest.mark.parametrize("transport", ["connect-json"], indirect=True)
pytestmark = over_http

A_TEXT = {"inputs": [{"text": "a cat"}]}
LAST, COMPRESSED, TRAILERS = 2, 1, 128


@pytest.fixture
async def api(wire: Wire) -> Wire:
    await wire.create_pictures()
    return wire


def envelope(content: bytes, flags: int = 0, size: int | None = None) -> bytes:
    return struct.pack(">BI", flags, len(content) if size is None else size) + content


def envelopes(content: bytes) -> list[tuple[int, bytes]]:
    found = []
    while content:
        flags, size = struct.unpack(">BI", content[:5])
        found.append((flags, content[5 : 5 + size]))
        content = content[5 + size :]
    return found


def never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing ask for a request, and only the protocol end a call at its caller's deadline."""

    async def forever(_: HttpCall) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(HttpCall, "read", forever)
    monkeypatch.setattr(CallInterceptor, "_time_left", lambda *_: 60.0)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(25):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(wire: Wire) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.web.port)
    yield Connection(reader, writer)
    writer.close()
    await writer.wait_closed()


def head(path: str, *lines: str) -> bytes:
    return (
        "\r\n".join((f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json", *lines)).encode()
        + b"\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "unimplemented"),
        (b"\0\0", "invalid_argument"),
        (envelope(b"{}", size=100), "invalid_argument"),
        (envelope(b"{}", size=2**32 - 1), "resource_exhausted"),
        (envelope(b"{}", flags=64), "invalid_argument"),
        (envelope(b"{}", flags=COMPRESSED), "internal"),
        (envelope(b"{}") + envelope(b"{}"), "unimplemented"),
        (envelope(b'{"collection": "Other"}'), "not_found"),
        (envelope(b'{"collections": "Other"}'), "invalid_argument"),
    ],
)
async def test_a_stream_that_breaks_the_protocol_ends_with_an_error(api: Wire, body: bytes, code: str) -> None:
    answer = await ask(api, BACKFILL, body, "application/connect+json")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/connect+json")
    ((flags, end),) = envelopes(answer.content)
    error = json.loads(end)["error"]
    assert (flags, error["code"]) == (LAST, code)
    info = error["details"][0]
    assert (info["type"], info["debug"]["domain"]) == ("google.rpc.ErrorInfo", "vecgate")


async def test_a_stream_tells_in_its_end_how_long_it_took(api: Wire) -> None:
    answer = await ask(api, BACKFILL, envelope(b'{"collection": "Pictures"}'), "application/connect+json")

    *_, (flags, end) = envelopes(answer.content)
    metadata = json.loads(end)["metadata"]
    assert flags == LAST
    assert "total;dur=" in metadata["server-timing"][0]
    assert metadata["x-request-id"] == [answer.headers["x-request-id"]]


@pytest.mark.parametrize("kind", ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web+json"])
async def test_an_error_over_grpc_web_is_in_its_trailers(api: Wire, kind: str) -> None:
    content = b"{}" if "json" in kind else b""

    answer = await ask(api, SEARCH, envelope(content), kind)

    ((flags, trailers),) = envelopes(answer.content)
    lines = dict(line.split(": ", 1) for line in trailers.decode().split("\r\n") if line)
    assert (answer.status_code, flags, lines["grpc-status"]) == (200, TRAILERS, "3")
    assert lines["grpc-status-details-bin"]


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"content_encoding": "gzip"}, "application/json"),
        ({"content_encoding": "br"}, "application/json"),
        ({"connect_content_encoding": "gzip"}, "application/connect+json"),
    ],
)
async def test_compressed_requests_are_refused_before_they_are_unpacked(
    api: Wire, headers: dict[str, str], kind: str
) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    body = envelope(bomb, COMPRESSED) if "connect" in kind else bomb

    answer = await ask(api, BACKFILL if "connect" in kind else SEARCH, body, kind, **headers)

    content = answer.json() if kind == "application/json" else json.loads(envelopes(answer.content)[-1][1])["error"]
    assert (content["code"], "compression" in content["message"]) == ("unimplemented", True)
    assert content["details"][0]["debug"]["reason"] == "INVALID_INPUT"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_bound_of_a_message_is_refused(declared: bool) -> None:  # noqa: FBT001
    wire = await start_wire(server=ServerSettings(port=0, max_request_bytes=4096))
    body = json.dumps({"inputs": [{"text": "a" * 5000}]}).encode()

    async def pieces() -> Any:
        yield body

    async with httpx.AsyncClient(base_url=wire.web.address) as http:
        sent = body if declared else pieces()
        answer = await http.post(EMBED, content=sent, headers={"content-type": "application/json"})
        at = json.dumps({"inputs": [{"text": ""}]}).encode()
        at = at.replace(b'""', b'"' + b"a" * (4096 - len(at)) + b'"')
        passed = await http.post(EMBED, content=at, headers={"content-type": "application/json"})
    await stop_wire(wire)

    assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")
    assert "4096" in answer.json()["message"]
    assert answer.json()["details"][0]["debug"]["reason"] == "MESSAGE_TOO_LARGE"
    assert passed.status_code == httpx.codes.OK


async def test_a_stranger_is_refused_before_the_body_is_sent(tmp_path: Any) -> None:
    wire = await start_wire(auth=let_in(tmp_path / "clients.toml", known='permissions = ["embed"]'))
    async with connected(wire) as connection:
        await connection.send(head(EMBED, "content-length: 30000000", "expect: 100-continue"))
        status, answer = await connection.answer()
    await stop_wire(wire)

    assert (status, answer["code"]) == (401, "unauthenticated")


async def test_a_caller_that_waits_to_send_its_body_is_asked_for_it(api: Wire) -> None:
    async with connected(api) as connection:
        body = json.dumps(A_TEXT).encode()

        await connection.send(head(EMBED, f"content-length: {len(body)}", "expect: 100-continue"))
        invited = await connection.reader.readuntil(b"\r\n\r\n")
        await connection.send(body)
        status, answer = await connection.answer()

    assert invited.startswith(b"HTTP/1.1 100 ")
    assert (status, len(answer["results"])) == (200, 1)


@pytest.mark.parametrize(
    "lines", [["connect-timeout-ms: 1000"], []], ids=["the caller's deadline", "the server's bound"]
)
async def test_a_body_that_never_ends_is_given_up(api: Wire, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    monkeypatch.setattr(calls, "REQUEST_TIMEOUT_S", 60 if lines else 0.2)
    async with connected(api) as connection:
        await connection.send(head(EMBED, "content-length: 1000", *lines), b'{"inputs"')
        async with asyncio.timeout(25):
            status, answer = await connection.answer()

    assert (status, answer["code"]) == (504, "deadline_exceeded")
    assert answer["details"][0]["debug"]["reason"] == "DEADLINE_EXCEEDED"


async def test_a_stream_that_nobody_bounds_waits_for_its_body_only_so_long(
    api: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.web.calls, "_bounds", WebBounds(body_timeout_s=0.2))
    request = head("/grpc.health.v1.Health/Watch", "content-length: 1000")
    async with connected(api) as connection:
        await connection.send(request.replace(b"application/json", b"application/connect+proto"), b"\0\0")
        async with asyncio.timeout(25):
            rest = await connection.reader.readuntil(b"}}")

    assert b'"deadline_exceeded"' in rest


async def test_an_answer_to_head_has_no_body(api: Wire) -> None:
    async with connected(api) as connection:
        await connection.send(f"HEAD {SEARCH} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        refused = await connection.reader.readuntil(b"\r\n\r\n")
        body = json.dumps(A_TEXT).encode()
        await connection.send(head(EMBED, f"content-length: {len(body)}") + body)
        status, _ = await connection.answer()

    assert refused.startswith(b"HTTP/1.1 4")
    assert status == httpx.codes.OK


async def test_json_that_cannot_be_read_counts_towards_the_quota_of_its_caller(tmp_path: Any) -> None:
    quota = 'permissions = ["embed"]\n[clients.poor.quota]\nbytes_per_second = 10'
    wire = await start_wire(auth=let_in(tmp_path / "clients.toml", poor=quota))
    bearer = f"Bearer {key_of('poor')}"
    answers = [await ask(wire, EMBED, b"{" * 1000, authorization=bearer) for _ in range(2)]
    await stop_wire(wire)

    assert [each.status_code for each in answers] == [400, 429]


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "99999999999", ""])
async def test_a_deadline_that_is_no_number_is_refused_by_its_header(api: Wire, text: str) -> None:
    answer = await ask(api, SEARCH, A_DOG, connect_timeout_ms=text)

    assert answer.status_code == (400 if text else 200)
    if text:
        assert answer.json()["code"] == "invalid_argument"
        assert violations(answer.json()["details"]) == {"connect-timeout-ms"}


@pytest.mark.parametrize("milliseconds", [0, 1])
@pytest.mark.parametrize("path", [SEARCH, BACKFILL, "/grpc.health.v1.Health/Check"])
async def test_a_deadline_that_passes_before_the_request_is_read_has_its_reason(
    api: Wire, monkeypatch: pytest.MonkeyPatch, path: str, milliseconds: int
) -> None:
    never_read(monkeypatch)
    kind = "application/connect+json" if path == BACKFILL else "application/json"
    answer = await ask(
        api, path, envelope(b"{}") if path == BACKFILL else {}, kind, connect_timeout_ms=str(milliseconds)
    )

    error = json.loads(envelopes(answer.content)[-1][1])["error"] if path == BACKFILL else answer.json()
    assert error["code"] == "deadline_exceeded"
    assert error["details"][0]["debug"]["reason"] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("text", ["0m", "1m"])
async def test_a_deadline_over_grpc_web_that_passes_before_the_request_is_read_has_its_reason(
    api: Wire, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    never_read(monkeypatch)
    answer = await ask(api, SEARCH, envelope(b""), "application/grpc-web", grpc_timeout=text)

    assert b"grpc-status: 4" in answer.content
    assert b"grpc-status-details-bin" in answer.content


async def test_several_wrong_headers_of_the_protocol_are_all_named(api: Wire) -> None:
    answer = await ask(api, SEARCH, A_DOG, connect_timeout_ms="x", connect_protocol_version="2")

    assert violations(answer.json()["details"]) == {"connect-timeout-ms", "connect-protocol-version"}


@pytest.mark.parametrize("text", ["1", "S", "1x", "123456789S"])
async def test_a_deadline_over_grpc_web_that_is_none_is_refused_with_details(api: Wire, text: str) -> None:
    answer = await ask(api, SEARCH, envelope(b""), "application/grpc-web", grpc_timeout=text)

    ((flags, trailers),) = envelopes(answer.content)
    assert (answer.status_code, flags) == (200, TRAILERS)
    assert b"grpc-status: 3\r\n" in trailers
    assert b"grpc-status-details-bin: " in trailers


def violations(details: list[dict[str, Any]]) -> set[str]:
    """Return the fields that an error's details name."""
    (request,) = (each["debug"] for each in details if each["type"] == "google.rpc.BadRequest")
    return {each["field"] for each in request["fieldViolations"]}


async def test_requests_sent_at_once_on_one_connection_are_answered_in_turn_each_for_its_own_caller(
    tmp_path: Any,
) -> None:
    wire = await start_wire(auth=let_in(tmp_path / "clients.toml", known='permissions = ["embed"]'))
    key = f"authorization: Bearer {key_of('known')}"
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        async with connected(wire) as connection:
            body = json.dumps(A_TEXT).encode()
            await connection.send(
                head(EMBED, key, f"content-length: {len(body)}")
                + body
                + head(LIST, "content-length: 2")
                + b"{}"
                + head("/vecgate.v1.EmbeddingService/Other", "content-length: 2")
                + b"{}"
            )
            answers = [await connection.answer() for _ in range(3)]
    await stop_wire(wire)

    assert [status for status, _ in answers] == [200, 401, 501]
    assert [line.get("client") for line in lines if line["event"] == "call"] == ["known", None, None]


async def test_a_body_that_does_not_match_its_headers_is_refused(api: Wire) -> None:
    async with connected(api) as connection:
        await connection.send(head(EMBED, "transfer-encoding: chunked") + b"x\r\nno chunk\r\n")
        status, answer = await connection.answer()

    assert (status, answer["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize("content", [{"text": "a" * 20_000}, {"image": {"content": "=="}}])
async def test_large_requests_are_read_beside_the_event_loop(
    api: Wire, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]
) -> None:
    threads = []
    real = json_messages.to_binary

    def noted(*arguments: Any) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return real(*arguments)

    monkeypatch.setattr(json_messages, "to_binary", noted)
    await ask(api, EMBED, {"inputs": [content]})

    assert threads == ["image" in content]


async def test_the_messages_of_a_stream_are_written_beside_the_event_loop_where_they_are_large(
    api: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = []
    real = json_messages.to_json

    def noted(*arguments: Any) -> bytes:
        beside.append(threading.current_thread() is not threading.main_thread())
        return real(*arguments)

    monkeypatch.setattr(json_messages, "to_json", noted)
    monkeypatch.setattr(json_messages, "IN_THREAD_BYTES", -1)
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    answer = await ask(api, path, envelope(b'{"listServices": ""}') * 2, "application/connect+json")

    assert beside == [True, True]
    assert len(envelopes(answer.content)) == len(beside) + 1


async def test_a_picture_in_json_is_embedded(api: Wire) -> None:
    import base64

    image = {"image": {"content": base64.b64encode(picture(size=(300, 300))).decode()}}
    answer = await ask(api, EMBED, {"inputs": [image, {"text": "a cat"}]})

    assert all("embedding" in each for each in answer.json()["results"])


async def test_a_failed_input_has_its_error_in_json(api: Wire) -> None:
    answer = await ask(api, EMBED, {"inputs": [{"image": {"content": "aGk="}}, {"text": "a cat"}]})

    error = answer.json()["results"][0]["error"]
    assert error["code"] == StatusCode.INVALID_ARGUMENT.value[0]
    assert error["details"][0]["reason"] == "IMAGE_UNDECODABLE"


async def test_headers_that_grpc_could_not_carry_are_no_metadata(api: Wire) -> None:
    async with connected(api) as connection:
        body = json.dumps(A_TEXT).encode()
        await connection.send(
            head(EMBED, f"content-length: {len(body)}", "x-request-id: \u00e4", "cookie: \u00e4")
            .decode()
            .encode("latin-1")
            + body
        )
        status, _ = await connection.answer()

    assert status == 200


async def test_too_many_requests_are_refused_in_the_form_of_the_wire_and_health_answers(wire: Wire) -> None:
    wire.web.calls._bounds = WebBounds(max_requests=1)
    wire.embedder.gate = asyncio.Event()
    running = asyncio.create_task(ask(wire, EMBED, A_TEXT))
    await until(lambda: wire.embedder.in_flight)

    over = await ask(wire, LIST, {})
    web = await ask(wire, LIST, envelope(b""), "application/grpc-web")
    health = await ask(wire, "/grpc.health.v1.Health/Check", {})
    wire.embedder.gate.set()
    first = await running

    assert (over.status_code, over.json()["code"]) == (503, "unavailable")
    assert over.json()["details"][0]["debug"]["reason"] == "OVERLOADED"
    assert f"grpc-status: {StatusCode.UNAVAILABLE.value[0]}\r\n".encode() in web.content
    assert (health.status_code, health.json()) == (200, {"status": "SERVING"})
    assert first.status_code == 200


async def test_a_caller_that_leaves_while_its_body_is_awaited_is_logged_as_cancelled(api: Wire) -> None:
    with structlog.testing.capture_logs() as lines:
        async with connected(api) as connection:
            await connection.send(head(EMBED, "content-length: 1000"), b'{"inputs"')
            await until(lambda: api.server._calls._in_flight)
            connection.writer.close()
            await until(lambda: not api.server._calls._in_flight)

    assert [line["code"] for line in lines if line["event"] == "call"] == ["CANCELLED"]


async def test_curl_searches_as_the_page_says(api: Wire) -> None:
    program = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-m", "20", "-H", "content-type: application/json", "-d", json.dumps(A_DOG)),
        api.web.address + SEARCH,
        stdout=subprocess.PIPE,
    )
    content, _ = await program.communicate()

    assert json.loads(content)["embedder"]["name"] == "fake"
