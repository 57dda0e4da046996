"""Everything that can go wrong with a NIM: the right error, in time, later calls fine, and no task left behind."""

import asyncio
import math
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from embedders.contract import QUERY
from embedders.errors import (
    AnswerInvalid,
    CredentialRejected,
    EmbedderError,
    EmbedderRateLimited,
    EmbedderUnavailable,
    ModelGone,
)
from embedders.nim.embedder import NimConfig, NimEmbedder
from embedders.nim.retries import Retries
from tests.embedders.nim.starting import start_learnt
from tests.embedders.suite import CAT, DOG, LIMITS, vectors
from tests.fakes.nim import FakeNim, Fault

IN_TIME_S = 60.0
"""Far above what any of these needs, and far below the time-out of a request."""


def config_of(nim: FakeNim, **changes: Any) -> NimConfig:
    config = NimConfig(base_url=nim.base_url, model=nim.model, limits=LIMITS)
    return replace(config, **changes)


@asynccontextmanager
async def running(config: NimConfig, nim: FakeNim | None = None) -> AsyncIterator[NimEmbedder]:
    """Run an embedder that waits for nothing between attempts; no task but the fake's may be left at its end."""
    retries = Retries(attempts=config.retry_attempts, max_s=config.retry_max_s, jitter=lambda _: 0.0)
    embedder = NimEmbedder(config, retries=retries)
    if nim is None:
        await embedder.start()
    else:
        await start_learnt(embedder, nim)
    try:
        yield embedder
    finally:
        await embedder.close()
    async with asyncio.timeout(IN_TIME_S):
        while [task for task in asyncio.all_tasks() if _is_ours(task)]:
            await asyncio.sleep(0)


def _is_ours(task: "asyncio.Task[Any]") -> bool:
    return task is not asyncio.current_task() and "SimulatedNim" not in repr(task.get_coro())


async def expect(embedder: NimEmbedder, error: type[EmbedderError], match: str | None = None) -> None:
    """Expect a call to fail with exactly this error, in time."""
    started = time.monotonic()
    with pytest.raises(error, match=match) as failure:
        await embedder.embed([CAT, DOG], QUERY)
    assert type(failure.value) is error
    assert time.monotonic() - started < IN_TIME_S
    assert "mat" not in str(failure.value)


async def expect_fine(embedder: NimEmbedder, nim: FakeNim) -> None:
    outcomes = vectors(await embedder.embed([CAT, DOG], QUERY))
    np.testing.assert_array_equal(outcomes, np.stack([nim.vector(CAT.text), nim.vector(DOG.text)]))


def first(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(answer: dict[str, Any]) -> None:
        answer["data"][0][key] = value

    return change


def both(key: str, *values: Any) -> Callable[[dict[str, Any]], None]:
    def change(answer: dict[str, Any]) -> None:
        for entry, value in zip(answer["data"], values, strict=True):
            entry[key] = value

    return change


def drop(answer: dict[str, Any]) -> None:
    del answer["data"][0]


HTML = b"<html><body>a cat on a mat</body></html>"

ONCE_AND_FOR_ALL = [
    pytest.param(Fault(status=401), CredentialRejected, id="401"),
    pytest.param(Fault(status=402), CredentialRejected, id="402"),
    pytest.param(Fault(status=403), CredentialRejected, id="403"),
    pytest.param(Fault(status=404), ModelGone, id="404"),
    pytest.param(Fault(status=410), ModelGone, id="410"),
    pytest.param(Fault(status=302, headers={"Location": "http://127.0.0.1:9"}), AnswerInvalid, id="redirect"),
    pytest.param(Fault(body=HTML), AnswerInvalid, id="html"),
    pytest.param(Fault(body=b'{"data": [{"embedding": "AAAA'), AnswerInvalid, id="truncated-json"),
    pytest.param(Fault(change=drop), AnswerInvalid, id="wrong-count"),
    pytest.param(Fault(change=first("embedding", [1.0])), AnswerInvalid, id="wrong-dimension"),
    pytest.param(Fault(change=first("embedding", [math.nan] * 16)), AnswerInvalid, id="nan"),
    pytest.param(Fault(change=first("embedding", [0.0] * 16)), AnswerInvalid, id="zeros"),
    pytest.param(Fault(change=both("index", 1, 1)), AnswerInvalid, id="same-index"),
    pytest.param(Fault(change=both("index", 0, 2)), AnswerInvalid, id="gap-in-indexes"),
    pytest.param(Fault(body=b"x" * 200_000), AnswerInvalid, id="too-long"),
]

IN_PASSING = [
    pytest.param(Fault(status=429), EmbedderRateLimited, id="429"),
    pytest.param(Fault(status=408), EmbedderUnavailable, id="408"),
    pytest.param(Fault(status=502, body=HTML), EmbedderUnavailable, id="502-html"),
    pytest.param(Fault(status=503, body=b"z" * 200_000), EmbedderUnavailable, id="503-long"),
    pytest.param(Fault(status=504), EmbedderUnavailable, id="504"),
    pytest.param(Fault(reset=True), EmbedderUnavailable, id="reset-without-answer"),
    pytest.param(Fault(reset=True, body=b'{"data": []}' * 20), EmbedderUnavailable, id="reset-mid-body"),
    pytest.param(Fault(reset=True, status=503, body=b"later " * 20), EmbedderUnavailable, id="reset-mid-refusal"),
]


@pytest.mark.parametrize(("fault", "error"), ONCE_AND_FOR_ALL)
async def test_what_does_not_pass_by_itself_fails_at_once(
    nim: FakeNim, fault: Fault, error: type[EmbedderError]
) -> None:
    async with running(config_of(nim), nim) as embedder:
        nim.faults.append(fault)

        await expect(embedder, error)

        assert len(nim.requests) == 1
        await expect_fine(embedder, nim)


@pytest.mark.parametrize(("fault", "error"), IN_PASSING)
async def test_what_passes_by_itself_is_not_seen_by_the_caller(
    nim: FakeNim, fault: Fault, error: type[EmbedderError]
) -> None:
    async with running(config_of(nim), nim) as embedder:
        nim.faults.extend([fault, fault])

        await expect_fine(embedder, nim)

        assert len(nim.requests) == 3


@pytest.mark.parametrize(("fault", "error"), IN_PASSING)
async def test_what_does_not_pass_soon_enough_is_told_after_three_attempts(
    nim: FakeNim, fault: Fault, error: type[EmbedderError]
) -> None:
    async with running(config_of(nim), nim) as embedder:
        nim.faults.extend([fault] * 3)

        await expect(embedder, error)

        assert len(nim.requests) == 3
        await expect_fine(embedder, nim)


async def test_swapped_embeddings_are_put_where_their_index_says(nim: FakeNim) -> None:
    async with running(config_of(nim), nim) as embedder:
        nim.faults.append(Fault(change=lambda answer: answer["data"].reverse()))

        await expect_fine(embedder, nim)


async def test_a_wait_asked_for_beyond_the_bound_is_handed_on_instead_of_waited_for(nim: FakeNim) -> None:
    async with running(config_of(nim), nim) as embedder:
        nim.faults.append(Fault(status=429, headers={"Retry-After": "60"}))

        with pytest.raises(EmbedderRateLimited) as failure:
            await embedder.embed([CAT], QUERY)

        assert failure.value.retry_after_s == 60
        assert len(nim.requests) == 1
        await expect_fine(embedder, nim)


async def test_a_wait_asked_for_within_the_bound_is_waited_for(nim: FakeNim) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    embedder = NimEmbedder(config_of(nim), retries=Retries(jitter=lambda _: 0.0, sleep=sleep))
    await start_learnt(embedder, nim)
    try:
        nim.faults.extend([Fault(status=429, headers={"Retry-After": "2"}), Fault(status=503)])
        await expect_fine(embedder, nim)
    finally:
        await embedder.close()

    assert waits == [2, 0]


async def test_a_nim_that_is_not_there_refuses_and_one_that_returns_is_used_again(nim: FakeNim) -> None:
    async with running(config_of(nim), nim) as embedder:
        await expect_fine(embedder, nim)
        await nim.die()

        await expect(embedder, EmbedderUnavailable, "cannot be reached")
        with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
            await embedder.check()

        await nim.rise()
        await embedder.check()
        await expect_fine(embedder, nim)


async def test_a_nim_that_restarts_between_two_calls_is_not_noticed(nim: FakeNim) -> None:
    async with running(config_of(nim), nim) as embedder:
        await expect_fine(embedder, nim)
        await nim.die()
        await nim.rise()

        await expect_fine(embedder, nim)


async def test_an_outage_does_not_multiply_the_load(nim: FakeNim) -> None:
    async with running(config_of(nim), nim) as embedder:
        nim.fault = Fault(status=503)
        for _ in range(20):
            await expect(embedder, EmbedderUnavailable)

        assert len(nim.requests) < 25
        nim.fault = None
        await expect_fine(embedder, nim)


async def test_a_slow_answer_ends_with_the_time_out_and_is_not_asked_for_again(nim: FakeNim) -> None:
    async with running(config_of(nim, timeout_s=1, retry_max_s=1), nim) as embedder:
        nim.fault = Fault(gate=asyncio.Event())

        await expect(embedder, EmbedderUnavailable, "did not answer within 1 s")

        assert len(nim.requests) == 1
        nim.fault = None
        await expect_fine(embedder, nim)


async def test_a_caller_that_goes_ends_the_wait_before_a_retry(nim: FakeNim) -> None:
    waits = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.set()
        await asyncio.Event().wait()

    embedder = NimEmbedder(config_of(nim, max_connections=1), retries=Retries(sleep=sleep))
    await start_learnt(embedder, nim)
    try:
        nim.faults.append(Fault(status=503, headers={"Retry-After": "10"}))
        call = asyncio.create_task(embedder.embed([CAT], QUERY))
        await waits.wait()

        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert len(nim.requests) == 1
        await expect_fine(embedder, nim)
    finally:
        await embedder.close()


async def test_a_slow_answer_is_dropped_when_its_caller_goes(nim: FakeNim) -> None:
    async with running(config_of(nim, max_connections=1), nim) as embedder:
        nim.fault = Fault(gate=asyncio.Event())
        call = asyncio.create_task(embedder.embed([CAT], QUERY))
        await nim.arrived.wait()

        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        nim.fault = None
        await expect_fine(embedder, nim)


@asynccontextmanager
async def server_that_says(words: bytes) -> AsyncIterator[int]:
    """Answer whatever comes with these words, on a free port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(words)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_an_answer_that_is_no_http_is_told_from_a_broken_connection() -> None:
    async with server_that_says(b"220 mail.example.com ESMTP\r\n\r\n") as port:
        config = NimConfig(base_url=f"http://127.0.0.1:{port}", model="m")
        async with running(config) as embedder:
            await expect(embedder, AnswerInvalid, "not HTTP")


async def test_tls_towards_a_server_without_it_is_unavailable_and_the_message_says_so() -> None:
    async with server_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        config = NimConfig(base_url=f"https://127.0.0.1:{port}", model="m")
        async with running(config) as embedder:
            await expect(embedder, EmbedderUnavailable, "TLS")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_a_certificate_of_nobody_known_is_refused_once_and_the_message_says_what_to_set(
    authority: trustme.CA,
) -> None:
    async with FakeNim(tls=server_side(authority, "127.0.0.1")) as nim, running(config_of(nim), nim) as embedder:
        await expect(embedder, EmbedderUnavailable, r"not trusted; set ca_file")

        assert nim.requests == []


async def test_a_certificate_of_a_named_authority_is_trusted(authority: trustme.CA, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    tls = server_side(authority, "127.0.0.1")
    async with FakeNim(tls=tls) as nim, running(config_of(nim, ca_file=file), nim) as embedder:
        await expect_fine(embedder, nim)


async def test_a_certificate_for_another_host_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    tls = server_side(authority, "nim.example.com")
    async with FakeNim(tls=tls) as nim, running(config_of(nim, ca_file=file), nim) as embedder:
        await expect(embedder, EmbedderUnavailable, "not trusted")
