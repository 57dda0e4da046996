"""What goes wrong in a model costs one call, and no hang; see test_processes for what goes wrong with processes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedders.clip import ClipConfig, ClipEmbedder, loading
from embedders.clip.replica import Replica
from embedders.contract import DOCUMENT, QUERY, TextInput
from embedders.errors import AnswerInvalid, EmbedderUnavailable, InputRejected, ModelUnusable
from tests.embedders.suite import CAT, DOG, MIXED, vectors
from tests.fakes.models import in_process, loaded
from tests.fakes.tiny_clip import write_tiny_clip

PROBES = [TextInput(text, truncate=True) for text in loading.PROBE_TEXTS]
LONG = TextInput("a very long text of a dog")


def has(texts: Any, one: TextInput) -> bool:
    """Return whether texts that have been read have one of so many words."""
    return any(each.count == len(one.text.split()) + 2 for each in texts)


def patch_texts(monkeypatch: pytest.MonkeyPatch, embedder: ClipEmbedder, wrap: Callable[[Any], Any]) -> None:
    """Put a function around what encodes texts; it gets the real one."""
    replica = loaded(embedder).replica
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


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
async def test_half_precision_serves_the_same_space_once_it_has_shown_to_be_near(
    config: ClipConfig, embedder: ClipEmbedder, precision: Any
) -> None:
    half = in_process(replace(config, precision=precision))
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
        assert loading.load(half).replica.held_bytes > 0
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
    right = in_process(replace(config, expected_digest=f"sha256:{digest.upper()}"))
    await right.start()
    await right.close()
    wrong = in_process(replace(config, expected_digest="0" * 64))
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
    with_packing = loading.load(ClipConfig(model=str(folder), device="cpu", precision=precision)).replica.packs

    # Little enough to pass for the rounding of half precision.
    monkeypatch.setattr(PackedTower, "encode", lambda tower, texts: exact(tower, texts) * 1.0 + 1e-3)
    model = loading.load(ClipConfig(model=str(folder), device="cpu", precision=precision))

    assert (with_packing, model.replica.packs) == (True, False)


@pytest.mark.parametrize("device", ["cuda:7", "tpu", "cpu,cuda:0", ""])
async def test_devices_that_are_not_there_are_named(
    config: ClipConfig, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    embedder = in_process(replace(config, device=device))
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
    second = in_process(replace(config, name="second", model=str(folder), device="cuda"))

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
