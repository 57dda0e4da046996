"""NimReranker against a simulated NIM that checks requests by the documented rules, and what can go wrong with it."""

import asyncio
import base64
import io
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from embedders.contract import InputLimits, Modality
from embedders.errors import (
    AnswerInvalid,
    CallerKeyRejected,
    CredentialRejected,
    EmbedderError,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
    ModelUnusable,
    TextTooLong,
)
from embedders.factory import build_reranker
from embedders.nim.reranking import NimRerankConfig, NimReranker, read_rankings
from embedders.nim.retries import Retries
from embedders.reranking import RERANK, Passage, RankOutcome, RerankOptions
from embedders.telemetry.timing import begin_times, note_deadline
from tests.fakes.embedder import picture
from tests.fakes.nim_server import Fault
from tests.fakes.rerank_nim import FakeRerankNim

SECRET = "nvapi-very-secret"
DARK, GREEN = picture((0, 0, 0)), picture((0, 250, 0))


@pytest.fixture
async def nim() -> AsyncIterator[FakeRerankNim]:
    async with FakeRerankNim() as nim:
        yield nim


@asynccontextmanager
async def running(nim: FakeRerankNim, **changes: Any) -> AsyncIterator[NimReranker]:
    """Run a reranker that waits for nothing between attempts."""
    config = replace(NimRerankConfig(base_url=nim.base_url, model=nim.model, timeout_s=10, retry_attempts=1), **changes)
    retries = Retries(attempts=config.retry_attempts, max_s=config.retry_max_s, jitter=lambda _: 0.0)
    reranker = NimReranker(config, retries=retries)
    await reranker.start()
    try:
        yield reranker
    finally:
        await reranker.close()


@pytest.fixture
async def reranker(nim: FakeRerankNim) -> AsyncIterator[NimReranker]:
    async with running(nim) as reranker:
        yield reranker


def texts(*passages: str) -> list[Passage]:
    return [Passage(each) for each in passages]


def rejected(outcomes: Sequence[RankOutcome]) -> list[int]:
    return [at for at, each in enumerate(outcomes) if isinstance(each, InputRejected)]


async def test_a_request_has_the_documented_fields_only_and_scores_come_in_the_passages_order(
    nim: FakeRerankNim, reranker: NimReranker
) -> None:
    outcomes = await reranker.rerank("abc", texts("a", "abc", "xyz", "ab"), RERANK)

    assert outcomes == [1, 3, 0, 2]
    assert nim.requests == [
        {
            "model": nim.model,
            "query": {"text": "abc"},
            "passages": [{"text": each} for each in ("a", "abc", "xyz", "ab")],
            "truncate": "END",
        }
    ]


async def test_pictures_go_as_data_urls_beside_a_text_or_alone(nim: FakeRerankNim, reranker: NimReranker) -> None:
    webp = picture((0, 250, 0), file_format="WEBP")
    passages = [Passage("a", DARK), Passage("", GREEN), Passage(" \u200b", GREEN), Passage("b", webp)]

    outcomes = await reranker.rerank("abc", passages, RERANK)

    assert outcomes == [1, 25, 25, pytest.approx(26, abs=1)]
    sent = nim.requests[0]["passages"]
    assert [sorted(each) for each in sent] == [["image", "text"], ["image"], ["image"], ["image", "text"]]
    assert all(each["image"].startswith("data:image/png;base64,") for each in sent)


async def test_passages_that_cannot_be_read_fail_alone_and_are_not_sent(
    nim: FakeRerankNim, reranker: NimReranker
) -> None:
    passages = [Passage(), Passage(" "), Passage("a"), Passage("b", b"no picture"), Passage("c", picture()[:40])]

    outcomes = await reranker.rerank("abc", passages, RERANK)

    assert rejected(outcomes) == [0, 1, 3, 4]
    assert nim.requests[0]["passages"] == [{"text": "a"}]


async def test_without_a_passage_that_can_be_read_the_nim_is_not_asked(
    nim: FakeRerankNim, reranker: NimReranker
) -> None:
    assert rejected(await reranker.rerank("abc", [Passage(), Passage("a", b"x")], RERANK)) == [0, 1]
    assert await reranker.rerank("abc", [], RERANK) == []
    assert nim.requests == []


async def test_a_long_text_is_cut_to_the_bound_in_bytes_and_cut_further_by_the_nim(nim: FakeRerankNim) -> None:
    nim.max_words = 3
    async with running(nim, limits=InputLimits(max_text_bytes=11)) as reranker:
        outcomes = await reranker.rerank("abc", texts("a b c d e f g h i", "ä" * 10), RERANK)

    assert outcomes == [3, 0]
    assert [each["text"] for each in nim.requests[0]["passages"]] == ["a b c d e f", "ä" * 5]


async def test_without_truncation_a_passage_that_is_too_long_for_the_model_fails_alone(
    nim: FakeRerankNim, reranker: NimReranker
) -> None:
    nim.max_words = 3

    outcomes = await reranker.rerank("abc", texts("a", "a b c d", "ab"), RerankOptions(truncate=False))

    assert outcomes[0] == 1
    assert rejected(outcomes) == [1]
    assert "its text is too large for it" in str(outcomes[1])
    assert {each["truncate"] for each in nim.requests} == {"NONE"}


@pytest.mark.parametrize(("count", "requests"), [(512, 1), (513, 2), (1100, 3)])
async def test_a_request_has_at_most_512_passages(
    nim: FakeRerankNim, reranker: NimReranker, count: int, requests: int
) -> None:
    outcomes = await reranker.rerank(
        "z", texts(*(f"{number} z" if number % 2 else "x" for number in range(count))), RERANK
    )

    assert outcomes == [float(number % 2) for number in range(count)]
    assert len(nim.requests) == requests
    assert max(len(each["passages"]) for each in nim.requests) == 512 if count >= 512 else count


async def test_requests_are_cut_by_bytes_and_a_larger_passage_goes_alone(
    nim: FakeRerankNim,
) -> None:
    async with running(nim, max_request_bytes=60) as small:
        assert await small.rerank("abc", texts("a" * 20, "b" * 20, "c" * 100, "x"), RERANK) == [1, 1, 1, 0]

    assert [len(each["passages"]) for each in nim.requests] == [1, 1, 1, 1]


@pytest.mark.parametrize("query", ["", " \n", "\u200b"])
async def test_a_blank_query_is_refused_without_asking(nim: FakeRerankNim, reranker: NimReranker, query: str) -> None:
    with pytest.raises(InputRejected, match="blank"):
        await reranker.rerank(query, texts("a"), RERANK)

    assert nim.requests == []


async def test_a_query_over_the_bound_is_refused_without_asking(nim: FakeRerankNim) -> None:
    async with running(nim, limits=InputLimits(max_text_bytes=10)) as reranker:
        with pytest.raises(TextTooLong):
            await reranker.rerank("x" * 11, texts("a"), RERANK)

    assert nim.requests == []


async def test_a_passage_that_is_refused_or_failed_on_fails_alone(nim: FakeRerankNim, reranker: NimReranker) -> None:
    passages = texts(*(f"a {number}" for number in range(40)))
    nim.refuses = lambda passage: passage["text"] == "a 7"
    nim.fails = lambda passage: passage["text"] == "a 31"

    outcomes = await reranker.rerank("a", passages, RERANK)

    assert rejected(outcomes) == [7, 31]
    assert "status 500, but not on others" in str(outcomes[31])
    assert [each for each in outcomes if each == 1.0] == [1.0] * 38


async def test_a_query_that_the_nim_refuses_is_blamed_and_no_passage(nim: FakeRerankNim, reranker: NimReranker) -> None:
    nim.refuses_query = lambda query: query == "poison"

    with pytest.raises(InputRejected, match="the NIM rejects the query"):
        await reranker.rerank("poison", texts("a", "b"), RERANK)

    assert len(nim.requests) == 3
    assert await reranker.rerank("b", texts("a", "b"), RERANK) == [0, 1]


async def test_a_nim_that_refuses_everything_is_asked_thrice_and_nobody_is_blamed(
    nim: FakeRerankNim, reranker: NimReranker
) -> None:
    nim.fault = Fault(status=400)

    with pytest.raises(AnswerInvalid, match=r"rejects even a plain text with status 400 and says \"injected\"; check"):
        await reranker.rerank("abc", texts("a", "b"), RERANK)

    assert len(nim.requests) == 3


async def test_a_model_that_reads_no_pictures_says_so_once_and_gets_none_from_then_on(nim: FakeRerankNim) -> None:
    nim.become("acme/rerank-everything")
    nim.pictures = False
    async with running(nim) as reranker:
        assert Modality.IMAGE in reranker.spec.modalities
        with pytest.raises(InputRejected, match="reads texts only"):
            await reranker.rerank("abc", [Passage("a"), Passage("b", GREEN)], RERANK)
        asked = len(nim.requests)
        outcomes = await reranker.rerank("abc", [Passage("a"), Passage("b", GREEN)], RERANK)

    assert reranker.spec.modalities == {Modality.TEXT}
    assert rejected(outcomes) == [1]
    assert len(nim.requests) == asked + 1


async def test_a_nim_that_refused_one_plain_picture_gets_pictures_again_once_a_check_shows_that_it_takes_them(
    nim: FakeRerankNim,
) -> None:
    nim.pictures = False
    async with running(nim) as reranker:
        with pytest.raises(InputRejected, match="reads texts only"):
            await reranker.rerank("abc", [Passage("b", GREEN)], RERANK)
        await reranker.check()
        refused = reranker.spec.modalities
        nim.pictures = True
        await reranker.check()
        nim.forget()
        await reranker.check()

        assert rejected(await reranker.rerank("abc", [Passage("b", GREEN)], RERANK)) == []
        assert Modality.IMAGE in reranker.spec.modalities
    assert refused == {Modality.TEXT}
    assert len(nim.requests) == 2


async def test_a_nim_that_fails_on_all_pictures_is_unavailable_and_not_taken_for_a_text_model(
    nim: FakeRerankNim, reranker: NimReranker
) -> None:
    nim.fails = lambda passage: "image" in passage

    with pytest.raises(EmbedderUnavailable, match="status 500"):
        await reranker.rerank("abc", [Passage("", GREEN)], RERANK)

    assert Modality.IMAGE in reranker.spec.modalities


@pytest.mark.parametrize(
    ("model", "reads"),
    [
        ("nvidia/llama-nemotron-rerank-vl-1b-v2", set(Modality)),
        ("nvidia/Nemotron-3.5-Rerank-8B-BF16", set(Modality)),
        ("nvidia/llama-nemotron-rerank-1b-v2", {Modality.TEXT}),
        ("nvidia/llama-3.2-nv-rerankqa-1b-v2", {Modality.TEXT}),
        ("nvidia/rerank-qa-mistral-4b", {Modality.TEXT}),
    ],
)
async def test_what_a_model_reads_is_told_by_its_name(nim: FakeRerankNim, model: str, reads: set[Modality]) -> None:
    nim.become(model)
    async with running(nim) as reranker:
        assert reranker.spec.modalities == reads


async def test_the_model_is_learnt_from_the_nim_and_learnt_again_when_it_is_gone(nim: FakeRerankNim) -> None:
    async with running(nim, model=None) as reranker:
        assert reranker.spec.model == nim.model
        assert await reranker.rerank("abc", texts("a"), RERANK) == [1]
        nim.become("nvidia/Nemotron-3.5-Rerank-8B-BF16")
        with pytest.raises(ModelGone):
            await reranker.rerank("abc", texts("a"), RERANK)
        assert await reranker.rerank("abc", texts("a"), RERANK) == [1]

    assert reranker.spec.model == "nvidia/Nemotron-3.5-Rerank-8B-BF16"


@pytest.mark.parametrize(
    ("listed", "outcome"),
    [
        (["nvidia/nvclip", "nvidia/llama-nemotron-rerank-vl-1b-v2"], [1]),
        (["a-rerank", "b-rerank"], "several models, a-rerank, b-rerank; set model"),
        ([], "lists no model"),
        (None, "lists no model"),
    ],
)
async def test_a_list_that_does_not_tell_the_model_asks_for_the_setting(
    nim: FakeRerankNim, listed: list[str] | None, outcome: list[float] | str
) -> None:
    nim.listed = listed
    async with running(nim, model=None) as reranker:
        if isinstance(outcome, list):
            assert await reranker.rerank("abc", texts("a"), RERANK) == outcome
        else:
            with pytest.raises(ModelUnusable, match=outcome):
                await reranker.rerank("abc", texts("a"), RERANK)


async def test_a_nim_that_is_down_at_the_start_is_learnt_by_a_later_check(nim: FakeRerankNim) -> None:
    address = nim.base_url
    await nim.die()
    async with running(nim, model=None, base_url=address) as reranker:
        with pytest.raises(EmbedderUnavailable):
            await reranker.check()
        await nim.rise()
        await reranker.check()
        assert reranker.spec.model == nim.model


async def test_a_hosted_model_has_one_path_and_no_other_page(nim: FakeRerankNim) -> None:
    nim.post_path = "/v1/retrieval/nvidia/llama-nemotron-rerank-vl-1b-v2/reranking"
    async with running(nim, base_url=nim.base_url + nim.post_path) as reranker:
        await reranker.check()
        assert await reranker.rerank("abc", texts("a"), RERANK) == [1]

    assert {head.split()[1] for head, _ in nim.heads} == {nim.post_path}


def test_a_hosted_model_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="set model"):
        NimReranker(NimRerankConfig(base_url="https://ai.api.nvidia.com/v1/retrieval/nvidia/x/reranking"))


def drop(answer: dict[str, Any]) -> None:
    del answer["rankings"][0]


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(answer: dict[str, Any]) -> None:
        answer["rankings"][0][key] = value

    return change


FAULTS = [
    pytest.param(Fault(status=401), CredentialRejected, id="401"),
    pytest.param(Fault(status=403), CredentialRejected, id="403"),
    pytest.param(Fault(status=404), ModelGone, id="404"),
    pytest.param(Fault(status=410), ModelGone, id="410"),
    pytest.param(Fault(status=429), EmbedderRateLimited, id="429"),
    pytest.param(Fault(status=500), EmbedderUnavailable, id="500"),
    pytest.param(Fault(status=503, headers={"Retry-After": "7"}), EmbedderUnavailable, id="503"),
    pytest.param(Fault(reset=True), EmbedderUnavailable, id="reset"),
    pytest.param(Fault(body=b"<html>"), AnswerInvalid, id="html"),
    pytest.param(Fault(body=b"[]"), AnswerInvalid, id="list"),
    pytest.param(Fault(body=b'{"rankings": [1]}'), AnswerInvalid, id="numbers"),
    pytest.param(Fault(body=b"x" * 200_000), AnswerInvalid, id="too-long"),
    pytest.param(Fault(change=drop), AnswerInvalid, id="one-missing"),
    pytest.param(Fault(change=put("index", 0)), AnswerInvalid, id="twice"),
    pytest.param(Fault(change=put("index", 2)), AnswerInvalid, id="beyond"),
    pytest.param(Fault(change=put("index", True)), AnswerInvalid, id="boolean-index"),
    pytest.param(Fault(change=put("logit", math.nan)), AnswerInvalid, id="nan"),
    pytest.param(Fault(change=put("logit", math.inf)), AnswerInvalid, id="infinite"),
    pytest.param(Fault(change=put("logit", 10**400)), AnswerInvalid, id="huge"),
    pytest.param(Fault(change=put("logit", "1")), AnswerInvalid, id="text"),
    pytest.param(Fault(change=put("logit", None)), AnswerInvalid, id="null"),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS)
async def test_every_fault_has_its_error_and_the_next_call_is_fine(
    nim: FakeRerankNim, reranker: NimReranker, fault: Fault, error: type[EmbedderError]
) -> None:
    nim.fault = fault
    with pytest.raises(error) as caught:
        await reranker.rerank("a secret query", texts("b", "secret"), RERANK)
    nim.fault = None

    assert type(caught.value) is error
    assert "secret" not in str(caught.value)
    assert await reranker.rerank("abc", texts("a"), RERANK) == [1]


def test_rankings_are_read_in_any_order() -> None:
    body = b'{"rankings": [{"index": 2, "logit": 5}, {"index": 0, "logit": -1.5}, {"index": 1, "logit": 0}]}'

    assert read_rankings(body, count=3) == [-1.5, 0, 5]


async def test_a_passing_fault_is_retried_and_the_deadline_ends_retries(nim: FakeRerankNim) -> None:
    nim.faults.extend([Fault(status=503), Fault(reset=True)])
    async with running(nim, retry_attempts=3) as reranker:
        assert await reranker.rerank("abc", texts("a"), RERANK) == [1]
        nim.fault = Fault(status=503, headers={"Retry-After": "5"})
        begin_times()
        note_deadline(4)
        asked = len(nim.requests)
        with pytest.raises(EmbedderUnavailable) as caught:
            await reranker.rerank("abc", texts("a"), RERANK)

    assert caught.value.retry_after_s == 5
    assert len(nim.requests) == asked + 1


async def test_a_slow_answer_ends_with_the_time_out(nim: FakeRerankNim) -> None:
    nim.fault = Fault(gate=asyncio.Event())
    async with running(nim, timeout_s=1) as reranker:
        with pytest.raises(EmbedderUnavailable, match="did not answer within 1 s"):
            await reranker.rerank("abc", texts("a"), RERANK)

    assert len(nim.requests) == 1


async def test_a_wait_beyond_the_time_for_retries_is_not_begun(nim: FakeRerankNim) -> None:
    nim.faults.append(Fault(status=503, headers={"Retry-After": "5"}))
    async with running(nim, retry_attempts=3, retry_max_s=4) as reranker:
        with pytest.raises(EmbedderUnavailable):
            await reranker.rerank("abc", texts("a"), RERANK)

    assert len(nim.requests) == 1


async def test_pictures_that_have_to_be_converted_are_scaled_down(nim: FakeRerankNim) -> None:
    large = Passage("", picture((0, 250, 0), size=(100, 100), file_format="BMP"))
    async with running(nim, max_converted_pixels=400) as reranker:
        assert await reranker.rerank("abc", [large], RERANK) == [25]

    url = nim.requests[0]["passages"][0]["image"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert sent.size == (20, 20)


async def test_a_check_asks_for_readiness_and_ranks_a_plain_text(nim: FakeRerankNim, reranker: NimReranker) -> None:
    await reranker.check()
    assert [each["passages"] for each in nim.requests] == [[{"text": "ready"}]]

    nim.ready = False
    with pytest.raises(EmbedderUnavailable):
        await reranker.check()


async def test_no_more_requests_run_at_once_than_connections_and_a_check_passes_them(nim: FakeRerankNim) -> None:
    gate = asyncio.Event()
    nim.faults.extend([Fault(gate=gate)] * 2)
    async with running(nim, max_connections=2) as reranker:
        calls = [asyncio.ensure_future(reranker.rerank("abc", texts("a"), RERANK)) for _ in range(6)]
        async with asyncio.timeout(60):
            while len(nim.requests) < 2:
                await asyncio.sleep(0)
        await reranker.check()
        gate.set()
        assert await asyncio.gather(*calls) == [[1]] * 6

    assert nim.most_at_once == 3


async def test_calls_in_flight_end_with_the_reranker(nim: FakeRerankNim) -> None:
    nim.fault = Fault(gate=asyncio.Event())
    async with running(nim) as reranker:
        call = asyncio.ensure_future(reranker.rerank("abc", texts("a"), RERANK))
        async with asyncio.timeout(60):
            await nim.arrived.wait()
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await call
    await reranker.close()


async def test_keys_are_sent_and_told_apart_and_never_shown() -> None:
    async with FakeRerankNim(api_key=SECRET) as nim:
        async with running(nim, api_key=SECRET) as ours:
            assert await ours.rerank("abc", texts("a"), RERANK) == [1]
        async with running(nim, api_key="wrong-key") as wrong:
            with pytest.raises(CredentialRejected) as caught:
                await wrong.rerank("abc", texts("a"), RERANK)
            assert type(caught.value) is CredentialRejected
        async with running(nim, caller_keys=True) as keyless:
            await keyless.check()
            own = RerankOptions(api_key=SECRET)
            assert await keyless.rerank("abc", texts("a"), own) == [1]
            for bad in ("other-key", "ä"):
                with pytest.raises(CallerKeyRejected) as refused:
                    await keyless.rerank("abc", texts("a"), RerankOptions(api_key=bad))
                assert bad not in str(refused.value)

    assert "wrong-key" not in str(caught.value)
    assert SECRET not in repr(ours._config)


async def test_a_built_reranker_has_a_breaker(nim: FakeRerankNim) -> None:
    reranker = build_reranker(NimRerankConfig(name="rank", base_url=nim.base_url))
    await reranker.start()
    await reranker.check()
    fault, spec = reranker.health.fault, reranker.spec
    await reranker.close()

    assert fault is None
    assert (spec.name, spec.model, spec.slots) == ("rank", nim.model, 8)


async def test_others_have_their_turn_while_many_long_texts_are_read(nim: FakeRerankNim, reranker: NimReranker) -> None:
    turns, done = 0, asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.ensure_future(others())
    requests = [each async for each in reranker._requests(texts(*["a" * 30_000] * 64), {})]
    done.set()
    await waiting

    assert [len(each) for each in requests] == [64]
    assert turns >= 8


async def test_what_is_not_started_or_closed_is_named_and_called_no_embedder(nim: FakeRerankNim) -> None:
    reranker = NimReranker(NimRerankConfig(name="rr", base_url=nim.base_url, model=nim.model))

    with pytest.raises(EmbedderUnavailable, match=r"^rr is not started$"):
        await reranker.rerank("abc", [Passage("a")], RERANK)
    await reranker.start()
    await reranker.close()
    with pytest.raises(EmbedderUnavailable, match=r"^rr is closed$"):
        await reranker.rerank("abc", [Passage("a")], RERANK)
