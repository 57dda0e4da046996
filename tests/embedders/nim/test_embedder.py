"""NimEmbedder keeps the contract against a NIM on loopback, and reads its failures right."""

import asyncio
import math
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedders.contract import DOCUMENT, QUERY, Embedding, EmbedOptions, ImageInput, Priority, TextInput
from embedders.errors import (
    AnswerInvalid,
    CredentialRejected,
    EmbedderError,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
)
from embedders.nim.embedder import NimConfig, NimEmbedder
from embedders.nim.wire import TEXT_AT_ONCE, Embeddings, read_embeddings
from tests.embedders.nim.starting import start_learnt
from tests.embedders.suite import CAT, DOG, LIMITS, MIXED, RED, EmbedderSuite, vectors
from tests.fakes.embedder import picture
from tests.fakes.nim import FakeNim, Fault

SECRET = "nvapi-very-secret"


@pytest.fixture
def config(nim: FakeNim) -> NimConfig:
    return NimConfig(
        base_url=nim.base_url,
        model=nim.model,
        limits=LIMITS,
        max_connections=2,
        timeout_s=10,
        retry_attempts=1,
    )


@pytest.fixture
async def embedder(nim: FakeNim, config: NimConfig) -> AsyncIterator[NimEmbedder]:
    embedder = NimEmbedder(config)
    await start_learnt(embedder, nim)
    yield embedder
    await embedder.close()


class TestContract(EmbedderSuite):
    """The contract."""


async def embed(config: NimConfig, inputs: list[Any]) -> list[Any]:
    embedder = NimEmbedder(config)
    await embedder.start()
    try:
        return list(await embedder.embed(inputs, QUERY))
    finally:
        await embedder.close()


async def test_a_request_says_so_if_nobody_waits_for_its_answer(nim: FakeNim, embedder: NimEmbedder) -> None:
    for options in (QUERY, DOCUMENT, EmbedOptions(priority=Priority.BULK)):
        await embedder.embed([CAT], options)

    assert [headers.get("priority") for headers in nim.headers] == [None, None, "u=7"]


async def test_a_request_has_the_documented_fields_only_and_mixes_texts_and_images(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    outcomes = await embedder.embed(MIXED, QUERY)
    (request,) = nim.requests
    assert request.keys() == {"input", "model", "encoding_format"}
    assert request["encoding_format"] == "base64"
    assert [item[:16] for item in request["input"]] == [
        "a cat on a mat",
        "data:image/png;b",
        "two dogs in the ",
        "data:image/jpeg;",
    ]
    expected = [nim.vector(each.content if isinstance(each, ImageInput) else each.text) for each in MIXED]
    np.testing.assert_array_equal(vectors(outcomes), np.stack(expected))


@pytest.mark.parametrize("index_base", [0, 1])
@pytest.mark.parametrize("floats", [False, True])
async def test_indexes_from_0_or_1_and_base64_or_floats_are_read(*, index_base: int, floats: bool) -> None:
    async with FakeNim(index_base=index_base, floats=floats) as nim:
        config = NimConfig(base_url=nim.base_url, model=nim.model)
        outcomes = await embed(config, [CAT, DOG])
        np.testing.assert_array_equal(vectors(outcomes), np.stack([nim.vector(CAT.text), nim.vector(DOG.text)]))


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
@pytest.mark.parametrize("path", ["", "/ai/nim"])
async def test_the_address_may_have_a_path_and_end_with_v1(path: str, suffix: str) -> None:
    async with FakeNim(path=path) as nim:
        config = NimConfig(base_url=nim.base_url + suffix, model=nim.model)
        assert len(await embed(config, [CAT])) == 1


@pytest.mark.parametrize("base_url", ["", "nim:8000", "ftp://nim", "http://", "http://[bad"])
def test_an_address_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        NimEmbedder(NimConfig(base_url=base_url, model="m"))


@pytest.mark.parametrize("max_batch", [0, 65])
def test_a_batch_that_no_nim_takes_is_refused(max_batch: int) -> None:
    with pytest.raises(ValueError, match="max_batch"):
        NimEmbedder(NimConfig(base_url="http://nim", model="nvidia/nvclip", max_batch=max_batch))


def test_a_key_that_no_header_carries_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="api_key") as failure:
        NimEmbedder(NimConfig(base_url="http://nim", model="m", api_key=f"{SECRET}\n"))
    assert SECRET not in str(failure.value)


async def test_many_inputs_go_in_requests_of_64_and_no_more_at_once_than_connections(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    gate = asyncio.Event()
    nim.fault = Fault(gate=gate)
    texts = [TextInput(f"text {number}") for number in range(300)]
    call = asyncio.create_task(embedder.embed(texts, DOCUMENT))
    await nim.arrived.wait()
    gate.set()
    outcomes = vectors(await call)
    np.testing.assert_array_equal(outcomes, np.stack([nim.vector(each.text) for each in texts]))
    assert sorted(len(request["input"]) for request in nim.requests) == [44, 64, 64, 64, 64]
    assert nim.most_at_once <= 2


async def test_pictures_of_other_formats_go_as_png_and_jpeg_goes_as_it_is(nim: FakeNim, embedder: NimEmbedder) -> None:
    jpeg = picture(file_format="JPEG")
    outcomes = await embedder.embed(
        [ImageInput(picture(file_format="WEBP")), ImageInput(picture(file_format="GIF")), ImageInput(jpeg)],
        DOCUMENT,
    )
    assert len(vectors(outcomes)) == 3
    kinds = [item.partition(";")[0] for item in nim.requests[0]["input"]]
    assert kinds == ["data:image/png", "data:image/png", "data:image/jpeg"]
    np.testing.assert_array_equal(vectors(outcomes)[2], nim.vector(jpeg))


async def test_a_text_that_looks_like_a_picture_stays_a_text(nim: FakeNim, embedder: NimEmbedder) -> None:
    (outcome,) = await embedder.embed([TextInput("data:image/png;base64,AAAA")], QUERY)
    assert isinstance(outcome, Embedding)
    assert nim.requests[0]["input"] == ["data: image/png;base64,AAAA"]


async def test_line_ends_in_texts_become_spaces(nim: FakeNim, embedder: NimEmbedder) -> None:
    (outcome,) = await embedder.embed([TextInput("one\ntwo\r\nthree")], QUERY)
    assert isinstance(outcome, Embedding)
    assert nim.requests[0]["input"] == ["one two three"]


async def test_the_key_goes_as_a_bearer_token_and_into_no_text() -> None:
    async with FakeNim(api_key=SECRET) as nim:
        config = NimConfig(base_url=nim.base_url, model=nim.model, api_key=SECRET)
        assert SECRET not in repr(config)
        assert len(vectors(await embed(config, [CAT]))) == 1
        with pytest.raises(CredentialRejected) as failure:
            await embed(replace(config, api_key=f"{SECRET}-old"), [CAT])
        assert SECRET not in str(failure.value)


async def test_proxies_of_the_environment_are_ignored(config: NimConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert len(await embed(config, [CAT])) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, CredentialRejected),
        (403, CredentialRejected),
        (404, ModelGone),
        (410, ModelGone),
        (429, EmbedderRateLimited),
        (408, EmbedderUnavailable),
        (502, EmbedderUnavailable),
        (503, EmbedderUnavailable),
        (504, EmbedderUnavailable),
        (302, AnswerInvalid),
        (204, AnswerInvalid),
        (418, AnswerInvalid),
    ],
)
async def test_a_status_means_one_error_and_the_next_call_is_fine(
    nim: FakeNim, embedder: NimEmbedder, status: int, error: type[EmbedderError]
) -> None:
    nim.faults.append(Fault(status=status, body=b"" if status == 204 else b"<html>a cat on a mat</html>"))
    with pytest.raises(error) as failure:
        await embedder.embed(MIXED, QUERY)
    assert type(failure.value) is error
    assert "cat" not in str(failure.value)
    assert len(vectors(await embedder.embed(MIXED, QUERY))) == 4


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 1.0),
        ("0", 1.0),
        ("nan", 1.0),
        ("inf", 1.0),
        ("999999", 3600.0),
        ("soon", 1.0),
        (None, 1.0),
    ],
)
async def test_retry_after_is_taken_when_it_makes_sense(
    nim: FakeNim, embedder: NimEmbedder, header: str | None, seconds: float
) -> None:
    nim.faults.append(Fault(status=429, headers={"Retry-After": header} if header else {}))
    with pytest.raises(EmbedderRateLimited) as failure:
        await embedder.embed([CAT], QUERY)
    assert failure.value.retry_after_s == seconds


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_single_input_is_at_fault_itself(nim: FakeNim, embedder: NimEmbedder, status: int) -> None:
    nim.faults.append(Fault(status=status))
    (outcome,) = await embedder.embed([CAT], QUERY)
    assert isinstance(outcome, InputRejected)
    assert str(status) in str(outcome)
    assert "cat" not in str(outcome)


async def test_inputs_that_the_nim_refuses_are_found_and_fail_alone(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.refuses = lambda item: item in ("text 3", "text 37")
    texts = [TextInput(f"text {number}") for number in range(64)]
    outcomes = await embedder.embed(texts, DOCUMENT)
    bad = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, InputRejected)]
    assert bad == [3, 37]
    good = [each for at, each in enumerate(outcomes) if at not in bad]
    expected = [nim.vector(each.text) for at, each in enumerate(texts) if at not in bad]
    np.testing.assert_array_equal(vectors(good), np.stack(expected))
    assert len(nim.requests) < 30


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(answer: dict[str, Any]) -> None:
        answer["data"][0][key] = value

    return change


def _drop(answer: dict[str, Any]) -> None:
    del answer["data"][0]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(body=b"<html>hello</html>"), id="html"),
        pytest.param(Fault(body=b'{"data": ['), id="cut-json"),
        pytest.param(Fault(body=b"[]"), id="no-object"),
        pytest.param(Fault(change=lambda answer: answer.pop("data") and None), id="no-data"),
        pytest.param(Fault(change=_drop), id="count"),
        pytest.param(Fault(change=_set("embedding", [1.0])), id="dimension"),
        pytest.param(Fault(change=_set("embedding", [math.nan] * 16)), id="nan"),
        pytest.param(Fault(change=_set("embedding", [0.0] * 16)), id="zero"),
        pytest.param(Fault(change=_set("embedding", [1.0] * 16)), id="not-unit"),
        pytest.param(Fault(change=_set("embedding", "AAA*")), id="base64"),
        pytest.param(Fault(change=_set("index", 1)), id="index-twice"),
        pytest.param(Fault(change=_set("index", 3)), id="index-from-elsewhere"),
        pytest.param(Fault(body=b"x" * 200_000), id="too-long"),
        pytest.param(Fault(headers={"Content-Encoding": "gzip"}), id="compressed"),
    ],
)
async def test_an_answer_that_is_no_answer_is_refused_whole(nim: FakeNim, embedder: NimEmbedder, fault: Fault) -> None:
    nim.faults.append(fault)
    with pytest.raises(AnswerInvalid):
        await embedder.embed([CAT, DOG], QUERY)
    assert len(vectors(await embedder.embed([CAT, DOG], QUERY))) == 2


async def test_embeddings_out_of_order_are_put_in_the_order_of_their_index(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.faults.append(Fault(change=lambda answer: answer["data"].reverse()))
    outcomes = await embedder.embed([CAT, DOG], QUERY)
    np.testing.assert_array_equal(vectors(outcomes), np.stack([nim.vector(CAT.text), nim.vector(DOG.text)]))


@pytest.mark.parametrize("body", [None, b'{"object": "list", "data": []}' * 20])
async def test_a_connection_cut_by_the_nim_is_unavailable(
    nim: FakeNim, embedder: NimEmbedder, body: bytes | None
) -> None:
    nim.faults.append(Fault(reset=True, body=body))
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed([CAT], QUERY)
    assert len(await embedder.embed([CAT], QUERY)) == 1


async def test_a_nim_that_is_not_there_is_unavailable(config: NimConfig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EmbedderUnavailable, match="reached"):
            await embed(replace(config, base_url=address), [CAT])


async def test_an_answer_that_does_not_come_in_time_is_unavailable(nim: FakeNim, config: NimConfig) -> None:
    nim.fault = Fault(gate=asyncio.Event())
    with pytest.raises(EmbedderUnavailable, match=r"0\.05 s"):
        await embed(replace(config, timeout_s=0.05), [CAT])


async def test_closing_fails_a_call_that_waits_for_the_nim(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.fault = Fault(gate=asyncio.Event())
    call = asyncio.create_task(embedder.embed([CAT], QUERY))
    await nim.arrived.wait()
    await embedder.close()
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await call


async def test_one_failed_request_ends_the_others_of_its_call(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.faults.extend([Fault(gate=asyncio.Event()), Fault(status=503)])
    with pytest.raises(EmbedderUnavailable, match="503"):
        await embedder.embed([TextInput(f"text {number}") for number in range(128)], DOCUMENT)


async def test_calls_before_the_start_are_refused(config: NimConfig) -> None:
    embedder = NimEmbedder(config)
    assert embedder.spec.space == config.model
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed([CAT], QUERY)
    await embedder.close()


async def test_no_request_is_sent_when_no_input_is_valid(nim: FakeNim, embedder: NimEmbedder) -> None:
    outcomes = await embedder.embed([TextInput(" "), ImageInput(b"")], QUERY)
    assert all(isinstance(each, InputRejected) for each in outcomes)
    assert nim.requests == []


async def test_check_fails_while_the_nim_is_not_ready(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.ready = False
    with pytest.raises(EmbedderUnavailable):
        await embedder.check()
    nim.ready = True
    await embedder.check()


async def test_no_input_is_blamed_when_the_nim_serves_another_model(nim: FakeNim, config: NimConfig) -> None:
    embedder = NimEmbedder(replace(config, model="nvidia/other"))
    await start_learnt(embedder, nim)
    try:
        with pytest.raises(ModelGone, match="nvidia/other"):
            await embedder.check()
        nim.requests.clear()
        with pytest.raises(ModelGone, match="the model nvidia/other is unknown"):
            await embedder.embed([RED, *[CAT] * 63], QUERY)
        assert [request["input"] for request in nim.requests] == [["ready"]]
    finally:
        await embedder.close()


async def test_a_check_does_not_wait_behind_slow_requests(nim: FakeNim, embedder: NimEmbedder) -> None:
    gate = asyncio.Event()
    nim.faults.extend([Fault(gate=gate), Fault(gate=gate)])
    calls = [asyncio.create_task(embedder.embed([CAT], QUERY)) for _ in range(2)]
    while len(nim.requests) < 2:
        await asyncio.sleep(0.001)

    async with asyncio.timeout(60):
        await embedder.check()

    gate.set()
    await asyncio.gather(*calls)


async def test_other_work_has_its_turn_between_the_texts_of_a_large_batch(nim: FakeNim) -> None:
    nim.become("acme/plain")
    embedder = NimEmbedder(NimConfig(base_url=nim.base_url, max_batch=64))
    await start_learnt(embedder, nim)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while not nim.requests:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await embedder.embed([TextInput("x" + "data:image" * 3270)] * 64, QUERY)
    await counting
    await embedder.close()

    # Of eight texts at a time, eight times, one beside the others of the request.
    assert turns >= 64 * 32_700 // TEXT_AT_ONCE


@pytest.mark.parametrize(("dimension", "own"), [(16, False), (8192, True)])
async def test_a_long_answer_is_read_in_a_thread(
    nim: FakeNim, monkeypatch: pytest.MonkeyPatch, dimension: int, *, own: bool
) -> None:
    nim.become("acme/plain")
    nim.dimension, nim.floats = dimension, True
    embedder = NimEmbedder(NimConfig(base_url=nim.base_url))
    await start_learnt(embedder, nim)
    threads = []

    def read(*args: Any, **kwargs: Any) -> Embeddings:
        threads.append(threading.current_thread())
        return read_embeddings(*args, **kwargs)

    monkeypatch.setattr("embedders.nim.embedder.read_embeddings", read)
    rows = vectors(await embedder.embed([CAT, DOG], QUERY))
    await embedder.close()

    assert rows.shape == (2, dimension)
    assert [each is not threading.main_thread() for each in threads] == [own]
