"""embed_with_first asks the next embedder of a space when one fails, and leaves it time to answer when one hangs."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from embedders.contract import (
    QUERY,
    Embedding,
    EmbedOptions,
    Input,
    Outcome,
    Priority,
    TextImageInput,
    TextInput,
    WatchedEmbedder,
)
from embedders.errors import EmbedderRateLimited, EmbedderUnavailable, InputRejected
from embedders.front.failover import ask_first, embed_with_first
from embedders.reranking import RERANK, Passage, RankOutcome, WatchedReranker
from embedders.telemetry.timing import begin_times, call_times, note_deadline
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.reranker import FakeReranker

A = [TextInput("a")]
OWN_KEY = EmbedOptions(api_key="key")


@pytest.fixture
def embedders() -> list[FakeEmbedder]:
    """Two of one space that work."""
    both = [FakeEmbedder(name="a"), FakeEmbedder(name="b")]
    for each in both:
        each.health.fault = None
    return both


def note_time(left_s: float) -> None:
    begin_times()
    note_deadline(left_s)


async def embed(embedder: WatchedEmbedder, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
    return await embedder.embed(inputs, options)


def hang(embedder: FakeEmbedder) -> None:
    embedder.gate = asyncio.Event()


async def test_one_that_hangs_has_its_share_of_the_time_and_the_next_one_answers(embedders: list[FakeEmbedder]) -> None:
    hang(embedders[0])
    note_time(0.2)

    embedder, outcomes = await embed_with_first(embedders, A, QUERY, embed=embed)

    assert embedder is embedders[1]
    assert len(outcomes) == 1
    assert (len(embedders[0].silences), embedders[1].silences) == (1, [])
    assert embedders[0].in_flight == 0


async def test_an_input_that_the_model_does_not_read_is_no_failure(embedders: list[FakeEmbedder]) -> None:
    embedder, outcomes = await embed_with_first(embedders, [TextImageInput("a", b""), *A], QUERY, embed=embed)

    assert embedder is embedders[0]
    assert [type(each) for each in outcomes] == [InputRejected, Embedding]
    assert not embedders[1].calls


async def test_what_an_embedder_is_asked_within_its_share_has_that_for_its_deadline(
    embedders: list[FakeEmbedder],
) -> None:
    embedders[0].failure = EmbedderRateLimited("busy", retry_after_s=3600)
    seen = []

    async def look(embedder: WatchedEmbedder, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        within = call_times()
        assert within is not None
        seen.append(within.deadline_s - time.monotonic())
        within.backend_s += 1
        return await embedder.embed(inputs, options)

    whole = begin_times()
    note_deadline(1000)
    await embed_with_first(embedders, A, QUERY, embed=look)

    assert 0 < seen[0] <= 500 < seen[1] <= 1000
    assert whole.backend_s == 2, "the times of all parts are the call's"


@pytest.mark.parametrize("fault", ["down", "it has not been checked yet"])
async def test_one_that_does_not_work_gets_no_share(embedders: list[FakeEmbedder], fault: str) -> None:
    hang(embedders[0])
    embedders[1].health.fault = fault
    note_time(-1)

    asking = asyncio.create_task(embed_with_first(embedders, A, QUERY, embed=embed))
    await embedders[0].entered.wait()
    assert embedders[0].gate is not None
    embedders[0].gate.set()

    assert (await asking)[0] is embedders[0]


async def test_bulk_work_has_all_the_time_there_is(embedders: list[FakeEmbedder]) -> None:
    hang(embedders[0])
    note_time(-1)

    asking = asyncio.create_task(embed_with_first(embedders, A, EmbedOptions(priority=Priority.BULK), embed=embed))
    await embedders[0].entered.wait()
    assert embedders[0].gate is not None
    embedders[0].gate.set()

    assert (await asking)[0] is embedders[0]


@pytest.mark.parametrize(("options", "told"), [(QUERY, 1), (OWN_KEY, 0)], ids=["the-server-s-key", "a-key-of-its-own"])
async def test_a_caller_that_goes_without_an_answer_is_told_of_while_another_could_answer(
    embedders: list[FakeEmbedder], options: EmbedOptions, told: int
) -> None:
    hang(embedders[0])
    asking = asyncio.create_task(embed_with_first(embedders, A, options, embed=embed))
    await embedders[0].entered.wait()

    asking.cancel()
    await asyncio.wait([asking])

    assert asking.cancelled()
    assert len(embedders[0].silences) == told
    assert not embedders[1].calls


async def test_when_all_fail_the_first_failure_is_told(embedders: list[FakeEmbedder]) -> None:
    hang(embedders[0])
    embedders[1].failure = EmbedderUnavailable("down")
    note_time(0.2)

    with pytest.raises(EmbedderUnavailable, match=r"^a did not answer within 0\.[01] s, its share of the call's time$"):
        await embed_with_first(embedders, A, QUERY, embed=embed)


async def test_a_query_that_one_reranker_refuses_is_not_sent_to_the_next_one_and_other_faults_are() -> None:
    rerankers = [FakeReranker(name="a"), FakeReranker(name="b")]
    rerankers[0].failure = EmbedderUnavailable("down")

    async def rank(reranker: WatchedReranker, query: str) -> list[RankOutcome]:
        return await reranker.rerank(query, [Passage("a")], RERANK)

    chosen, outcomes = await ask_first(rerankers, lambda each: rank(each, "a"), own_key=False)
    rerankers[0].failure = None
    with pytest.raises(InputRejected):
        await ask_first(rerankers, lambda each: rank(each, " "), own_key=False)

    assert (chosen, outcomes) == (rerankers[1], [1.0])
    assert [len(each.calls) for each in rerankers] == [2, 1]
