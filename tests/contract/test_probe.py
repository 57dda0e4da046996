"""ProvenEmbedder keeps the contract, and serves a declared space only once a probe has shown it."""

from pathlib import Path

import numpy as np
import pytest

from embedders.errors import EmbedderUnavailable, ModelUnusable, SpaceDisproved
from embedders.inputs import QUERY, TextInput
from embedders.probe import (
    PROBE_TEXT,
    ProbeVectors,
    ProvenEmbedder,
    probe_image,
    probe_vectors,
    read_probe,
    write_probe,
)
from tests.contract.embedder_suite import LIMITS, EmbedderSuite, vectors
from tests.fakes.embedder import FakeEmbedder

SPACE = "nvidia/nvclip"


def local(*, noise: float = 0.0) -> FakeEmbedder:
    """Return a local model whose vectors of the probe are those of SPACE, but for some noise."""
    truth, rng = FakeEmbedder(space=SPACE), np.random.default_rng(1)
    known = {
        content: truth.vector(content) + noise * rng.standard_normal(8).astype(np.float32)
        for content in (PROBE_TEXT, probe_image())
    }
    return FakeEmbedder(space="local", name="clip", known=known)


def proven(inner: FakeEmbedder, reference: FakeEmbedder) -> ProvenEmbedder:
    return ProvenEmbedder(inner, space=SPACE, reference=lambda: probe_vectors(reference), min_cosine=0.98)


class TestContract(EmbedderSuite):
    """The contract."""

    @pytest.fixture
    async def embedder(self) -> ProvenEmbedder:
        inner = FakeEmbedder(space="local", limits=LIMITS, max_text_tokens=32, max_batch=4)
        small = FakeEmbedder(space="local")

        async def reference() -> ProbeVectors:
            return ProbeVectors(SPACE, small.vector(PROBE_TEXT), small.vector(probe_image()))

        embedder = ProvenEmbedder(inner, space=SPACE, reference=reference, min_cosine=0.98)
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


async def test_a_space_that_is_disproved_later_is_told_as_such() -> None:
    nim = FakeEmbedder(space=SPACE)
    nim.failure = EmbedderUnavailable("down")
    embedder = proven(FakeEmbedder(space="local"), nim)
    await embedder.start()
    nim.failure = None
    with pytest.raises(SpaceDisproved):
        await embedder.embed([TextInput("a")], QUERY)


async def test_stored_vectors_stand_in_for_the_reference(tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    write_probe(file, await probe_vectors(FakeEmbedder(space=SPACE)))
    stored = read_probe(file)

    async def reference() -> ProbeVectors:
        return stored

    embedder = ProvenEmbedder(local(), space=SPACE, reference=reference, min_cosine=0.9999)
    await embedder.start()
    await embedder.check()
    other = ProvenEmbedder(local(), space="another", reference=reference, min_cosine=0.5)
    with pytest.raises(ModelUnusable, match="declared to be of another, but the probe is of nvidia/nvclip"):
        await other.start()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"space": "a", "text": [1], "image": [1, 2]}', '{"space": "a"}'])
def test_a_probe_file_of_another_form_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "probe.json"
    file.write_text(content)
    with pytest.raises(ModelUnusable, match=r"probe\.json cannot be read .* vecgate probe"):
        read_probe(file)
    with pytest.raises(ModelUnusable, match="FileNotFoundError"):
        read_probe(tmp_path / "none.json")
