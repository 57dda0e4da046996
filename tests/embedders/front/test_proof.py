"""ProvenEmbedder keeps the contract, and serves a declared space only once a probe has shown it."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedders.contract import QUERY, SEPARATE, ImageInput, Modality, TextInput, modality
from embedders.errors import (
    AnswerInvalid,
    CredentialRejected,
    EmbedderError,
    EmbedderUnavailable,
    ModelGone,
    ModelUnusable,
    SpaceDisproved,
)
from embedders.front.cache import CachingEmbedder, VectorCache
from embedders.front.proof import (
    PROBE_TEXT,
    ProbeVectors,
    ProvenEmbedder,
    probe_image,
    probe_vectors,
    read_probe,
    write_probe,
)
from tests.embedders.suite import LIMITS, EmbedderSuite, vectors
from tests.fakes.embedder import TEXT_ONLY, Content, FakeEmbedder

SPACE = "nvidia/nvclip"


def local(*, noise: float = 0.0) -> FakeEmbedder:
    """Return a local model whose vectors of the probe are those of SPACE, but for some noise."""
    truth, rng = FakeEmbedder(space=SPACE), np.random.default_rng(1)
    known = {
        content: truth.vector(content) + noise * rng.standard_normal(8).astype(np.float32)
        for content in (PROBE_TEXT, probe_image())
    }
    return FakeEmbedder(space="local", name="clip", known=known)


def proven(
    inner: FakeEmbedder, reference: FakeEmbedder, *, at_start: bool = True, timeout_s: float = 30
) -> ProvenEmbedder:
    return ProvenEmbedder(
        inner,
        space=SPACE,
        reference=lambda: probe_vectors(reference),
        min_cosine=0.98,
        outages=lambda: reference.health.outages,
        timeout_s=timeout_s,
        at_start=at_start,
    )


def proofs(reference: FakeEmbedder) -> int:
    """Return how often the reference was asked for the probe."""
    return sum(TextInput(PROBE_TEXT) in inputs for inputs, _ in reference.calls)


class TestContract(EmbedderSuite):
    """The contract."""

    @pytest.fixture
    async def embedder(self) -> ProvenEmbedder:
        inner = FakeEmbedder(space="local", limits=LIMITS, max_text_tokens=32, max_batch=4)
        small = FakeEmbedder(space="local")

        async def reference() -> ProbeVectors:
            return replace(await probe_vectors(small), space=SPACE)

        embedder = ProvenEmbedder(inner, space=SPACE, reference=reference, min_cosine=0.98, at_start=True)
        await embedder.start()
        return embedder


async def test_a_model_near_to_the_declared_space_serves_it() -> None:
    embedder = proven(local(noise=0.001), FakeEmbedder(space=SPACE))
    await embedder.start()
    assert embedder.spec.space == SPACE
    assert len(vectors(await embedder.embed([TextInput("a")], QUERY))) == 1
    await embedder.check()


async def test_a_model_of_another_space_is_refused_at_the_start_with_the_cosine() -> None:
    embedder = proven(FakeEmbedder(space="local", name="clip"), FakeEmbedder(space=SPACE))
    with pytest.raises(ModelUnusable, match=r"clip is declared .* nvidia/nvclip.* cosine -?0\.\d+, at least 0\.98"):
        await embedder.start()


async def test_a_model_of_another_dimension_is_refused() -> None:
    embedder = proven(FakeEmbedder(space="local", dimension=9), FakeEmbedder(space=SPACE))
    with pytest.raises(ModelUnusable, match="cosine"):
        await embedder.start()


async def test_until_the_reference_can_be_had_nothing_is_served_and_then_all_is() -> None:
    inner, nim = local(), FakeEmbedder(space=SPACE)
    nim.failure = EmbedderUnavailable("the NIM is down", retry_after_s=7)
    embedder = proven(inner, nim)
    await embedder.start()
    with pytest.raises(EmbedderUnavailable, match="not proven yet: the NIM is down") as failure:
        await embedder.embed([TextInput("a")], QUERY)
    assert failure.value.retry_after_s == 7
    with pytest.raises(EmbedderUnavailable):
        await embedder.check()
    assert not any(TextInput("a") in inputs for inputs, _ in inner.calls)
    nim.failure = None
    await embedder.check()
    calls = len(nim.calls)
    assert len(vectors(await embedder.embed([TextInput("a")], QUERY))) == 1
    assert len(nim.calls) == calls, "once proven, the reference is not asked again"


@pytest.mark.parametrize(
    "fault",
    [
        EmbedderUnavailable("down"),
        ModelGone("404"),
        CredentialRejected("401"),
        AnswerInvalid("HTML"),
        SpaceDisproved("it is of no such space itself"),
    ],
)
async def test_a_reference_that_fails_in_whatever_way_leaves_the_space_unproven_for_now(fault: EmbedderError) -> None:
    nim = FakeEmbedder(space=SPACE)
    nim.failure = fault
    embedder = proven(local(), nim)

    await embedder.start()
    with pytest.raises(EmbedderUnavailable, match="not proven yet"):
        await embedder.check()
    unproven = embedder.health.fault
    nim.failure = None
    await embedder.check()

    assert unproven == f"its space {SPACE} is not proven yet: {fault}"
    assert embedder.health.fault is None


async def test_a_reference_that_refuses_the_probe_proves_nothing() -> None:
    nim = FakeEmbedder(space=SPACE, limits=replace(LIMITS, max_image_bytes=10))
    embedder = proven(local(), nim)

    await embedder.start()

    assert "not proven yet: the embedder fake rejects" in (embedder.health.fault or "")


async def test_a_reference_elsewhere_is_not_asked_at_the_start_and_one_that_hangs_ends_the_proof_in_time() -> None:
    nim = FakeEmbedder(space=SPACE)
    nim.gate = asyncio.Event()
    embedder = proven(local(), nim, at_start=False, timeout_s=0.01)

    await embedder.start()
    started = embedder.health.fault
    asked = len(nim.calls)
    with pytest.raises(EmbedderUnavailable, match="not proven yet: the proof took too long"):
        await embedder.check()

    assert started == f"its space {SPACE} is not proven yet: it has not been checked yet"
    assert asked == 0


async def test_an_embedder_that_has_the_space_by_itself_needs_no_proof() -> None:
    nim = FakeEmbedder(space=SPACE)
    inner = FakeEmbedder(space=SPACE, name="other")
    embedder = proven(inner, nim, at_start=False)

    await embedder.start()
    await embedder.check()

    assert len(vectors(await embedder.embed([TextInput("a")], QUERY))) == 1
    assert embedder.health.fault is None
    assert nim.calls == []


async def test_a_model_that_is_known_later_is_proven_once_it_is_known() -> None:
    nim, inner = FakeEmbedder(space=SPACE), local()
    known, inner._spec = inner.spec, replace(inner.spec, space="", dimension=0, learnt=False)
    embedder = proven(inner, nim, at_start=False)
    await embedder.start()
    with pytest.raises(EmbedderUnavailable, match="not proven yet"):
        await embedder.embed([TextInput("a")], QUERY)

    inner._spec = known
    await embedder.check()

    assert embedder.spec.space == SPACE
    assert len(vectors(await embedder.embed([TextInput("a")], QUERY))) == 1


async def test_calls_wait_for_no_proof() -> None:
    nim = FakeEmbedder(space=SPACE)
    nim.failure = EmbedderUnavailable("down")
    embedder = proven(local(), nim)
    await embedder.start()
    asked = len(nim.calls)

    for _ in range(3):
        with pytest.raises(EmbedderUnavailable):
            await embedder.embed([TextInput("a")], QUERY)

    assert len(nim.calls) == asked


async def test_a_space_that_is_disproved_later_is_told_as_such() -> None:
    nim = FakeEmbedder(space=SPACE)
    nim.failure = EmbedderUnavailable("down")
    embedder = proven(FakeEmbedder(space="local"), nim)
    await embedder.start()
    nim.failure = None
    with pytest.raises(SpaceDisproved):
        await embedder.check()
    with pytest.raises(SpaceDisproved):
        await embedder.embed([TextInput("a")], QUERY)
    assert "cosine" in (embedder.health.fault or "")


@pytest.mark.parametrize("away", ["reference", "itself"])
async def test_the_proof_is_taken_again_when_either_side_comes_back(away: str) -> None:
    nim, inner = FakeEmbedder(space=SPACE), local()
    embedder = proven(inner, nim)
    await embedder.start()
    await embedder.check()
    before, idle_before = proofs(nim), embedder.health.last_success_s

    (nim if away == "reference" else inner).health.outages += 1
    idle_due = embedder.health.last_success_s
    await embedder.check()
    await embedder.check()

    assert (before, proofs(nim)) == (1, 2)
    assert idle_due == -math.inf, "a check is due, however busy the embedder is"
    assert idle_before > 0
    assert embedder.health.last_success_s > 0


async def test_a_model_that_was_away_itself_serves_nothing_until_it_is_proven_again() -> None:
    inner, nim = local(), FakeEmbedder(space=SPACE)
    embedder = proven(inner, nim)
    await embedder.start()
    await embedder.check()
    inner.health.outages += 1

    with pytest.raises(EmbedderUnavailable, match="it was unavailable"):
        await embedder.embed([TextInput("a")], QUERY)
    fault = embedder.health.fault
    await embedder.check()

    assert fault is not None
    assert embedder.health.fault is None
    assert len(vectors(await embedder.embed([TextInput("a")], QUERY))) == 1


async def test_while_the_reference_is_away_the_last_proof_stands() -> None:
    nim = FakeEmbedder(space=SPACE)
    embedder = proven(local(), nim)
    await embedder.start()
    nim.failure = EmbedderUnavailable("down")
    nim.health.outages += 1

    await embedder.check()

    assert embedder.health.fault is None
    assert len(vectors(await embedder.embed([TextInput("a")], QUERY))) == 1


async def test_a_reference_that_comes_back_as_another_model_stops_the_copy() -> None:
    nim = FakeEmbedder(space=SPACE)
    embedder = proven(local(), nim)
    await embedder.start()
    nim._known = {PROBE_TEXT: [1.0] * 8}
    nim.health.outages += 1

    with pytest.raises(SpaceDisproved):
        await embedder.check()

    with pytest.raises(SpaceDisproved):
        await embedder.embed([TextInput("a")], QUERY)
    assert embedder.health.fault is not None


async def test_a_proof_is_of_what_both_answer_now_and_not_of_what_the_cache_has() -> None:
    nim, inner = FakeEmbedder(space=SPACE), local()
    cached = [CachingEmbedder(each, VectorCache(100_000)) for each in (nim, inner)]
    for each in cached:
        await each.embed([TextInput(PROBE_TEXT), ImageInput(probe_image())], QUERY)
    embedder = ProvenEmbedder(cached[1], space=SPACE, reference=lambda: probe_vectors(cached[0]), min_cosine=0.98)

    await embedder.start()
    await embedder.check()

    assert (proofs(nim), proofs(inner)) == (2, 2)


async def test_no_cached_vector_of_the_space_answers_for_who_is_not_proven_to_be_of_it() -> None:
    cache, nim = VectorCache(100_000), FakeEmbedder(space=SPACE)
    await CachingEmbedder(nim, cache).embed([TextInput("a")], QUERY)
    nim.failure = EmbedderUnavailable("down")
    embedder = ProvenEmbedder(
        CachingEmbedder(local(), cache), space=SPACE, reference=lambda: probe_vectors(nim), min_cosine=0.98
    )
    await embedder.start()

    with pytest.raises(EmbedderUnavailable, match="not proven yet"):
        await embedder.embed([TextInput("a")], QUERY)

    assert embedder.health.fault is not None


async def test_stored_vectors_stand_in_for_the_reference(tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    write_probe(file, await probe_vectors(FakeEmbedder(space=SPACE)))
    stored = read_probe(file)

    async def reference() -> ProbeVectors:
        return stored

    embedder = ProvenEmbedder(local(), space=SPACE, reference=reference, min_cosine=0.9999, at_start=True)
    await embedder.start()
    await embedder.check()
    other = ProvenEmbedder(local(), space="another", reference=reference, min_cosine=0.5, at_start=True)
    with pytest.raises(ModelUnusable, match="declared to be of the space another, but the probe is of nvidia/nvclip"):
        await other.start()


ALL = frozenset(Modality)


def named_otherwise(kinds: frozenset[Modality], *, wrong: Content | None = None) -> FakeEmbedder:
    """Return a model of another space by itself, whose vectors of the probe are those of SPACE, but for a wrong one."""
    truth = FakeEmbedder(space=SPACE)
    inputs: tuple[Content, ...] = (PROBE_TEXT, probe_image(), (PROBE_TEXT, probe_image()))
    known = {each: -truth.vector(each) if each == wrong else truth.vector(each) for each in inputs}
    return FakeEmbedder(space="own", modalities=kinds, known=known)


@pytest.mark.parametrize("kinds", [TEXT_ONLY, SEPARATE, ALL])
async def test_the_probe_has_what_a_model_reads_and_a_file_keeps_it(tmp_path: Path, kinds: frozenset[Modality]) -> None:
    truth = FakeEmbedder(space=SPACE, modalities=kinds)
    file = tmp_path / "probe.json"
    write_probe(file, await probe_vectors(truth))
    stored = read_probe(file)

    async def reference() -> ProbeVectors:
        return stored

    embedder = ProvenEmbedder(named_otherwise(kinds), space=SPACE, reference=reference, min_cosine=0.9999)
    await embedder.check()

    assert embedder.health.fault is None
    assert stored.vectors.keys() == kinds
    ((inputs, _),) = truth.calls
    assert {modality(each) for each in inputs} == kinds


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PROBE_TEXT, "text"),
        (probe_image(), "image"),
        ((PROBE_TEXT, probe_image()), "text and image as one input"),
    ],
)
async def test_a_model_that_differs_in_one_kind_of_input_is_refused_by_it(content: Content, words: str) -> None:
    other = named_otherwise(ALL, wrong=content)
    embedder = proven(other, FakeEmbedder(space=SPACE, modalities=ALL))

    with pytest.raises(ModelUnusable, match=f"its vector of the probe's {words} is far"):
        await embedder.start()


async def test_a_model_that_reads_less_than_the_reference_is_proven_by_what_it_reads() -> None:
    embedder = proven(named_otherwise(TEXT_ONLY), FakeEmbedder(space=SPACE, modalities=ALL))

    await embedder.start()

    assert embedder.health.fault is None


async def test_a_model_that_reads_more_than_the_reference_is_not_proven() -> None:
    embedder = proven(named_otherwise(ALL), FakeEmbedder(space=SPACE, modalities=SEPARATE))

    with pytest.raises(ModelUnusable, match="embeds text and image as one input, but the probe of that space has none"):
        await embedder.start()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"space": "a", "text": [1], "image": [1, 2]}', '{"space": "a"}'])
def test_a_probe_file_of_another_form_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "probe.json"
    file.write_text(content)
    with pytest.raises(ModelUnusable, match=r"probe\.json cannot be read .* vecgate probe"):
        read_probe(file)
    with pytest.raises(ModelUnusable, match="FileNotFoundError"):
        read_probe(tmp_path / "none.json")
