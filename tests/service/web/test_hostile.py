"""The HTTP server against callers that mean it no good: it refuses, it ends, and it goes on serving others."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from service.web import server
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.raw_http import A_BODY, assert_serves, connect, post
from tests.fakes.web import MODEL, Web, running_web


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGER_S", 0.3)


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with running_web(max_header_bytes=4096) as running:
        yield running


@pytest.fixture
async def hurried() -> AsyncIterator[Web]:
    async with running_web(header_timeout_s=1, body_timeout_s=1, idle_timeout_s=1, max_header_bytes=4096) as running:
        yield running


def mutations(count: int) -> Iterator[bytes]:
    """Yield bodies that were requests once: bytes changed, cut, doubled and put in, and values of other types."""
    chance = random.Random(20_261_123)
    values = [None, True, -1, 1e400, "", [], {}, [[]], ["a"] * 65, "data:image/png;base64,", "\ud800", {"input": {}}]
    pieces = [b"\x00", b"\xff", b'"', b"\\u", b"[" * 2000, b"{", b",", b"NaN", b"1e999", b"\xed\xa0\x80"]
    for number in range(count):
        if number % 3 == 0:
            body: dict[str, Any] = json.loads(A_BODY)
            for _ in range(chance.randint(1, 2)):
                body[chance.choice([*body, "user", "dimensions", "truncate", "input_type", "x"])] = chance.choice(
                    values
                )
            yield json.dumps(body).encode()
            continue
        raw = bytearray(A_BODY)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(raw) + 1)
            match chance.randrange(4):
                case 0:
                    raw[at : at + 1] = chance.randbytes(1)
                case 1:
                    del raw[at : at + chance.randint(1, 40)]
                case 2:
                    raw[at:at] = raw[: chance.randint(1, 200)]
                case _:
                    raw[at:at] = chance.choice(pieces)
        yield bytes(raw)


async def test_a_thousand_mutated_bodies_get_an_answer_each_and_never_a_5xx(web: Web) -> None:
    connection = await connect(web)
    statuses: list[int] = []
    for body in mutations(1000):
        await connection.send(post(body))
        status, answer = await connection.answer()
        statuses.append(status)
        assert status == 200 or {type(answer[name]) for name in ("message", "detail", "title")} == {str}, body
    connection.writer.close()

    assert set(statuses) <= {200, 400, 422}, sorted(set(statuses))
    assert min(statuses.count(status) for status in (200, 400, 422)) >= 5
    await assert_serves(web)


async def test_mutated_heads_are_refused_or_closed_and_never_a_5xx(hurried: Web) -> None:
    chance = random.Random(7)
    whole = post(A_BODY, connection="close")
    head = len(whole) - len(A_BODY)

    async def one(sent: bytes) -> int:
        connection = await connect(hurried)
        await connection.send(sent)
        status, _ = await connection.answer()
        connection.writer.close()
        return status

    async with asyncio.timeout(60):
        sent = []
        for _ in range(300):
            at = chance.randrange(head)
            piece = chance.choice([chance.randbytes(3), b"\r\n", b"\r\n\r\n", b":", b"\x00", b" ", b"99999999999"])
            sent.append(whole[:at] + piece + whole[at + chance.randint(0, 5) :])
        statuses = await asyncio.gather(*(one(each) for each in sent))

    assert not {status for status in statuses if status >= 500}
    assert 400 in statuses
    await assert_serves(hurried)


def offering() -> bytes:
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAAP__"}
    return post(A_BODY, **offer)


@pytest.mark.parametrize(
    "cuts",
    [[], [60], *([at] for at in range(offering().index(b"\r\nupgrade:"), offering().index(b"h2c"))), range(1, 300)],
    ids=lambda cuts: f"cut-at-{list(cuts)[:2]}",
)
async def test_a_request_that_offers_another_protocol_is_answered_in_this_one_and_so_is_the_next(
    web: Web, cuts: Sequence[int]
) -> None:
    connection = await connect(web)
    whole = offering()
    for begin, end in pairwise([0, *cuts, len(whole)]):
        await connection.send(whole[begin:end])
        # Let the server read this piece by itself.
        await asyncio.sleep(0.001)
    first, _ = await connection.answer()
    await connection.send(post(A_BODY))
    async with asyncio.timeout(60):
        second, _ = await connection.answer()
    connection.writer.close()

    assert (first, second) == (200, 200)


OFFERS = {
    "h2c": {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAAP__"},
    "websocket": {"connection": "keep-alive, Upgrade", "upgrade": "websocket"},
    "several": {"connection": "upgrade", "upgrade": "TLS/1.2, foo/7"},
    "unlisted": {"connection": "keep-alive", "upgrade": "h2c"},
    "waiting": {"connection": "Upgrade", "upgrade": "h2c", "expect": "100-continue"},
}


def chunked(head: bytes) -> bytes:
    """Turn a request's body into two chunks with a trailer."""
    head, _, body = head.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in (body[:half], body[half:]))
    return b"\r\n".join([*lines, b"transfer-encoding: chunked"]) + b"\r\n\r\n" + chunks + b"0\r\nx: y\r\n\r\n"


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("form", [bytes, chunked], ids=["length", "chunks"])
async def test_an_offer_in_any_of_several_requests_at_once_costs_none_its_answer(
    web: Web, form: Callable[[bytes], bytes], offer: dict[str, str], place: int
) -> None:
    requests = [form(post(A_BODY, **offer)) if at == place else form(post(A_BODY)) for at in range(3)]
    connection = await connect(web)
    await connection.send(b"".join(requests))

    async with asyncio.timeout(60):
        statuses = [(await connection.answer())[0] for _ in requests]
    connection.writer.close()

    assert statuses == [200, 200, 200]


A_TEXT = json.dumps({"model": MODEL, "input": "x"}).encode()


def stream_of_four(offer: dict[str, str]) -> bytes:
    return b"".join(
        [
            post(A_TEXT, **offer),
            chunked(post(A_TEXT)),
            b"GET /v1/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
            post(json.dumps({"model": MODEL, "input": "a\r\n\r\nb"}).encode(), expect="100-continue", **offer),
        ]
    )


@pytest.mark.parametrize("offer", [{}, OFFERS["h2c"], OFFERS["websocket"]], ids=["none", "h2c", "websocket"])
async def test_requests_are_answered_wherever_their_bytes_are_cut(web: Web, offer: dict[str, str]) -> None:
    whole = stream_of_four(offer)

    async def answers(cut: int) -> list[int]:
        connection = await connect(web)
        await connection.send(whole[:cut])
        # Let the server read this piece by itself.
        await asyncio.sleep(0.02)
        await connection.send(whole[cut:])
        statuses = [(await connection.answer())[0] for _ in range(4)]
        connection.writer.close()
        return statuses

    async with asyncio.timeout(60):
        for begin in range(0, len(whole), 50):
            cuts = range(begin, min(begin + 50, len(whole)))
            assert await asyncio.gather(*map(answers, cuts)) == [[200] * 4] * len(cuts), cuts


@pytest.mark.parametrize("count", [40, 100])
@pytest.mark.parametrize("form", [bytes, chunked], ids=["length", "chunks"])
async def test_many_requests_at_once_that_offer_another_protocol_are_all_answered(
    web: Web, form: Callable[[bytes], bytes], count: int
) -> None:
    connection = await connect(web)
    await connection.send(form(post(A_TEXT, **OFFERS["h2c"])) * count)
    async with asyncio.timeout(60):
        statuses = [(await connection.answer())[0] for _ in range(count)]
    connection.writer.close()

    assert statuses == [200] * count


@pytest.mark.parametrize("behind", [1, 2, 3])
async def test_a_head_that_is_cut_in_its_end_behind_a_request_is_not_counted_with_its_body(
    web: Web, behind: int
) -> None:
    long = post(json.dumps({"model": MODEL, "input": "y" * 60_000}).encode())
    cut = long.index(b"\r\n\r\n") + behind
    connection = await connect(web)
    await connection.send(post(A_TEXT) + long[:cut])
    async with asyncio.timeout(60):
        first, _ = await connection.answer()
        await connection.send(long[cut:])
        second, _ = await connection.answer()
    connection.writer.close()

    assert (first, second) == (200, 200)


async def test_a_head_that_begins_behind_a_request_must_be_complete_in_time() -> None:
    async with running_web(header_timeout_s=0.5) as web:
        connection = await connect(web)
        await connection.send(post(A_TEXT) + b"POST /v1/embeddings HTTP/1.1\r\nho")
        async with asyncio.timeout(60):
            first, _ = await connection.answer()
            second, body = await connection.answer()
            ended = await connection.end()
        connection.writer.close()

    assert (first, second) == (200, 408)
    assert body["error"]["code"] == "header_timeout"
    assert ended


async def test_what_waits_behind_a_request_is_bounded(web: Web) -> None:
    web.embedder.gate = asyncio.Event()
    connection = await connect(web)
    await connection.send(post(A_TEXT))
    headers = b"".join(b"x%d: %s\r\n" % (number, b"y" * 4000) for number in range(8000))
    sending = asyncio.create_task(connection.send(b"GET / HTTP/1.1\r\n" + headers))
    async with asyncio.timeout(60):
        while not web.server._server.connections or next(iter(web.server._server.connections)).transport.is_reading():
            await asyncio.sleep(0.01)
    (inside,) = web.server._server.connections
    held = len(inside._held)
    web.embedder.gate.set()
    async with asyncio.timeout(60):
        first, _ = await connection.answer()
        # A caller that goes on sending to a closed connection may lose the answer.
        second, _ = await connection.answer()
        await sending
    connection.writer.close()

    assert 0 < held < 1_000_000
    assert first == 200
    assert second in (0, 431)
    await assert_serves(web)


async def test_chunks_that_are_none_are_refused_at_once_and_the_connection_ends(web: Web) -> None:
    connection = await connect(web)
    head, _, _ = chunked(post(A_TEXT)).partition(b"\r\n\r\n")
    await connection.send(head + b"\r\n\r\n5\r\nhello\r\nzz\r\n\r\n" + post(A_TEXT))
    async with asyncio.timeout(60):
        status, _ = await connection.answer()
    async with asyncio.timeout(60):
        rest = await connection.reader.read()
    connection.writer.close()

    assert status == 400
    assert rest == b""


async def test_a_tunnel_is_refused_and_the_connection_ends(web: Web) -> None:
    connection = await connect(web)
    await connection.send(post(A_BODY) + b"CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\nany bytes")

    async with asyncio.timeout(60):
        ended = await connection.end()
    connection.writer.close()
    alone = await connect(web)
    await alone.send(b"CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\n")
    status, _ = await alone.answer()
    alone.writer.close()

    assert ended
    assert status == 400
    await assert_serves(web)


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        (b"", b"", 0),
        (b"POST", b"", 408),
        (b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nx: ", b"y", 408),
        (b"", b"\r\n", 0),
        (post(A_BODY), b"", 200),
        (post(A_BODY), b"\r\n", 200),
        (post(A_BODY) + b"POST /v1/emb", b"e", 200),
    ],
    ids=["silent", "no-head", "slow-head", "line-ends", "idle", "line-ends-behind", "slow-second-head"],
)
async def test_callers_that_send_slowly_or_nothing_are_cut(
    hurried: Web, begin: bytes, piece: bytes, status: int
) -> None:
    connection = await connect(hurried)
    await connection.send(begin)

    async def trickle() -> None:
        while piece and not connection.writer.is_closing():
            await connection.send(piece)
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(8):
        first, _ = await connection.answer()
        ended = await connection.end()
    trickling.cancel()
    connection.writer.close()

    assert first == status
    assert ended


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % number for number in range(1000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * 500_000,
    ],
    ids=["path", "header", "headers", "no-end"],
)
async def test_headers_over_the_bound_are_refused(web: Web, head: bytes) -> None:
    connection = await connect(web)
    async with asyncio.timeout(60):
        await connection.send(*[head[at : at + 3000] for at in range(0, len(head), 3000)])
        status, body = await connection.answer()
        ended = await connection.end()
    connection.writer.close()

    # A caller that goes on sending to a closed connection may lose the answer.
    assert status == 431 or (status == 0 and len(head) > 100_000)
    assert status == 0 or body["error"]["code"] == "headers_too_large"
    assert ended


@pytest.mark.parametrize(("count", "expected"), [(200, 404), (300, 431)])
async def test_more_headers_than_the_bound_are_refused_however_short(count: int, expected: int) -> None:
    async with running_web() as web:
        connection = await connect(web)
        await connection.send(b"GET /x HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * count + b"\r\n")
        async with asyncio.timeout(60):
            status, _ = await connection.answer()
        connection.writer.close()

    assert status == expected


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 hello\r\n\r\n", b"\x16\x03\x01", b"hello\n"])
async def test_what_is_no_http_is_refused_in_the_form_of_all_refusals(web: Web, sent: bytes) -> None:
    connection = await connect(web)
    await connection.send(sent)
    async with asyncio.timeout(60):
        status, body = await connection.answer()
    connection.writer.close()

    assert status == 400
    assert {body[name] for name in ("message", "detail", "title")} == {"this is not an HTTP/1.1 request"}


async def test_connections_over_the_bound_are_closed_and_the_others_served() -> None:
    async with running_web(max_connections=2) as web:
        first, second, third = [await connect(web) for _ in range(3)]
        async with asyncio.timeout(60):
            ended = await third.end()
        await first.send(post(A_BODY))
        status, _ = await first.answer()
        for each in (first, second, third):
            each.writer.close()

    assert ended
    assert status == 200


async def test_a_caller_that_does_not_read_its_answer_holds_it_no_longer_than_the_idle_time() -> None:
    async with running_web(FakeEmbedder(dimension=50_000), idle_timeout_s=0.5) as web:
        connection = await connect(web)
        connection.writer.transport.pause_reading()
        await connection.send(post(json.dumps({"model": MODEL, "input": [f"{n}" for n in range(40)]}).encode()))
        async with asyncio.timeout(60):
            while not web.embedder.calls or web.server.calls.in_flight:
                await asyncio.sleep(0.01)
            while web.server._server.connections:
                await asyncio.sleep(0.01)
        connection.writer.close()


async def test_requests_sent_at_once_on_one_connection_are_answered_in_order(web: Web) -> None:
    connection = await connect(web)
    bodies = [json.dumps({"model": MODEL, "input": f"text {n}"}).encode() for n in range(20)]
    await connection.send(b"".join(post(body) for body in bodies))
    answers = [(await connection.answer())[1] for _ in bodies]
    connection.writer.close()

    found = [answer["data"][0]["embedding"] for answer in answers]
    assert found == [pytest.approx(web.embedder.vector(f"text {n}").tolist()) for n in range(20)]
