"""ClipEmbedder keeps the contract, and its vectors are open_clip's own."""

import asyncio
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedders.clip import ClipConfig, ClipEmbedder, files
from embedders.clip.loading import load, published_preprocessing
from embedders.clip.packed import PackedTower
from embedders.clip.reading import Text
from embedders.contract import DOCUMENT, QUERY, Embedding, ImageInput, TextInput
from embedders.errors import EmbedderUnavailable, ModelUnusable, TextTooLong
from embedders.images.decoding import decode
from tests.embedders.suite import CAT, DOG, LIMITS, EmbedderSuite, vectors
from tests.fakes.embedder import picture
from tests.fakes.models import in_process, loaded
from tests.fakes.tiny_clip import CONTEXT_LENGTH, DIMENSION, write_tiny_clip

TEXTS = ["cat", "a small red car", "Ünïcode &amp; entities", "x" * 60, "many words " * 30, "<end_of_text> inside", "!"]


class TestContract(EmbedderSuite):
    """The contract."""


def reference(folder: Path) -> tuple[Any, Any, Any]:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


async def test_text_vectors_are_those_of_open_clip(tiny_clip: Path, embedder: ClipEmbedder) -> None:
    import torch

    model, _, tokenizer = reference(tiny_clip)
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
    outcomes = await embedder.embed([TextInput(text, truncate=True) for text in TEXTS], QUERY)
    np.testing.assert_allclose(vectors(outcomes), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (100, 40), (33, 90), (1, 1), (500, 32)])
async def test_image_vectors_are_those_of_open_clip(
    tiny_clip: Path, embedder: ClipEmbedder, size: tuple[int, int]
) -> None:
    import torch

    rng = np.random.default_rng(5)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    content = _file(image)
    model, transform, _ = reference(tiny_clip)
    with torch.inference_mode():
        expected = model.encode_image(transform(decode(content, LIMITS)).unsqueeze(0), normalize=True).numpy()
    outcomes = await embedder.embed([ImageInput(content)], DOCUMENT)
    np.testing.assert_allclose(vectors(outcomes), expected, atol=1e-6, rtol=0)


def _file(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


async def test_a_picture_of_extreme_proportions_is_embedded_within_little_memory(embedder: ClipEmbedder) -> None:
    (outcome,) = await embedder.embed([ImageInput(picture(size=(50_000, 2)))], DOCUMENT)
    assert isinstance(outcome, Embedding)


@pytest.mark.parametrize("custom_text", [False, True])
def test_leaving_out_padding_changes_no_bit_of_a_causal_tower(tmp_path: Path, *, custom_text: bool) -> None:
    import torch

    folder = write_tiny_clip(tmp_path / "model", text={"context_length": 77}, custom_text=custom_text)
    model, _, tokenizer = reference(folder)
    packed = PackedTower.of(model)
    assert packed is not None
    reader = load(ClipConfig(model=str(folder), device="cpu")).reader
    for words in (1, 5, 14, 15, 30, 75, 76, 200):
        for others in ([], ["dog"], ["dog", "a b c d e f g h i j k l", "<end_of_text> inside"] * 3):
            texts = ["cat " * words, *others]
            read = [each for each in reader.texts([TextInput(text, True) for text in texts]) if isinstance(each, Text)]
            with torch.inference_mode():
                expected = model.encode_text(tokenizer(texts)).numpy()
                actual = packed.encode([each.ids for each in read]).numpy()
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "text",
    [
        {"no_causal_mask": True, "pool_type": "last"},
        {"no_causal_mask": True},
        {"pool_type": "last"},
        {"embed_cls": True},
    ],
)
def test_towers_that_read_their_padding_keep_it(tmp_path: Path, text: dict[str, Any]) -> None:

    model, _, _ = reference(write_tiny_clip(tmp_path / "model", text=text, custom_text=True))
    assert PackedTower.of(model) is None


async def test_a_tower_that_reads_its_padding_gets_open_clip_s_own_vectors(tmp_path: Path) -> None:
    import torch

    folder = write_tiny_clip(tmp_path / "model", text={"no_causal_mask": True, "pool_type": "last"}, custom_text=True)
    model, _, tokenizer = reference(folder)
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
    embedder = in_process(ClipConfig(model=str(folder), device="cpu"))
    await embedder.start()
    try:
        outcomes = await embedder.embed([TextInput(text, truncate=True) for text in TEXTS], QUERY)
        np.testing.assert_allclose(vectors(outcomes), expected, atol=1e-6, rtol=0)
    finally:
        await embedder.close()


def test_a_text_that_would_have_to_be_cut_at_its_start_is_rejected(config: ClipConfig) -> None:
    reader = load(config).reader
    short, tokens, size = (
        reader.text(TextInput(text, truncate=True, at_start=True)) for text in ("a cat", "cat " * 100, "cat " * 10_000)
    )

    assert isinstance(short, Text)
    for each in (tokens, size):
        assert isinstance(each, TextTooLong)
        assert "allow truncation at its end: a local model cuts no text at its start" in str(each)


def test_tokens_are_those_of_open_clip(tiny_clip: Path, config: ClipConfig) -> None:
    reader = load(config).reader
    _, _, tokenizer = reference(tiny_clip)
    for text in TEXTS:
        read = reader.text(TextInput(text, truncate=True))
        assert isinstance(read, Text)
        count = len(tokenizer.encode(text)) + 2
        assert read.ids + [0] * (CONTEXT_LENGTH - len(read.ids)) == tokenizer([text])[0].tolist()
        assert (read.count, read.truncated) == (min(count, CONTEXT_LENGTH), count > CONTEXT_LENGTH)


async def test_the_spec_is_read_from_the_model(embedder: ClipEmbedder) -> None:
    assert embedder.spec.dimension == DIMENSION
    assert embedder.spec.max_text_tokens == CONTEXT_LENGTH
    assert embedder.spec.model == "tiny-clip"


async def space(config: ClipConfig) -> str:
    embedder = in_process(config)
    await embedder.start()
    await embedder.close()
    digest = embedder.spec.weights_digest
    assert digest is not None
    assert len(digest) == 64
    return embedder.spec.space


async def test_the_space_is_that_of_the_files_wherever_they_lie(
    tmp_path: Path, tiny_clip: Path, config: ClipConfig
) -> None:
    there = tmp_path / "elsewhere" / tiny_clip.name
    shutil.copytree(tiny_clip, there)
    assert await space(config) == await space(replace(config, model=str(there), name="another", max_batch=7))


async def test_the_space_changes_with_weights_preprocessing_and_activation(tmp_path: Path, config: ClipConfig) -> None:
    other = write_tiny_clip(tmp_path / "other" / "tiny-clip", seed=1)
    spaces = {await space(config), await space(replace(config, model=str(other)))}
    for part, key, value in (("preprocess_cfg", "resize_mode", "squash"), ("model_cfg", "quick_gelu", True)):
        path = other / "open_clip_config.json"
        settings = json.loads(path.read_text())
        settings[part][key] = value
        path.write_text(json.dumps(settings))
        spaces.add(await space(replace(config, model=str(other))))
    assert len(spaces) == 4
    assert all(each.startswith("clip:tiny-clip:") and len(each.split(":")[-1]) == 16 for each in spaces)


async def test_the_event_loop_stays_live_while_the_model_loads(config: ClipConfig) -> None:
    embedder = in_process(config)
    start = asyncio.create_task(embedder.start())
    turns = 0
    while not start.done():
        turns += 1
        await asyncio.sleep(0)
    await start
    assert turns > 10
    await embedder.close()


async def test_starting_twice_loads_once(embedder: ClipEmbedder) -> None:
    first = loaded(embedder)
    await embedder.start()
    assert loaded(embedder) is first


async def test_calls_before_the_start_are_refused(config: ClipConfig) -> None:
    embedder = in_process(config)
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed([CAT], QUERY)
    with pytest.raises(EmbedderUnavailable):
        _ = embedder.spec
    await embedder.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "ViT-B-32"}, "embedder clip: .* set its checkpoint"),
        ({"model": "ViT-B-32", "checkpoint": Path("nowhere.pt")}, "does not exist"),
        ({"model": "ViT-B-23"}, "did you mean ViT-B-32"),
        ({"model": "no such thing at all"}, "nor a folder"),
        ({"checkpoint": Path("some.pt")}, "leave its checkpoint unset"),
        ({"device": "cuda"}, "no CUDA"),
    ],
)
async def test_a_model_that_cannot_be_used_is_explained(
    config: ClipConfig, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    embedder = in_process(replace(config, **changes))
    with pytest.raises(ModelUnusable, match=message):
        await embedder.start()
    await embedder.close()


@pytest.mark.parametrize("fault", ["no-weights", "broken-weights", "other-weights", "no-tokenizer", "broken-config"])
async def test_broken_model_files_are_explained(
    tmp_path: Path, tiny_clip: Path, config: ClipConfig, fault: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_clip, folder)
    weights = folder / "open_clip_model.safetensors"
    if fault == "no-weights":
        weights.unlink()
    elif fault == "broken-weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif fault in ("other-weights", "no-tokenizer"):
        settings = json.loads((folder / "open_clip_config.json").read_text())
        settings["model_cfg"]["text_cfg"] |= (
            {"width": 64} if fault == "other-weights" else {"hf_tokenizer_name": "none"}
        )
        (folder / "open_clip_config.json").write_text(json.dumps(settings))
    else:
        (folder / "open_clip_config.json").write_text("{")
    embedder = in_process(replace(config, model=str(folder)))
    with pytest.raises(ModelUnusable, match="model"):
        await embedder.start()
    await embedder.close()


async def test_a_bundled_model_loads_by_its_name(
    tiny_clip: Path, config: ClipConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MODELS_DIR", tiny_clip.parent)
    assert await space(replace(config, model="tiny-clip")) == await space(config)


async def test_a_folder_may_be_named_from_the_working_directory(
    tiny_clip: Path, config: ClipConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await space(config)
    monkeypatch.chdir(tiny_clip.parent)
    assert await space(replace(config, model="./tiny-clip/")) == expected
    monkeypatch.chdir(tiny_clip)
    assert await space(replace(config, model=".")) == expected


async def test_libraries_that_fetch_models_are_told_to_stay_offline(embedder: ClipEmbedder) -> None:
    import huggingface_hub.constants

    await embedder.check()
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"


async def test_a_named_model_loads_from_its_checkpoint(
    tmp_path: Path, tiny_clip: Path, config: ClipConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip
    import torch
    from safetensors.torch import load_file

    settings = json.loads((tiny_clip / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-For-Test", settings)
    checkpoint = tmp_path / "weights.pt"
    torch.save({"state_dict": load_file(tiny_clip / "open_clip_model.safetensors")}, checkpoint)
    named = in_process(replace(config, model="Tiny-For-Test", checkpoint=checkpoint))
    folder = in_process(config)
    await named.start()
    await folder.start()
    try:
        np.testing.assert_array_equal(
            vectors(await named.embed([CAT, DOG], QUERY)),
            vectors(await folder.embed([CAT, DOG], QUERY)),
        )
        assert named.spec.space.startswith("clip:Tiny-For-Test:")
    finally:
        await named.close()
        await folder.close()


async def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, config: ClipConfig) -> None:
    import torch

    checkpoint = tmp_path / "evil.pt"
    torch.save({"state_dict": Path("code")}, checkpoint)
    embedder = in_process(replace(config, model="ViT-B-32", checkpoint=checkpoint))
    with pytest.raises(ModelUnusable):
        await embedder.start()
    await embedder.close()


async def test_a_model_whose_weights_were_published_with_one_preprocessing_gets_it() -> None:
    import open_clip

    siglip = published_preprocessing("ViT-B-16-SigLIP", open_clip)
    assert siglip["mean"] == (0.5, 0.5, 0.5)
    assert siglip["resize_mode"] == "squash"
    assert published_preprocessing("ViT-H-14-quickgelu", open_clip) == {}
    assert published_preprocessing("local-dir:models/some", open_clip) == {}
