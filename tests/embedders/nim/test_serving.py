"""The model's name and dimension are learnt from the NIM, and a NIM that comes back as another model is refused."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedders.contract import QUERY
from embedders.errors import AnswerInvalid, EmbedderError, EmbedderUnavailable, ModelGone, ModelUnusable
from embedders.factory import build_embedder
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.cache import VectorCache
from embedders.front.queueing import QueueBounds
from embedders.nim.embedder import NimConfig, NimEmbedder
from embedders.nim.serving import NAME_LENGTH, NAMES_SHOWN, choose_model, read_models
from tests.embedders.nim.starting import start_learnt
from tests.embedders.suite import CAT, DOG, LIMITS, MIXED, vectors
from tests.fakes.nim import FakeNim, Fault

BF16, NVFP4 = "nvidia/Nemotron-3.5-Embed-1B-BF16", "nvidia/Nemotron-3.5-Embed-1B-NVFP4"
CLIP = "nvidia/nvclip"
OTHER = "somebody/multimodal"


@asynccontextmanager
async def running(nim: FakeNim, **changes: Any) -> AsyncIterator[NimEmbedder]:
    config = NimConfig(base_url=nim.base_url, limits=LIMITS, retry_attempts=1)
    embedder = NimEmbedder(replace(config, **changes))
    await start_learnt(embedder, nim)
    try:
        yield embedder
    finally:
        await embedder.close()


async def outage(nim: FakeNim, embedder: NimEmbedder) -> None:
    """Make a NIM be gone for a call."""
    await nim.die()
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed([CAT], QUERY)
    await nim.rise()


@pytest.mark.parametrize("model", [CLIP, BF16, OTHER])
async def test_a_model_that_is_not_set_is_the_one_that_the_nim_serves(model: str) -> None:
    async with FakeNim(model=model, dimension=24) as nim:
        before = NimEmbedder(NimConfig(base_url=nim.base_url)).spec
        async with running(nim) as embedder:
            spec = embedder.spec
            assert vectors(await embedder.embed(MIXED, QUERY)).shape == (4, 24)

    assert (before.model, before.space, before.dimension) == ("", "", 0)
    assert (spec.model, spec.space, spec.dimension) == (model, model, 24)


@pytest.mark.parametrize("model", [BF16.lower(), BF16.upper(), BF16])
async def test_a_name_in_other_letters_is_sent_as_the_nim_spells_it_and_is_its_space(model: str) -> None:
    async with FakeNim(model=BF16) as nim, running(nim, model=model) as embedder:
        assert (embedder.spec.model, embedder.spec.space) == (BF16, BF16)
        await embedder.embed([CAT], QUERY)

        assert {request["model"] for request in nim.requests} == {BF16}


@pytest.mark.parametrize("model", [NVFP4, "nvidia/nemotron-3.5-embed-1b", "Nemotron-3.5-Embed-1B-BF16"])
async def test_a_name_with_another_precision_or_publisher_is_another_model(model: str) -> None:
    async with FakeNim(model=BF16) as nim, running(nim, model=model) as embedder:
        with pytest.raises(ModelGone, match=f"does not serve the model {model}; it serves {BF16}"):
            await embedder.check()


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [
        ([OTHER], OTHER),
        ([BF16], BF16),
        (["meta/llama-3.1-8b-instruct", BF16, "nvidia/Nemotron-3.5-Rerank-8B-BF16"], BF16),
        ([f"nvidia/nv-embedqa-e5-v5{end}" for end in ("", "-query", "-passage")], "nvidia/nv-embedqa-e5-v5"),
    ],
)
async def test_of_several_models_the_only_one_of_a_known_family_is_used(listed: list[str], chosen: str) -> None:
    assert choose_model("", listed) == chosen


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ([BF16, NVFP4, "meta/llama"], f"serves several models, {BF16}, {NVFP4}; set model"),
        (["a/one", "a/two"], "serves several models, a/one, a/two; set model"),
        ([f"a/{number}" for number in range(9)], "a/0, a/1, a/2, a/3, a/4 and 4 more; set model"),
        ([], "lists no model at /v1/models; set model"),
        (None, "lists no model at /v1/models; set model"),
    ],
)
async def test_a_list_that_does_not_tell_the_model_is_a_fault_that_names_what_there_is(
    listed: list[str] | None, words: str
) -> None:
    async with FakeNim(model=BF16) as nim:
        nim.listed = listed
        async with running(nim) as embedder:
            with pytest.raises(ModelUnusable, match=words):
                await embedder.check()
            with pytest.raises(ModelUnusable, match=words):
                await embedder.embed([CAT], QUERY)
        assert nim.requests == []
    assert NAMES_SHOWN == 5


@pytest.mark.parametrize("listed", [None, [], ["something/else"]])
async def test_a_model_that_is_set_needs_no_list(listed: list[str] | None) -> None:
    async with FakeNim(model=BF16) as nim:
        nim.listed = listed
        async with running(nim, model=BF16) as embedder:
            assert embedder.spec.dimension == 16


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", []),
        (b"[" * 100_000, []),
        (b"null", []),
        (b'{"data": {}}', []),
        (b'{"data": [1, {}, {"id": 2}, {"id": ""}, {"id": "a\\nb"}, {"id": "ok"}]}', ["ok"]),
        (json.dumps({"data": [{"id": "x" * NAME_LENGTH}, {"id": "x" * (NAME_LENGTH + 1)}]}).encode(), ["x" * 200]),
    ],
)
def test_a_list_of_models_is_read_as_far_as_it_is_one(body: bytes, names: list[str]) -> None:
    assert read_models(body) == names


@pytest.mark.parametrize(("model", "most"), [(CLIP, 64), (BF16, 1024), (OTHER, 1024)])
async def test_what_is_set_and_does_not_fit_the_served_model_is_told(model: str, most: int) -> None:
    async with FakeNim(model=model) as nim, running(nim, max_batch=most + 1) as embedder:
        with pytest.raises(ModelUnusable, match=rf"serves {model}: max_batch is {most + 1}; .* takes 1 to {most} "):
            await embedder.check()


async def test_an_embedder_that_started_before_its_nim_learns_with_the_first_call() -> None:
    async with FakeNim(model=BF16, dimension=24) as nim:
        await nim.die()
        async with running(nim) as embedder:
            with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
                await embedder.embed([CAT], QUERY)
            assert embedder.spec.dimension == 0
            await nim.rise()

            assert vectors(await embedder.embed([CAT], QUERY)).shape == (1, 24)
            assert (embedder.spec.space, embedder.spec.dimension) == (BF16, 24)


async def test_a_nim_that_comes_back_as_it_was_is_used_on() -> None:
    async with FakeNim(model=BF16) as nim, running(nim) as embedder:
        await outage(nim, embedder)

        assert len(vectors(await embedder.embed([CAT], QUERY))) == 1


@pytest.mark.parametrize("listed", [None, []])
async def test_a_list_that_is_gone_after_an_outage_says_nothing_of_the_model(listed: list[str] | None) -> None:
    async with FakeNim(model=BF16) as nim, running(nim, model=BF16) as embedder:
        await outage(nim, embedder)
        nim.listed = listed

        assert len(vectors(await embedder.embed([CAT], QUERY))) == 1


@pytest.mark.parametrize("asked", ["embed", "check"])
@pytest.mark.parametrize("model", [None, BF16])
@pytest.mark.parametrize("now", [NVFP4, CLIP, OTHER])
async def test_a_nim_that_comes_back_with_another_model_is_refused_until_the_former_one_is_back(
    now: str, model: str | None, asked: str
) -> None:
    async with FakeNim(model=BF16) as nim, running(nim, model=model) as embedder:
        await outage(nim, embedder)
        nim.become(now)

        for _ in range(2):
            with pytest.raises(ModelGone, match=f"serves {now} now instead of {BF16}; its vectors must not meet"):
                await (embedder.check() if asked == "check" else embedder.embed([CAT], QUERY))
        assert embedder.spec.space == BF16

        nim.become(BF16)
        assert len(vectors(await embedder.embed([CAT], QUERY))) == 1


async def test_a_nim_that_comes_back_with_another_dimension_is_refused() -> None:
    async with FakeNim(model=OTHER) as nim, running(nim) as embedder:
        await outage(nim, embedder)
        nim.dimension = 24

        with pytest.raises(ModelGone, match=r"vectors of 24 values, and of 16 before"):
            await embedder.embed([CAT], QUERY)


async def test_a_dimension_that_changes_without_an_outage_is_refused_too() -> None:
    async with FakeNim(model=OTHER) as nim, running(nim) as embedder:
        nim.dimension = 24

        with pytest.raises(AnswerInvalid, match="24 values; 16 are expected"):
            await embedder.embed([CAT], QUERY)
        with pytest.raises(ModelGone, match="24 values, and of 16 before"):
            await embedder.embed([CAT], QUERY)


class Renamed(FakeNim):
    """A NIM whose model's weights change while its name stays."""

    weights = BF16

    def _row(self, content: Any, role: str | None) -> Any:
        name, self.model = self.model, self.weights
        try:
            return super()._row(content, role)
        finally:
            self.model = name


@pytest.mark.parametrize("gone", [True, False])
async def test_other_weights_under_the_same_name_are_refused_and_another_precision_is_not(*, gone: bool) -> None:
    async with Renamed(model=BF16) as nim, running(nim) as embedder:
        nim.weights = NVFP4
        await embedder.check()
        nim.weights = "nvidia/Nemotron-3.5-Embed-8B-BF16"
        if gone:
            await outage(nim, embedder)

        for ask in (embedder.check, lambda: embedder.embed([CAT], QUERY)):
            with pytest.raises(
                ModelGone, match=r"vector of one text is not what it was: cosine -?0\.\d\d; its vectors"
            ):
                await ask()


async def test_a_nim_that_answers_under_another_name_is_checked_before_its_vectors_are_used() -> None:
    def rename(answer: dict[str, Any]) -> None:
        answer["model"] = "alias"

    async with FakeNim(model=BF16) as nim, running(nim) as embedder:
        nim.fault = Fault(change=rename)

        with pytest.raises(EmbedderUnavailable, match="answers as alias and not as"):
            await embedder.embed([CAT], QUERY)
        assert len(vectors(await embedder.embed([CAT, DOG], QUERY))) == 2


@pytest.mark.parametrize("fault", [Fault(status=429), Fault(status=422), Fault(status=500)])
async def test_a_nim_that_was_busy_or_refused_an_input_is_not_asked_again_for_its_model(fault: Fault) -> None:
    async with FakeNim(model=BF16) as nim, running(nim) as embedder:
        nim.forget()
        nim.faults.append(fault)
        with suppress(EmbedderError):
            await embedder.embed([CAT], QUERY)
        await embedder.embed([CAT], QUERY)

        assert [line for line, _ in nim.heads if "models" in line] == []


async def test_the_fault_of_a_nim_that_changed_is_its_health() -> None:
    async with FakeNim(model=BF16) as nim:
        config = NimConfig(base_url=nim.base_url, retry_attempts=1)
        embedder = BreakerEmbedder(NimEmbedder(config), BreakerRules())
        await embedder.start()
        await embedder.check()
        await nim.die()
        with pytest.raises(EmbedderUnavailable):
            await embedder.check()
        nim.become(NVFP4)
        await nim.rise()
        with pytest.raises(ModelGone):
            await embedder.check()
        await embedder.close()

    assert embedder.health.fault is not None
    assert f"serves {NVFP4} now instead of {BF16}" in embedder.health.fault


async def test_two_nims_that_are_not_learnt_yet_share_no_cached_vector() -> None:
    cache = VectorCache(2**20)
    async with FakeNim(model=BF16) as one, FakeNim(model=OTHER) as other:
        nims = (one, other)
        for nim in nims:
            await nim.die()
        configs = [NimConfig(name=f"nim-{at}", base_url=nim.base_url, retry_attempts=1) for at, nim in enumerate(nims)]
        embedders = [
            build_embedder(config, bounds=QueueBounds(max_inputs=100, max_bytes=2**20), cache=cache)
            for config in configs
        ]
        for embedder, nim in zip(embedders, nims, strict=True):
            await embedder.start()
            await nim.rise()
        first, second = [vectors(await embedder.embed([CAT], QUERY))[0] for embedder in embedders]
        for embedder in embedders:
            await embedder.close()

        np.testing.assert_allclose(first, one.vector(CAT.text, "query"), atol=1e-6)
        np.testing.assert_allclose(second, other.vector(CAT.text), atol=1e-6)
