"""Vectors of the architectures that users run are open_clip's own, with random weights."""

import gc
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from embedders.clip import ClipConfig
from embedders.clip.loading import load
from embedders.clip.packed import PackedTower
from embedders.clip.reading import Reader, Text
from embedders.clip.replica import Replica
from embedders.contract import InputLimits, TextInput
from embedders.images.scaling import Scaling, scaled
from tests.fakes.tiny_clip import write_tiny_clip

TEXTS = ["a dog", "two red cars in front of a house", "!", "many words " * 40]
UNPADDED = {"ViT-B-32", "ViT-H-14", "RN50", "convnext_base"}
PADDED = {"ViT-B-16-SigLIP"}


def photo(seed: int, size: tuple[int, int]) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def unit(rows: Any) -> NDArray[np.float32]:
    rows = rows.float().numpy()
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(params=sorted(UNPADDED | PADDED), scope="module")
def architecture(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any, Any]]:
    import open_clip
    import torch

    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms(request.param, pretrained_text=False)
    yield request.param, model.eval(), transform
    del model
    gc.collect()


@pytest.fixture(scope="module")
def reader(architecture: tuple[str, Any, Any]) -> Reader:
    import open_clip

    _, model, _ = architecture
    # The published tokenizer of SigLIP is fetched from elsewhere; any ids do for the tower.
    tokenizer = open_clip.SimpleTokenizer(context_length=getattr(model, "text", model).context_length)
    return Reader(tokenizer, limits=InputLimits())


def test_text_vectors_are_open_clip_s_own(architecture: tuple[str, Any, Any], reader: Reader) -> None:
    import torch

    name, model, _ = architecture
    vocabulary = getattr(model, "text", model).token_embedding.num_embeddings
    read = [each for each in reader.texts([TextInput(text, True) for text in TEXTS]) if isinstance(each, Text)]
    read = [Text([min(token, vocabulary - 1) for token in each.ids], each.count, each.truncated) for each in read]
    padded = torch.zeros(len(read), reader.context_length, dtype=torch.long)
    for row, each in zip(padded, read, strict=True):
        row[: len(each.ids)] = torch.tensor(each.ids)
    with torch.inference_mode():
        expected = unit(model.encode_text(padded))

    replica = Replica(model, device="cpu", reader=reader)
    together = replica.encode_texts(read)
    alone = np.concatenate([replica.encode_texts([each]) for each in read])

    packed = PackedTower.of(model)
    assert (packed is not None) == (name in UNPADDED)
    if packed is not None:
        with torch.inference_mode():
            for rows in (slice(None), slice(1), slice(2)):
                # Not to the bit: on some CPUs a product's rounding depends on the number of its rows.
                exact = unit(model.encode_text(padded[rows]))
                given = unit(packed.encode([each.ids for each in read[rows]]))
                np.testing.assert_allclose(given, exact, atol=1e-6, rtol=0)
    np.testing.assert_allclose(together, expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(alone, expected, atol=1e-6, rtol=0)


def test_image_vectors_are_open_clip_s_own(architecture: tuple[str, Any, Any], reader: Reader) -> None:
    import torch

    _, model, transform = architecture
    files = [photo(1, (320, 240)), photo(2, (200, 400))]
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
        expected = unit(model.encode_image(pixels))

    scaling = Scaling.of(model.visual.preprocess_cfg)
    pictures = np.stack([scaled(file, InputLimits(), scaling) for file in files])

    actual = Replica(model, device="cpu", reader=reader).encode_pictures(pictures)
    np.testing.assert_allclose(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("mean", "std"), [((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)), (0.5, 0.25)]
)
def test_pixels_become_the_very_floats_that_open_clip_s_transform_makes_of_them(
    tmp_path: Path, mean: Any, std: Any
) -> None:
    import torch
    from open_clip.transform import image_transform

    folder = write_tiny_clip(tmp_path / "model", preprocessing={"mean": mean, "std": std})
    model = load(ClipConfig(model=str(folder), device="cpu"))
    transform = image_transform(32, is_train=False, mean=mean, std=std)
    files = [photo(1, (320, 240)), photo(2, (200, 400)), photo(3, (32, 32))]
    expected = torch.stack([transform(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])

    read = [scaled(file, InputLimits(), model.facts.scaling) for file in files]
    pixels = np.stack(read)

    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, 32, 32, 3))
    np.testing.assert_array_equal(model.replica._floats(torch.from_numpy(pixels)).numpy(), expected.numpy())
