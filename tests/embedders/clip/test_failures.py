"""What goes wrong in ClipEmbedder's threads costs one call, and no hang."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedders.clip import ClipConfig, ClipEmbedder, loading
from embedders.clip.replica import Replica
from embedders.clip.worker import Worker
from embedders.contract import DOCUMENT, QUERY, EmbedOptions, Priority, Purpose, TextInput
from embedders.errors import AnswerInvalid, EmbedderUnavailable, InputRejected, ModelUnusable
from tests.embedders.suite import CAT, DOG, MIXED, vectors
from tests.fakes.tiny_clip import write_tiny_clip

BULK = EmbedOptions(Purpose.DOCUMENT, Priority.BULK)


PROBES = [TextInput(text, truncate=True) for text in loading.PROBE_TEXTS]
LONG = TextInput("a very long text of a dog")


def has(texts: Any, one: TextInput) -> bool:
    """Return whether texts that have been read have one of so many words."""
    return any(each.count == len(one.text.split()) + 2 for each in texts)


def patch_texts(monkeypatch: pytest.MonkeyPatch, embedder: ClipEmbedder, wrap: Callable[[Any], Any]) -> None:
    """Put a function around what encodes texts; it gets the real one."""
    replica = embedder._devices[0].replica
    monkeypatch.setattr(replica, "encode_texts", wrap(replica.encode_texts))


async def test_a_forward_pass_that_raises_fails_its_call_and_not_the_next(
    embedder: ClipEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch_texts(patch, embedder, lambda _: lambda _: 1 / 0)
        with pytest.raises(EmbedderUnavailable, match="ZeroDivisionError"):
            await embedder.embed(MIXED, QUERY)
        with pytest.raises(EmbedderUnavailable, match="ZeroDivisionError"):
            await embedder.check()
    assert len(vectors(await embedder.embed(MIXED, QUERY))) == 4
    await embedder.check()


async def test_an_input_at_which_the_model_fails_fails_alone(
    embedder: ClipEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = vectors(await embedder.embed([CAT, CAT], QUERY))[0]

    patch_texts(monkeypatch, embedder, lambda encode: lambda texts: 1 / 0 if has(texts, LONG) else encode(texts))

    before, bad, behind = await embedder.embed([CAT, LONG, CAT], QUERY)

    assert isinstance(bad, InputRejected)
    assert "ZeroDivisionError" in str(bad)
    np.testing.assert_allclose(vectors([before, behind]), [expected, expected], atol=1e-6)


@pytest.mark.parametrize("which", ["first", "every"])
async def test_out_of_memory_costs_nobody_an_answer_while_one_input_fits(
    embedder: ClipEmbedder, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    import torch

    texts = [TextInput(f"text {at}") for at in range(8)]
    expected = vectors(await embedder.embed(texts, DOCUMENT))
    passes: list[int] = []

    def short_of_memory(encode: Any) -> Any:
        def run(batch: Any) -> Any:
            passes.append(len(batch))
            if len(batch) > 1 and (which == "every" or len(passes) == 1):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return encode(batch)

        return run

    patch_texts(monkeypatch, embedder, short_of_memory)
    np.testing.assert_allclose(vectors(await embedder.embed(texts, DOCUMENT)), expected, atol=1e-6)
    assert max(passes[2:]) < 4
    await embedder.check()


async def test_a_thread_that_dies_fails_its_calls_and_the_next_ones_get_a_new_one(
    embedder: ClipEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go = threading.Event(), threading.Event()

    def die(_: Any) -> Any:
        def run(_: Any) -> Any:
            started.set()
            go.wait(10)
            raise SystemExit

        return run

    with monkeypatch.context() as patch:
        patch_texts(patch, embedder, die)
        first = asyncio.create_task(embedder.embed([CAT], QUERY))
        await asyncio.to_thread(started.wait, 10)
        second = asyncio.create_task(embedder.embed([DOG], QUERY))
        while embedder._devices[0].worker.load < 2:
            await asyncio.sleep(0.001)
        go.set()
        for task in (first, second):
            with pytest.raises(EmbedderUnavailable, match="thread that runs the model died"):
                await asyncio.wait_for(task, 10)
    assert len(vectors(await asyncio.wait_for(embedder.embed(MIXED, QUERY), 10))) == 4
    await embedder.check()


async def test_urgent_work_overtakes_bulk_work_that_waits() -> None:
    worker = Worker("test")
    started, go = threading.Event(), threading.Event()
    order: list[str] = []
    blocked = asyncio.create_task(worker.run(Priority.BULK, lambda: (started.set(), go.wait(10))))
    await asyncio.sleep(0)
    await asyncio.to_thread(started.wait, 10)
    bulk = [asyncio.create_task(worker.run(Priority.BULK, order.append, f"bulk {at}")) for at in range(2)]
    await asyncio.sleep(0)
    urgent = asyncio.create_task(worker.run(Priority.INTERACTIVE, order.append, "urgent"))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(blocked, *bulk, urgent)
    worker.close()
    assert order == ["urgent", "bulk 0", "bulk 1"]


async def test_cancelled_work_that_waits_for_the_thread_is_never_done() -> None:
    worker = Worker("test")
    go = threading.Event()
    done: list[str] = []
    blocked = asyncio.create_task(worker.run(Priority.BULK, go.wait, 10))
    waiting = asyncio.create_task(worker.run(Priority.BULK, done.append, "cancelled"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    go.set()
    await blocked
    await worker.run(Priority.BULK, done.append, "last")
    worker.close()
    assert done == ["last"]
    assert worker.load == 0


async def test_closing_ends_the_thread_and_fails_what_waits() -> None:
    worker = Worker("test-closing")
    started, go = threading.Event(), threading.Event()
    blocked = asyncio.create_task(worker.run(Priority.BULK, lambda: (started.set(), go.wait(10))))
    await asyncio.sleep(0)
    await asyncio.to_thread(started.wait, 10)
    waiting = asyncio.create_task(worker.run(Priority.BULK, len, "never"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(worker.close))
    with pytest.raises(EmbedderUnavailable):
        await waiting
    go.set()
    await asyncio.gather(blocked, closing)
    assert not [each for each in threading.enumerate() if each.name == "test-closing"]


async def test_work_that_hangs_does_not_keep_the_worker_from_being_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    from embedders.clip import worker as module

    monkeypatch.setattr(module, "END_S", 0.01)
    worker = Worker("test-hanging")
    started, go = threading.Event(), threading.Event()
    hanging = asyncio.create_task(worker.run(Priority.BULK, lambda: (started.set(), go.wait(60))))
    await asyncio.sleep(0)
    await asyncio.to_thread(started.wait, 10)
    await asyncio.wait_for(asyncio.to_thread(worker.close), 10)
    go.set()
    await hanging


@pytest.mark.parametrize("fault", ["raises", "nan"])
async def test_an_input_at_fault_is_rejected_alone_as_with_others_until_the_model_fails_at_our_own_too(
    embedder: ClipEmbedder, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def spoil(encode: Any, at: Callable[[Any], bool]) -> Any:
        def run(texts: Any) -> Any:
            rows = encode(texts).copy()
            for row, each in zip(rows, texts, strict=True):
                if at([each]):
                    row[:] = np.nan if fault == "nan" else 1 / 0
            return rows

        return run

    with monkeypatch.context() as patch:
        patch_texts(patch, embedder, lambda encode: spoil(encode, lambda texts: has(texts, LONG)))
        together = await embedder.embed([CAT, LONG, DOG], QUERY)
        alone = await embedder.embed([LONG], QUERY)
    patch_texts(monkeypatch, embedder, lambda encode: spoil(encode, lambda _: True))

    assert [type(each).__name__ for each in (*together, *alone)] == [
        "Embedding",
        "InputRejected",
        "Embedding",
        "InputRejected",
    ]
    with pytest.raises(AnswerInvalid if fault == "nan" else EmbedderUnavailable):
        await embedder.embed([LONG], QUERY)


async def test_two_devices_share_the_work_and_give_the_same_vectors(config: ClipConfig, embedder: ClipEmbedder) -> None:
    two = ClipEmbedder(replace(config, device="cpu,cpu"))
    await two.start()
    try:
        assert two.spec.slots == 2 * embedder.spec.slots
        assert two.spec.space == embedder.spec.space
        calls = [[TextInput(f"text {call}")] for call in range(12)]
        results = await asyncio.gather(*(two.embed(call, QUERY) for call in calls))
        expected = [await embedder.embed(call, QUERY) for call in calls]
        np.testing.assert_allclose(
            np.concatenate([vectors(each) for each in results]),
            np.concatenate([vectors(each) for each in expected]),
            atol=1e-6,
        )
        assert all(device.worker._thread is not None for device in two._devices)
    finally:
        await two.close()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
async def test_half_precision_serves_the_same_space_once_it_has_shown_to_be_near(
    config: ClipConfig, embedder: ClipEmbedder, precision: Any
) -> None:
    half = ClipEmbedder(replace(config, precision=precision))
    await half.start()
    try:
        assert half.spec.space == embedder.spec.space
        exact, near = vectors(await embedder.embed(PROBES, QUERY)), vectors(await half.embed(PROBES, QUERY))
        assert ((exact * near).sum(axis=1) >= 0.999).all()
        assert (exact != near).any()
    finally:
        await half.close()


@pytest.mark.parametrize(("cosine", "accepted"), [(0.9991, True), (0.9989, False)])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("tower", ["texts", "pictures"])
def test_half_precision_is_refused_below_a_cosine_of_0_999_to_fp32_with_what_to_do(
    config: ClipConfig,
    precision: Any,
    tower: str,
    cosine: float,
    accepted: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode = getattr(Replica, f"encode_{tower}")
    exact: list[Any] = []

    def turned(replica: Replica, inputs: Any) -> Any:
        """Return the vectors in fp32 and later, in half precision, others at the angle to them."""
        if replica._dtype is None:
            exact.append(encode(replica, inputs))
            return exact[-1]
        aside = encode(replica, inputs)[:, ::-1]
        aside -= (aside * exact[-1]).sum(axis=1, keepdims=True) * exact[-1]
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        return cosine * exact[-1] + np.sqrt(1 - cosine**2) * aside

    monkeypatch.setattr(Replica, f"encode_{tower}", turned)
    half = replace(config, precision=precision)

    if accepted:
        assert loading.load(half).replicas[0].weights_bytes > 0
    else:
        with pytest.raises(
            ModelUnusable, match=rf"in {precision} on cpu are too far .*{cosine}.* set its precision to fp32"
        ):
            loading.load(half)


async def test_other_weights_than_expected_are_refused_and_both_digests_are_told_apart(
    config: ClipConfig, embedder: ClipEmbedder
) -> None:
    digest = embedder.spec.weights_digest
    assert digest is not None
    right = ClipEmbedder(replace(config, expected_digest=f"sha256:{digest.upper()}"))
    await right.start()
    await right.close()
    wrong = ClipEmbedder(replace(config, expected_digest="0" * 64))
    with pytest.raises(ModelUnusable, match=f"{digest}.*expected_digest"):
        await wrong.start()
    await wrong.close()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_model_whose_padding_matters_unseen_goes_back_to_open_clip_s_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    from embedders.clip.packed import PackedTower

    folder = write_tiny_clip(tmp_path / "model")
    exact = PackedTower.encode
    with_packing = loading.load(ClipConfig(model=str(folder), device="cpu", precision=precision)).replicas[0].packs

    # Little enough to pass for the rounding of half precision.
    monkeypatch.setattr(PackedTower, "encode", lambda tower, texts: exact(tower, texts) * 1.0 + 1e-3)
    model = loading.load(ClipConfig(model=str(folder), device="cpu", precision=precision))

    assert (with_packing, model.replicas[0].packs) == (True, False)


@pytest.mark.parametrize("device", ["cuda:7", "tpu", "cpu,cuda:0", ""])
async def test_devices_that_are_not_there_are_named(
    config: ClipConfig, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    embedder = ClipEmbedder(replace(config, device=device))
    with pytest.raises(ModelUnusable, match=r"device"):
        await embedder.start()
    await embedder.close()


@pytest.mark.parametrize("pickled", [False, True])
async def test_a_gpu_without_room_for_a_model_refuses_it_with_both_sizes_and_others_go_on(
    config: ClipConfig, embedder: ClipEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, pickled: bool
) -> None:
    import torch

    folder = write_tiny_clip(tmp_path / "second")
    needed = 4 * sum(each.numel() for each in open_weights(folder).values())
    if pickled:
        torch.save(open_weights(folder), folder / "open_clip_pytorch_model.bin")
        (folder / "open_clip_model.safetensors").unlink()
        needed = (folder / "open_clip_pytorch_model.bin").stat().st_size
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (needed - 1, 24 * 1024**3))
    second = ClipEmbedder(replace(config, name="second", model=str(folder), device="cuda"))

    with pytest.raises(
        ModelUnusable, match=r"embedder second: .* 0\.0 GiB on cuda:0 to load, and 0\.0 of 24\.0 GiB are free"
    ):
        await second.start()

    await second.close()
    assert len(vectors(await embedder.embed(MIXED, QUERY))) == len(MIXED)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (needed, 24 * 1024**3))
    loading._require_memory(loading.locate(ClipConfig(model=str(folder)), ()), "cuda:0")


def open_weights(folder: Path) -> dict[str, Any]:
    """Return a tiny model's tensors."""
    from safetensors.torch import load_file

    return load_file(folder / "open_clip_model.safetensors")


async def test_models_load_one_after_the_other(config: ClipConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0
    load = loading._load

    def watched(each: ClipConfig) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return load(each)
        finally:
            running -= 1

    monkeypatch.setattr(loading, "_load", watched)
    both = [ClipEmbedder(replace(config, name=name)) for name in ("first", "second")]

    await asyncio.gather(*(each.start() for each in both))

    assert most == 1
    for each in both:
        await each.close()
