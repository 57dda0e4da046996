"""Bodies that are too much: too long, too many values, never ending, or too long all together."""

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Callable

import psutil
import pytest

from service.web import server
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.raw_http import A_BODY, assert_serves, connect, post
from tests.fakes.web import Web, running_web

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGER_S", 0.3)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(25):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with running_web() as running:
        yield running


@pytest.mark.parametrize(
    ("count", "text"),
    [(2049, "has 2049 items; a request takes at most 2048"), (10_000, "far too many"), (3_000_000, "far too many")],
)
async def test_too_many_inputs_are_refused_before_they_cost_anything(web: Web, count: int, text: str) -> None:
    connection = await connect(web)
    await connection.send(post(b'{"model": "fake/model", "input": [%s""]}' % (b'"",' * (count - 1))))
    status, body = await connection.answer()
    connection.writer.close()

    assert status == 422
    assert text in body["message"]
    assert body["error"]["code"] == "batch_too_large"
    assert web.embedder.in_flight == 0


async def test_a_body_of_millions_of_little_values_takes_no_memory_to_refuse(web: Web) -> None:
    connection = await connect(web)
    body = b'{"model": "fake/model", "input": [%s[]]}' % (b"[]," * 3_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await connection.send(post(body))
    status, answer = await connection.answer()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    connection.writer.close()

    assert (status, answer["error"]["param"]) == (422, "input[0]")
    assert grown * 1024 < 100 * MIB


async def test_bodies_that_are_too_long_together_are_refused_and_served_once_there_is_room() -> None:
    async with running_web(max_body_bytes=2 * MIB, max_bodies_bytes=3 * MIB) as web:
        slow, other = await connect(web), await connect(web)
        await slow.send(post(b"", content_length=2 * MIB), b" " * (2 * MIB - 1))
        big = b" " * (2 * MIB - len(A_BODY)) + A_BODY
        async with asyncio.timeout(25):
            while True:
                # Until all that the slow caller sent has been read.
                await other.send(post(big))
                refused, body = await other.answer()
                other.writer.close()
                if refused != 200:
                    break
                other = await connect(web)
            await assert_serves(web)
            slow.writer.close()
            other = await connect(web)
            await other.send(post(big))
            served, _ = await other.answer()
            other.writer.close()

    assert (refused, body["error"]["code"]) == (503, "overloaded")
    assert str(3 * MIB) in body["message"]
    assert served == 200


async def test_answers_that_nobody_reads_count_towards_the_bound_until_their_callers_are_gone() -> None:
    embedder = FakeEmbedder(dimension=4096)
    body = json.dumps({"model": "fake/model", "input": [f"text {number}" for number in range(256)]}).encode()
    async with running_web(embedder, max_bodies_bytes=16 * MIB, max_body_bytes=MIB) as web:
        lazy, other = await connect(web), await connect(web)
        await lazy.send(post(body))
        await lazy.reader.readuntil(b"\r\n\r\n")
        await other.send(post(body))
        refused, answer = await other.answer()
        lazy.writer.close()
        await until(lambda: not web.server.calls.in_flight)
        await other.send(post(body))
        served, _ = await other.answer()
        other.writer.close()

    assert (refused, answer["error"]["code"]) == (503, "overloaded")
    assert str(16 * MIB) in answer["message"]
    assert served == 200


@pytest.mark.parametrize(
    ("begin", "piece", "end"),
    [
        (b'"input": "a", "', b"x", b'": 1'),
        (b'"input": "a", "', b" - at `$.", b'": 1'),
        (b'"input": "a", "truncate": "', b" - at `$.input`", b'"'),
    ],
    ids=["field", "field-like-a-place", "choice-like-a-place"],
)
async def test_what_breaks_the_schema_by_megabytes_is_refused_by_a_short_answer_and_holds_up_nobody(
    web: Web, begin: bytes, piece: bytes, end: bytes
) -> None:
    async def longest_pause() -> float:
        """Return the most time of the processor that the loop's thread takes between two turns.

        What else the machine does takes none of it; nor does waiting.
        """
        longest, last = 0.0, time.thread_time()
        while True:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                return longest
            longest, last = max(longest, time.thread_time() - last), time.thread_time()

    connection = await connect(web)
    body = b'{"model": "fake/model", %s%s%s}' % (begin, piece * (30 * MIB // len(piece)), end)
    pause = asyncio.create_task(longest_pause())
    await connection.send(post(body))
    status, answer = await connection.answer()
    pause.cancel()
    connection.writer.close()

    assert status == 422
    assert len(json.dumps(answer)) < 2000
    assert await pause < 1.5, "the whole takes 0.1 s where nothing is searched for in it"


async def test_a_body_of_200_mb_is_refused_by_its_length_and_the_connection_goes_on(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LINGER_S", 60)
    connection = await connect(web)
    before = psutil.Process().memory_info().rss
    sending = asyncio.create_task(connection.send(post(b"", content_length=200_000_000), *[b"x" * 1_000_000] * 200))
    status, body = await connection.answer()
    await sending
    grown = psutil.Process().memory_info().rss - before
    await connection.send(post(A_BODY))
    again, _ = await connection.answer()
    connection.writer.close()

    assert status == 413
    assert body["error"]["code"] == "body_too_large"
    assert str(64 * MIB) in body["message"]
    assert grown < 40 * MIB
    assert again == 200
    await assert_serves(web)


@pytest.mark.parametrize("pause_s", [0, 0.01])
async def test_a_body_that_never_ends_is_refused_and_its_connection_ended(pause_s: float) -> None:
    async with running_web(body_timeout_s=0.5 if pause_s else 60.0, max_body_bytes=4 * MIB) as web:
        connection = await connect(web)
        await connection.send(post(b"", content_length=None, transfer_encoding="chunked"))

        async def for_ever() -> None:
            while not connection.writer.is_closing():
                await connection.send(b"%x\r\n%s\r\n" % (60_000, b"x" * 60_000) if not pause_s else b"1\r\nx\r\n")
                await asyncio.sleep(pause_s)

        sending = asyncio.create_task(for_ever())
        async with asyncio.timeout(25):
            status, body = await connection.answer()
            ended = await connection.end()
        sending.cancel()
        connection.writer.close()
        await assert_serves(web)

    assert (status, body["error"]["code"]) == ((408, "body_timeout") if pause_s else (413, "body_too_large"))
    assert ended
