"""The HTTP server around the endpoint: keys, TLS, deadlines, callers that leave, drain, shared batches."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import structlog
import trustme

from embedders.errors import EmbedderUnavailable
from embedders.front.batching import BatchingEmbedder
from embedders.front.queueing import QueueBounds
from service.core.embedder_pool import EmbedderPool
from service.process.addresses import AddressTaken
from service.process.ports import free_ports
from service.settings import InvalidSettings, ServerSettings, WebSettings
from service.web.endpoint import READ_IN_THREAD_BYTES
from service.web.server import WebServer
from service.web.wire import EmbeddingsRequest, RequestReader
from tests.fakes.clients import key_of, let_in
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.web import MODEL, Web, running_web

A_TEXT = {"model": MODEL, "input": "a cat"}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def ask(web: Web, key: str | None = None, path: str = "/v1/embeddings") -> httpx.Response:
    headers = {} if key is None else {"authorization": key}
    async with httpx.AsyncClient(base_url=web.url) as http:
        return await (
            http.post(path, json=A_TEXT, headers=headers) if "emb" in path else http.get(path, headers=headers)
        )


async def send_raw(web: Web) -> asyncio.StreamWriter:
    """Send a request and leave its answer unread."""
    _, writer = await asyncio.open_connection("127.0.0.1", web.server.port)
    body = b'{"model": "fake/model", "input": "a cat"}'
    writer.write(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    return writer


async def test_any_key_or_none_will_do_without_a_file_of_clients() -> None:
    async with running_web() as web:
        codes = [(await ask(web, key)).status_code for key in (None, "Bearer whatever", "Basic eDp5")]

    assert codes == [200, 200, 200]


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "credentials_missing"),
        (f"Basic {key_of('weaviate')}", "credentials_missing"),
        ("Bearer", "credentials_missing"),
        ("Bearer other-key", "credentials_invalid"),
        (f"Bearer {key_of('weaviate')} {key_of('weaviate')}", "credentials_invalid"),
        (f"Bearer {key_of('weaviate')}", None),
        (f"bearer {key_of('weaviate')}", None),
    ],
)
async def test_with_a_file_of_clients_the_key_of_one_must_be_sent(
    tmp_path: Path, key: str | None, code: str | None
) -> None:
    auth = let_in(tmp_path / "clients.toml", weaviate='permissions = ["embed"]')
    with structlog.testing.capture_logs() as lines:
        async with running_web(auth=auth) as web:
            answer = await ask(web, key)
            models = await ask(web, key, "/v1/models")
            health = await ask(web, None, "/v1/health/ready")

    assert (answer.status_code, models.status_code, health.status_code) == (
        (200, 200, 200) if code is None else (401, 401, 200)
    )
    if code is not None:
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert not any("key-of" in str(line) for line in lines)


def a_pool() -> EmbedderPool:
    return EmbedderPool([FakeEmbedder()], check_interval_s=3600)


def write_certificate(folder: Path) -> dict[str, Path]:
    """Write a certificate for the loopback address and its key, and beside them that of the authority behind them."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = {"tls_cert_file": folder / "cert.pem", "tls_key_file": folder / "key.pem"}
    issued.cert_chain_pems[0].write_to_path(files["tls_cert_file"])
    issued.private_key_pem.write_to_path(files["tls_key_file"])
    authority.cert_pem.write_to_path(folder / "authority.pem")
    return files


async def test_what_stands_behind_a_chunked_body_is_no_header(tmp_path: Path) -> None:
    auth = let_in(tmp_path / "clients.toml", weaviate='permissions = ["embed"]')
    key = f"authorization: Bearer {key_of('weaviate')}\r\n".encode()
    body = b'{"model": "fake/model", "input": "a cat"}'
    chunks = b"%x\r\n%s\r\n0\r\n" % (len(body), body)
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n"

    async def status(more: bytes, trailer: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.server.port)
        writer.write(head + more + b"\r\n" + chunks + trailer + b"\r\n")
        answer = await reader.read()
        writer.close()
        return answer.split(b" ", 2)[1]

    async with running_web(auth=auth) as web:
        by_trailer = await status(b"", key)
        with_trailer = await status(key, b"content-encoding: gzip\r\n")

    assert by_trailer == b"401"
    assert with_trailer == b"200"


async def test_it_serves_over_tls_with_a_certificate_and_not_over_plain_text(tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    async with running_web(**files) as web, httpx.AsyncClient(verify=trust) as http:
        answer = await http.post(f"{web.url}/v1/embeddings", json=A_TEXT)
        # Whether the connection is closed or reset depends on the event loop.
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await http.post(f"{web.url.replace('https', 'http')}/v1/embeddings", json=A_TEXT)

    assert web.url.startswith("https://127.0.0.1:")
    assert answer.status_code == 200


async def test_a_renewed_certificate_is_taken_in_while_it_serves_and_half_of_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.process.tls.LOOK_EVERY_S", 0.0)
    (tmp_path / "next").mkdir()
    files, renewed = write_certificate(tmp_path), write_certificate(tmp_path / "next")
    old, new = (
        ssl.create_default_context(cafile=str(folder / "authority.pem")) for folder in (tmp_path, tmp_path / "next")
    )

    async def trusted(web: Web, trust: ssl.SSLContext) -> bool:
        try:
            async with httpx.AsyncClient(verify=trust) as http:
                return (await http.get(f"{web.url}/v1/health/live")).status_code == 200
        except httpx.ConnectError:
            return False

    with structlog.testing.capture_logs() as lines:
        async with running_web(**files) as web, httpx.AsyncClient(verify=old, base_url=web.url) as held:
            await held.get("/v1/health/live")
            files["tls_cert_file"].write_bytes(renewed["tls_cert_file"].read_bytes())
            with_half = await trusted(web, old), await trusted(web, new)
            files["tls_key_file"].write_bytes(renewed["tls_key_file"].read_bytes())
            with_both = await trusted(web, old), await trusted(web, new)
            still = await held.get("/v1/health/live")

    events = [line["event"] for line in lines]
    assert (events.count("certificate_not_read_again"), events.count("certificate_read_again")) == (1, 1)
    assert with_half == (True, False)
    assert with_both == (False, True)
    assert still.status_code == 200


def test_a_certificate_that_is_none_is_told_before_anything_starts(tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    files["tls_cert_file"].write_text("no certificate", encoding="utf-8")

    with pytest.raises(InvalidSettings, match=r"server\.tls_cert_file .*cert\.pem .*cannot be used"):
        WebServer(WebSettings(port=0), ServerSettings(**files), embedders=a_pool())
    with pytest.raises(ValueError, match="set both or neither"):
        ServerSettings(tls_cert_file=files["tls_cert_file"])


def test_a_taken_port_is_told_with_the_setting_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AddressTaken, match=rf"127\.0\.0\.1:{port} .*VECGATE_WEB__PORT"):
            WebServer(WebSettings(port=port), ServerSettings(), embedders=a_pool())


async def test_of_two_servers_on_one_port_the_second_is_told_at_once_or_when_it_starts() -> None:
    first = WebServer(WebSettings(port=free_ports(1)[0]), ServerSettings(), embedders=a_pool())
    second = WebServer(WebSettings(port=first.port), ServerSettings(), embedders=a_pool())
    await first.start()

    with pytest.raises(AddressTaken):
        await second.start()
    with pytest.raises(AddressTaken):
        WebServer(WebSettings(port=first.port), ServerSettings(), embedders=a_pool())
    await second.stop()
    await first.stop()

    again = WebServer(WebSettings(port=first.port), ServerSettings(), embedders=a_pool())
    await again.start()
    await again.stop()


async def test_a_server_that_has_not_started_refuses_connections_so_that_nobody_waits() -> None:
    server = WebServer(WebSettings(port=free_ports(1)[0]), ServerSettings(), embedders=a_pool())

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)

    await server.start()
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{server.address}/v1/health/live")).status_code == 200
    await server.stop()


async def test_requests_that_come_one_by_one_share_batches() -> None:
    backend = FakeEmbedder(max_batch=32)
    batching = BatchingEmbedder(backend, bounds=QueueBounds(max_inputs=1000, max_bytes=10**9))
    async with (
        running_web(backend, wrapped=batching) as web,
        httpx.AsyncClient(base_url=web.url, timeout=20) as http,
    ):
        backend.calls.clear()
        backend.gate = asyncio.Event()
        first = asyncio.create_task(http.post("/v1/embeddings", json={"model": MODEL, "input": ["first"]}))
        await until(lambda: backend.in_flight)
        others = [
            asyncio.create_task(http.post("/v1/embeddings", json={"model": MODEL, "input": [f"text {number}"]}))
            for number in range(48)
        ]
        await until(lambda: batching.waiting == 48)
        backend.gate.set()
        answers = await asyncio.gather(first, *others)

    assert [len(inputs) for inputs, _ in backend.calls] == [1, 32, 16]
    expected = [backend.vector(text) for text in ("first", *(f"text {number}" for number in range(48)))]
    assert [answer.json()["data"][0]["embedding"] for answer in answers] == [
        pytest.approx(vector.tolist()) for vector in expected
    ]


async def test_a_long_body_is_read_while_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    read, go_on, seen = RequestReader.read, threading.Event(), []

    def read_when_told(reader: RequestReader, body: bytes) -> EmbeddingsRequest:
        seen.append(go_on.wait(60))
        return read(reader, body)

    monkeypatch.setattr(RequestReader, "read", read_when_told)
    long = {"model": MODEL, "input": ["a cat"], "user": "x" * (READ_IN_THREAD_BYTES + 1)}
    async with running_web() as web, httpx.AsyncClient(base_url=web.url) as http:
        asked = asyncio.create_task(http.post("/v1/embeddings", json=long))
        await until(lambda: web.server.calls.in_flight)
        health = await ask(web, path="/v1/health/live")
        go_on.set()
        answer = await asked

    assert (health.status_code, answer.status_code) == (200, 200)
    assert seen == [True]


async def test_a_request_past_its_time_is_answered_so_and_its_work_is_dropped() -> None:
    async with running_web(timeout_s=0.2) as web:
        web.embedder.gate = asyncio.Event()
        answer = await ask(web)
        await until(lambda: not web.embedder.in_flight)

    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"


async def test_a_caller_that_leaves_takes_its_work_with_it() -> None:
    with structlog.testing.capture_logs() as lines:
        async with running_web() as web:
            web.embedder.gate = asyncio.Event()
            web.embedder.entered.clear()
            writer = await send_raw(web)
            async with asyncio.timeout(60):
                await web.embedder.entered.wait()
            writer.close()
            await until(lambda: not web.embedder.in_flight)
            await until(lambda: any(line["event"] == "call" for line in lines))

    (call,) = [line for line in lines if line["event"] == "call"]
    assert call["code"] == 499
    assert [line for line in lines if line["log_level"] not in ("info", "debug")] == []


async def test_too_many_requests_at_once_are_told_to_come_again_but_health_is_not() -> None:
    async with running_web(max_requests=2) as web:
        web.embedder.gate = asyncio.Event()
        held = [asyncio.create_task(ask(web)) for _ in range(2)]
        await until(lambda: web.embedder.in_flight == 2)
        refused = await ask(web)
        health = await ask(web, path="/v1/health/ready")
        metrics = await ask(web, path="/metrics")
        web.embedder.gate.set()
        answers = await asyncio.gather(*held)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"]["code"] == "overloaded"
    assert (health.status_code, metrics.status_code) == (200, 200)
    assert 'reason="OVERLOADED"' in metrics.text
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_a_drain_reports_not_ready_first_and_lets_requests_in_flight_finish() -> None:
    async with running_web(drain=ServerSettings(drain_delay_s=2, drain_grace_s=10)) as web:
        web.embedder.gate = asyncio.Event()
        held = asyncio.create_task(ask(web))
        await until(lambda: web.embedder.in_flight)
        stopping = asyncio.create_task(web.server.stop())
        await until(lambda: web.server._endpoint.draining)
        ready = await ask(web, path="/v1/health/ready")
        await until(lambda: not web.server._listener.is_serving())
        with pytest.raises(httpx.ConnectError):
            await ask(web)
        early = held.done()
        web.embedder.gate.set()
        answer = await held
        async with asyncio.timeout(60):
            await stopping

    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert not early
    assert answer.status_code == 200


async def test_a_drain_does_not_wait_for_ever() -> None:
    async with running_web(drain=ServerSettings(drain_grace_s=0.2)) as web:
        web.embedder.gate = asyncio.Event()
        held = asyncio.create_task(ask(web))
        await until(lambda: web.embedder.in_flight)
        async with asyncio.timeout(60):
            await web.server.stop()
        cancelled = not web.embedder.in_flight
        with pytest.raises(httpx.HTTPError):
            (await held).raise_for_status()

    assert cancelled


async def test_another_embedder_of_the_same_space_stands_in_over_http_too() -> None:
    nim, twin = FakeEmbedder(name="nim", model=MODEL), FakeEmbedder(name="nim-2", model=MODEL)
    async with running_web(nim, twin, FakeEmbedder(name="clip", model="clip", space="other")) as web:
        nim.failure = EmbedderUnavailable("down")
        answer = await ask(web, None)
        twin.failure = nim.failure
        refusal = await ask(web, None)

    assert (answer.status_code, answer.headers["vecgate-embedder"]) == (200, "nim-2")
    assert refusal.status_code == 503
