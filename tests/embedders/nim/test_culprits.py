"""One input that a NIM cannot embed fails alone, whatever the NIM says; a NIM that can embed nothing blames nobody."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from embedders.contract import DOCUMENT, QUERY, Input, Outcome, TextInput
from embedders.errors import AnswerInvalid, EmbedderError, EmbedderUnavailable, InputRejected
from embedders.front.batching import BatchingEmbedder
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.queueing import QueueBounds
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.embedders.nim.starting import start_learnt
from tests.embedders.suite import CAT, DOG, LIMITS, RED, vectors
from tests.fakes.nim import FakeNim, Fault

TEXTS: list[Input] = [TextInput(f"a cat on mat {number}") for number in range(64)]


@pytest.fixture
def config(nim: FakeNim) -> NimConfig:
    return NimConfig(base_url=nim.base_url, model=nim.model, limits=LIMITS, retry_attempts=1)


@pytest.fixture
async def embedder(nim: FakeNim, config: NimConfig) -> AsyncIterator[NimEmbedder]:
    embedder = NimEmbedder(config)
    await start_learnt(embedder, nim)
    yield embedder
    await embedder.close()


def rejected(outcomes: Sequence[Outcome]) -> list[int]:
    """Return the places of the inputs that were rejected."""
    return [at for at, outcome in enumerate(outcomes) if isinstance(outcome, InputRejected)]


async def test_one_input_that_is_refused_among_64_fails_alone(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.refuses = lambda item: item == "a cat on mat 41"

    outcomes = await embedder.embed(TEXTS, DOCUMENT)

    assert rejected(outcomes) == [41]
    assert len(vectors([*outcomes[:41], *outcomes[42:]])) == 63
    assert len(nim.requests) <= 14


async def test_one_input_that_the_nim_fails_on_among_64_fails_alone(nim: FakeNim, embedder: NimEmbedder) -> None:
    nim.fails = lambda item: item == "a cat on mat 41"

    outcomes = await embedder.embed(TEXTS, DOCUMENT)

    assert rejected(outcomes) == [41]
    assert len(vectors([*outcomes[:41], *outcomes[42:]])) == 63
    assert "status 500, but not on others" in str(outcomes[41])
    assert "mat" not in str(outcomes[41])
    assert len(nim.requests) <= 16


async def test_an_input_that_is_met_by_a_passing_failure_beside_a_refused_one_is_not_blamed(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    nim.refuses = lambda item: item == DOG.text
    # Both are refused, an input of ours is not, then each is asked for alone.
    nim.faults.extend([Fault(), Fault(), Fault(), Fault(status=500)])

    outcomes = await embedder.embed([DOG, CAT], QUERY)

    assert rejected(outcomes) == [0]


@pytest.mark.parametrize("inputs", [[CAT], [CAT, DOG], [RED, CAT]])
async def test_inputs_that_the_nim_fails_on_are_rejected_where_it_works_on_others(
    nim: FakeNim, embedder: NimEmbedder, inputs: list[Input]
) -> None:
    nim.fails = lambda item: item in (CAT.text, DOG.text)

    outcomes = await embedder.embed(inputs, QUERY)

    assert rejected(outcomes) == [at for at, each in enumerate(inputs) if each in (CAT, DOG)]


async def test_a_failure_of_inference_that_passes_is_not_seen_by_the_caller(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    nim.faults.append(Fault(status=500, body=b"<html>oops</html>"))

    assert len(vectors(await embedder.embed([CAT], QUERY))) == 1


@pytest.mark.parametrize("inputs", [[CAT], TEXTS])
@pytest.mark.parametrize("body", [None, b"<html><body>a cat on a mat</body></html>"])
async def test_a_nim_that_fails_on_everything_is_asked_twice_and_unavailable(
    nim: FakeNim, embedder: NimEmbedder, inputs: list[Input], body: bytes | None
) -> None:
    nim.fault = Fault(status=500, body=body)

    with pytest.raises(EmbedderUnavailable, match="status 500") as failure:
        await embedder.embed(inputs, QUERY)

    assert "mat" not in str(failure.value)
    assert len(nim.requests) == 2


async def test_a_nim_that_begins_to_fail_while_culprits_are_looked_for_blames_nobody(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    fine = Fault()
    nim.faults.extend([Fault(status=500), fine])
    nim.fault = Fault(status=500)

    with pytest.raises(EmbedderUnavailable, match="status 500"):
        await embedder.embed([CAT, DOG], QUERY)


async def test_a_nim_that_refuses_everything_is_asked_twice_and_no_input_is_blamed(
    nim: FakeNim, embedder: NimEmbedder
) -> None:
    nim.refuses = lambda _: True

    with pytest.raises(AnswerInvalid, match="not a text or an image that is taken") as failure:
        await embedder.embed(TEXTS, DOCUMENT)

    assert "mat" not in str(failure.value)
    assert len(nim.requests) == 2


async def test_callers_of_inputs_that_the_nim_fails_on_harm_nobody_else(nim: FakeNim, config: NimConfig) -> None:
    nim.fails = lambda item: "poison" in item
    rules = BreakerRules(max_failures=3)
    batching = BatchingEmbedder(NimEmbedder(config), bounds=QueueBounds(max_inputs=100, max_bytes=2**20))
    embedder = BreakerEmbedder(batching, rules)
    await start_learnt(embedder, nim)

    async def ask(text: str) -> Outcome | EmbedderError:
        (outcome,) = await embedder.embed([TextInput(text)], QUERY)
        return outcome

    # All in one turn of the event loop, so that they share a request.
    together = await asyncio.gather(*map(ask, ["poison", *(f"text {number}" for number in range(9))]))
    alone = [await ask(f"poison {number}") for number in range(5)]

    assert rejected(together) == [0]
    assert rejected(alone) == [0, 1, 2, 3, 4]
    assert not embedder.open
    await embedder.close()
