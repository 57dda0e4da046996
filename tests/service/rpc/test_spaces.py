"""Embedders that the settings declare to be of a space, over a real NIM's protocol: who serves, and who does not."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from embedders.contract import QUERY, Embedding, TextInput
from embedders.errors import EmbedderUnavailable, ModelGone, SpaceDisproved
from embedders.front.proof import probe_vectors, write_probe
from embedders.nim.embedder import NimConfig, NimEmbedder
from service.core.embedder_pool import EmbedderPool
from service.settings import load_settings
from service.wiring import build_embedders
from tests.fakes.nim import FakeNim, Fault

SPACE = "nvidia/nvclip"
DIMENSION = 1024
OWN_NAME = "nvidia/nvclip-vit-h-14"


@asynccontextmanager
async def started() -> AsyncIterator[EmbedderPool]:
    """Start the embedders of the settings."""
    pool = EmbedderPool(build_embedders(load_settings()), check_interval_s=3600)
    try:
        await pool.start()
        await pool.first_checks()
        yield pool
    finally:
        await pool.close()


@pytest.fixture
async def probe_file(tmp_path: Path) -> Path:
    """What a NIM of the space made of the probe."""
    file = tmp_path / "probe.json"
    async with FakeNim(dimension=DIMENSION) as nim:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, model=nim.model))
        await embedder.start()
        write_probe(file, await probe_vectors(embedder))
        await embedder.close()
    return file


@pytest.fixture
async def nim(monkeypatch: pytest.MonkeyPatch, probe_file: Path) -> AsyncIterator[FakeNim]:
    """A NIM that calls the model by another name, declared to be of the space."""
    async with FakeNim(model=OWN_NAME, dimension=DIMENSION) as nim:
        monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
        monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__BASE_URL", nim.base_url)
        monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__MODEL", OWN_NAME)
        monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__SPACE", SPACE)
        monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__PROBE_FILE", str(probe_file))
        yield nim


def change(answer: dict[str, object]) -> None:
    """Make other vectors of unit length of an answer's."""
    for each in answer["data"]:  # type: ignore[attr-defined]
        each["embedding"] = [1.0] + [0.0] * (DIMENSION - 1)


async def test_a_nim_with_another_name_for_the_model_serves_the_declared_space(nim: FakeNim) -> None:
    async with started() as pool:
        (outcome,) = await pool.embed(pool.default, [TextInput("a cat")], QUERY)

        assert isinstance(outcome, Embedding)
        assert (pool.default.spec.space, pool.default.spec.model) == (SPACE, OWN_NAME)
        assert pool.fault(pool.default) is None
    assert nim.requests[-1]["model"] == OWN_NAME


async def test_a_nim_of_another_space_than_the_declared_one_serves_nothing_and_says_why(nim: FakeNim) -> None:
    nim.fault = Fault(change=change)

    async with started() as pool:
        with pytest.raises(SpaceDisproved):
            await pool.embed(pool.default, [TextInput("a cat")], QUERY)
        fault = pool.fault(pool.default)

    assert re.match(r"nim is declared to be of the space nvidia/nvclip.* cosine", fault or "")


async def test_a_nim_that_comes_back_as_another_model_serves_no_more(nim: FakeNim) -> None:
    async with started() as pool:
        await nim.die()
        await pool._check(pool.default)
        down = pool.fault(pool.default)
        nim.fault = Fault(change=change)
        await nim.rise()
        with pytest.raises(ModelGone):
            await pool.default._inner.check()  # type: ignore[attr-defined]  # behind its breaker
        await pool._check(pool.default)

        assert down == "the NIM cannot be reached"
        assert "cosine" in (pool.fault(pool.default) or "")


@pytest.mark.parametrize(
    "fault", [Fault(status=404), Fault(status=401), Fault(body=b"<html>")], ids=["404", "401", "html"]
)
async def test_a_local_copy_waits_for_a_nim_that_answers_something_else_and_the_server_starts(
    monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    async with FakeNim(dimension=DIMENSION) as nim:
        monkeypatch.setenv("VECGATE_EMBEDDER__ORDER", "nim,clip")
        monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
        monkeypatch.setenv("VECGATE_EMBEDDERS__CLIP__KIND", "clip")
        monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__BASE_URL", nim.base_url)
        monkeypatch.setenv("VECGATE_EMBEDDERS__CLIP__SPACE", SPACE)
        nim.fault = fault
        async with started() as pool:
            clip = pool.get("clip")

            assert (pool.fault(clip) or "").startswith(f"its space {SPACE} is not proven yet: ")
            with pytest.raises(EmbedderUnavailable):
                await pool.embed(clip, [TextInput("a cat")], QUERY)


BF16, NVFP4 = "nvidia/Nemotron-3.5-Embed-1B-BF16", "nvidia/Nemotron-3.5-Embed-1B-NVFP4"


async def test_a_fleet_of_one_model_in_two_precisions_is_one_space_when_it_is_declared_and_proven(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with FakeNim(model=BF16) as first, FakeNim(model=NVFP4) as other:
        embedder = NimEmbedder(NimConfig(base_url=first.base_url, dimensions=8))
        await embedder.start()
        write_probe(tmp_path / "probe.json", await probe_vectors(embedder))
        await embedder.close()
        monkeypatch.setenv("VECGATE_EMBEDDER__ORDER", "hopper,blackwell")
        for name, nim in (("HOPPER", first), ("BLACKWELL", other)):
            monkeypatch.setenv(f"VECGATE_EMBEDDERS__{name}__KIND", "nim")
            monkeypatch.setenv(f"VECGATE_EMBEDDERS__{name}__BASE_URL", nim.base_url)
            monkeypatch.setenv(f"VECGATE_EMBEDDERS__{name}__DIMENSIONS", "8")
        monkeypatch.setenv("VECGATE_EMBEDDERS__BLACKWELL__SPACE", f"{BF16}@8")
        monkeypatch.setenv("VECGATE_EMBEDDERS__BLACKWELL__PROBE_FILE", str(tmp_path / "probe.json"))
        async with started() as pool:
            for embedder in pool.all:
                await pool._check(embedder)
            both = pool.of_space(f"{BF16}@8")
            answered = [(await pool.embed_with_first(both, [TextInput("a cat")], QUERY))[0].spec]
            await first.die()
            answered.append((await pool.embed_with_first(both, [TextInput("a dog")], QUERY))[0].spec)

    assert [(each.name, each.model, each.dimension) for each in answered] == [
        ("hopper", BF16, 8),
        ("blackwell", NVFP4, 8),
    ]
