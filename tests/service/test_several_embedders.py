"""Several embedders of every kind in one server, built from settings, over real sockets and with real small models."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from embedders.contract import NOT_CHECKED, QUERY, Embedding, TextInput, Vector, WatchedEmbedder
from embedders.errors import EmbedderUnavailable
from service.core.embedder_pool import EmbedderPool
from service.domain import NamedVector, Space
from service.settings import load_settings
from service.wiring import build_embedders, replicas
from tests.fakes.models import in_process, loaded
from tests.fakes.nim import FakeNim
from tests.fakes.tiny_clip import write_tiny_clip

BF16, NVFP4 = "nvidia/Nemotron-3.5-Embed-1B-BF16", "nvidia/Nemotron-3.5-Embed-1B-NVFP4"


def configured(monkeypatch: pytest.MonkeyPatch, order: str, **fields: str) -> None:
    """Set fields of embedders, such as A__KIND."""
    monkeypatch.setenv("VECGATE_EMBEDDER__ORDER", order)
    for name, value in fields.items():
        monkeypatch.setenv(f"VECGATE_EMBEDDERS__{name}", value)


@asynccontextmanager
async def started() -> AsyncIterator[EmbedderPool]:
    settings = load_settings()
    pool = EmbedderPool(build_embedders(settings), replicas=replicas(settings), check_interval_s=3600)
    try:
        await pool.start()
        yield pool
    finally:
        await pool.close()


async def checked(pool: EmbedderPool, *names: str) -> None:
    """Check some embedders, in this order."""
    for name in names:
        await pool._check(pool.get(name))


async def vector(pool: EmbedderPool, name: str, text: str = "a red bicycle") -> Vector:
    (outcome,) = await pool.embed(pool.get(name), [TextInput(text)], QUERY)
    assert isinstance(outcome, Embedding)
    return outcome.vector


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("down", ["silent", "refusing"])
async def test_with_one_of_three_nims_down_the_start_ends_before_any_has_answered_and_health_tells_the_truth(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, down: str
) -> None:
    async with FakeNim() as one, FakeNim(model=BF16) as other:
        addresses = {"ONE": one.base_url, "DOWN": request.getfixturevalue(down), "OTHER": other.base_url}
        fields = {f"{name}__BASE_URL": url for name, url in addresses.items()}
        configured(monkeypatch, "down,one,other", **fields, **{f"{name}__KIND": "nim" for name in addresses})
        async with started() as pool:
            at_once = [pool.fault(each) for each in pool.all]
            asked = len(one.requests) + len(other.requests)
            await checked(pool, "one", "other")
            faults = {each.spec.name: pool.fault(each) for each in pool.all}
            models = [each.spec.model for each in pool.all]
            with pytest.raises(EmbedderUnavailable, match="the model of down is not known yet"):
                pool.for_vector("Things", NamedVector("v", Space("of nobody here", 16, "m")))

    assert at_once == [NOT_CHECKED] * 3
    assert asked == 0
    assert faults.pop("down") is not None
    assert faults == {"one": None, "other": None}
    assert models == ["", "nvidia/nvclip", BF16]


async def test_one_model_under_two_ids_is_one_space_once_the_probe_has_shown_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeNim(model=BF16) as first, FakeNim(model=NVFP4) as second:
        configured(
            monkeypatch,
            "old,new",
            OLD__KIND="nim",
            OLD__BASE_URL=first.base_url,
            NEW__KIND="nim",
            NEW__BASE_URL=second.base_url,
            NEW__SPACE=BF16,
        )
        async with started() as pool:
            with pytest.raises(EmbedderUnavailable, match="is not proven yet"):
                await vector(pool, "new")
            await checked(pool, "old", "new")
            near = float(await vector(pool, "old") @ await vector(pool, "new"))
            together = [each.spec.name for each in pool.of_space(BF16)]
            answered = {each.spec.name: each.spec.model for each in pool.all}
            await first.die()
            embedder, _ = await pool.embed_with_first(pool.of_space(BF16), [TextInput("a dog")], QUERY)

    assert 0.98 < near < 0.9999, "each embeds by itself, and neither answers with the other's vectors"
    assert together == ["old", "new"]
    assert answered == {"old": BF16, "new": NVFP4}
    assert embedder.spec.name == "new"


@pytest.mark.parametrize("declared", ["both", "the first"])
async def test_a_space_may_be_declared_for_the_embedder_that_has_it_too(
    monkeypatch: pytest.MonkeyPatch, declared: str
) -> None:
    async with FakeNim(model=BF16) as first, FakeNim(model=NVFP4) as second:
        configured(
            monkeypatch,
            "old,new",
            OLD__KIND="nim",
            OLD__BASE_URL=first.base_url,
            OLD__SPACE=BF16,
            NEW__KIND="nim",
            NEW__BASE_URL=second.base_url,
            **({"NEW__SPACE": BF16} if declared == "both" else {}),
        )
        async with started() as pool:
            await checked(pool, "old", "new")
            faults = [pool.fault(each) for each in pool.all]
            spaces = [each.spec.space for each in pool.all]

    assert faults == [None, None]
    assert spaces == [BF16, BF16 if declared == "both" else NVFP4]


async def test_a_nim_of_another_model_is_not_of_the_declared_space_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeNim(model=BF16) as first, FakeNim(model="nvidia/nvclip") as second:
        configured(
            monkeypatch,
            "old,new",
            OLD__KIND="nim",
            OLD__BASE_URL=first.base_url,
            NEW__KIND="nim",
            NEW__BASE_URL=second.base_url,
            NEW__SPACE=BF16,
        )
        async with started() as pool:
            await checked(pool, "old", "new")
            fault = pool.fault(pool.get("new"))
            works = pool.fault(pool.get("old"))

    assert fault is not None
    assert fault.startswith(f"new is declared to be of the space {BF16}, but its vector of the probe's text is far")
    assert works is None


async def test_embedders_of_one_model_with_different_dimensions_mix_neither_vectors_nor_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeNim(model=BF16) as nim:
        configured(
            monkeypatch,
            "whole,short",
            WHOLE__KIND="nim",
            WHOLE__BASE_URL=nim.base_url,
            SHORT__KIND="nim",
            SHORT__BASE_URL=nim.base_url,
            SHORT__DIMENSIONS="8",
        )
        async with started() as pool:
            await checked(pool, "whole", "short")
            specs = [(each.spec.space, each.spec.dimension) for each in pool.all]
            first = [await vector(pool, name) for name in ("whole", "short")]
            asked = len(nim.requests)
            again = [await vector(pool, name) for name in ("whole", "short")]
            repeated = len(nim.requests) - asked

    assert specs == [(BF16, 16), (f"{BF16}@8", 8)]
    assert [len(each) for each in first] == [16, 8]
    assert [len(each) for each in again] == [16, 8]
    assert repeated == 0, "each has its vectors in the cache"


async def test_one_local_model_that_runs_out_of_memory_takes_the_other_not_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    two_local_models(monkeypatch, tmp_path)
    monkeypatch.setattr("embedders.clip.ClipEmbedder", in_process)
    async with started() as pool:
        expected = {name: await vector(pool, name) for name in ("bundled", "tiny")}
        with monkeypatch.context() as patch:
            patch.setattr(loaded(clip_of(pool, "tiny")).replica, "encode_texts", fail)
            with pytest.raises(EmbedderUnavailable):
                await vector(pool, "tiny", "another text")
            await checked(pool, "tiny", "bundled")
            faults = [pool.fault(each) for each in pool.all]
            meanwhile = await vector(pool, "bundled", "another text")
        await checked(pool, "tiny")
        recovered = pool.fault(pool.get("tiny"))
        after = {name: await vector(pool, name) for name in ("bundled", "tiny")}

    assert [len(each) for each in expected.values()] == [1024, 24]
    assert faults[0] is None
    assert faults[1] is not None
    assert meanwhile.shape == (1024,)
    assert recovered is None
    for name, each in expected.items():
        np.testing.assert_array_equal(after[name], each)


async def test_one_local_model_whose_processes_are_killed_takes_the_other_not_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two_local_models(monkeypatch, tmp_path)
    async with started() as pool:
        expected = {name: await vector(pool, name) for name in ("bundled", "tiny")}
        loader = clip_of(pool, "tiny")._processes._loaders[0]._process
        os.killpg(loader.pid, signal.SIGKILL)
        await loader.wait()
        meanwhile = await vector(pool, "bundled", "another text")
        await checked(pool, "tiny", "bundled")
        faults = [pool.fault(each) for each in pool.all]
        while pool.fault(pool.get("tiny")) is not None:
            await asyncio.sleep(0.1)
            await checked(pool, "tiny")
        after = {name: await vector(pool, name) for name in ("bundled", "tiny")}

    assert faults[0] is None
    assert faults[1] is not None
    assert meanwhile.shape == (1024,)
    for name, each in expected.items():
        np.testing.assert_array_equal(after[name], each)


def two_local_models(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    write_tiny_clip(folder / "tiny")
    configured(
        monkeypatch,
        "bundled,tiny",
        BUNDLED__KIND="clip",
        TINY__KIND="clip",
        TINY__MODEL=str(folder / "tiny"),
    )


def clip_of(pool: EmbedderPool, name: str) -> Any:
    """Return the local model behind everything that stands in front of it."""
    return pool.get(name).specified_by  # type: ignore[attr-defined]


async def test_the_same_local_model_twice_is_two_embedders_of_one_space(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_tiny_clip(tmp_path / "tiny")
    configured(
        monkeypatch,
        "first,second",
        FIRST__KIND="clip",
        FIRST__MODEL=str(tmp_path / "tiny"),
        SECOND__KIND="clip",
        SECOND__MODEL=str(tmp_path / "tiny"),
    )
    async with started() as pool:
        await checked(pool, "first", "second")
        vectors = [await vector(pool, name) for name in ("first", "second")]
        (space,) = {each.spec.space for each in pool.all}
        names = [each.spec.name for each in pool.of_space(space)]

    assert names == ["first", "second"]
    np.testing.assert_array_equal(*vectors)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("checks-")]


def names(embedders: Sequence[WatchedEmbedder]) -> list[str]:
    return [each.spec.name for each in embedders]


@pytest.mark.parametrize("name", ["", "open"])
async def test_the_name_of_a_nim_means_all_its_addresses_and_that_of_one_address_means_that_one(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with FakeNim() as first, FakeNim() as second:
        urls = f"{first.base_url},{second.base_url}"
        configured(monkeypatch, "open", OPEN__KIND="nim", OPEN__BASE_URL=urls)
        async with started() as pool:
            await checked(pool, "open", "open-2")
            all_up, _ = await pool.embed_with_first(pool.asked_for(name), [TextInput("a")], QUERY)
            await first.die()
            one_down, _ = await pool.embed_with_first(pool.asked_for(name), [TextInput("b")], QUERY)
            meant = names(pool.asked_for(name)), names(pool.asked_for("open-2"))

    assert names([all_up, one_down]) == ["open", "open-2"]
    assert meant == (["open", "open-2"], ["open-2"])


@pytest.mark.parametrize("name", ["", "open"])
async def test_an_address_that_has_never_answered_is_stood_in_for_until_it_does(
    monkeypatch: pytest.MonkeyPatch, refusing: str, name: str
) -> None:
    async with FakeNim() as second:
        configured(monkeypatch, "open", OPEN__KIND="nim", OPEN__BASE_URL=f"{refusing},{second.base_url}")
        async with started() as pool:
            unknown = names(pool.asked_for(name))
            await checked(pool, "open", "open-2")
            answered, _ = await pool.embed_with_first(pool.asked_for(name), [TextInput("a")], QUERY)

    assert (unknown, names([answered])) == (["open"], ["open-2"])


async def test_addresses_that_serve_two_models_never_stand_in_for_each_other_and_one_warning_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeNim(model=BF16) as first, FakeNim(model=NVFP4) as second:
        urls = f"{first.base_url},{second.base_url}"
        configured(monkeypatch, "open,clip", OPEN__KIND="nim", OPEN__BASE_URL=urls, CLIP__KIND="clip")
        with capture_logs() as logs:
            async with started() as pool:
                await pool.first_checks()
                await checked(pool, "open", "open-2")
                meant = [names(pool.asked_for(name)) for name in ("", "open", "open-2", "clip")]
                why = [pool.why_apart(each) for each in pool.all]
    told = [line for line in logs if line["event"] == "addresses_of_two_spaces"]

    assert meant == [["open"], ["open"], ["open-2"], ["clip"]]
    assert [line["embedder"] for line in told] == ["open-2"]
    assert (why[0], why[1], why[2]) == (None, told[0]["reason"], None)
    for part in (BF16, NVFP4, "VECGATE_EMBEDDERS__OPEN__SPACE"):
        assert part in told[0]["reason"]


async def test_addresses_of_one_declared_space_stand_in_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeNim(model=BF16) as first, FakeNim(model=NVFP4) as second:
        urls = f"{first.base_url},{second.base_url}"
        configured(monkeypatch, "open", OPEN__KIND="nim", OPEN__BASE_URL=urls, OPEN__SPACE=BF16)
        async with started() as pool:
            await checked(pool, "open", "open-2")
            meant = names(pool.asked_for("open"))
            why = [pool.why_apart(each) for each in pool.all]

    assert (meant, why) == (["open", "open-2"], [None, None])
