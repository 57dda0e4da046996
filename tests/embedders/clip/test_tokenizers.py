"""Models whose tokenizer is in files: NV-CLIP's form, CLIPA's and SigLIP's, loaded from a folder without a network."""

import json
import logging
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedders.clip import ClipConfig, loading
from embedders.contract import QUERY, Embedding, ImageInput, TextInput
from embedders.errors import InputRejected, ModelUnusable
from tests.embedders.suite import vectors
from tests.fakes.embedder import picture
from tests.fakes.models import in_process
from tests.fakes.tiny_clip import (
    CONTEXT_LENGTH,
    write_tiny_clip,
    write_unigram_tokenizer,
    write_wordpiece_tokenizer,
)

TEXTS = ["red car", "Two RED cars, and a caf\u00e9!", "a!", "car " * 40]
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "pool_type": "avg"}
NVIDIA_FILE = "nvclip_clipa_vit_h14_700M.ckpt"


@dataclass(frozen=True)
class Form:
    """How a family of models looks."""

    write_tokenizer: Callable[..., None]
    text: dict[str, Any]
    model: dict[str, Any]

    def write(self, folder: Path, **tokenizer: Any) -> Path:
        text = {"vocab_size": 1000, "no_causal_mask": True, "pool_type": "last", **self.text}
        write_tiny_clip(folder, text=text, **self.model)
        self.write_tokenizer(folder, **tokenizer)
        return folder


FORMS = {
    "nvclip": Form(
        write_wordpiece_tokenizer,
        {"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": True}},
        {
            "init_logit_bias": -10,
            "vision_cfg": {**VISION, "no_ln_pre": True, "final_ln_after_pool": True, "pos_embed_type": "sin_cos_2d"},
        },
    ),
    "siglip": Form(
        write_unigram_tokenizer,
        {
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "proj_bias": True,
        },
        {"init_logit_bias": -10, "custom_text": True},
    ),
}


@pytest.fixture(params=sorted(FORMS))
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail whatever tries an address or a name."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def config(folder: Path, checkpoint: Path | None = None) -> ClipConfig:
    return ClipConfig(model=str(folder), device="cpu", checkpoint=checkpoint)


def nvidia_checkpoint(folder: Path) -> Path:
    """Put a folder's weights into a checkpoint as NVIDIA publishes it."""
    import torch
    from safetensors.torch import load_file

    weights = folder / "open_clip_model.safetensors"
    torch.save({"state_dict": load_file(weights)}, folder / NVIDIA_FILE)
    weights.unlink()
    return folder / NVIDIA_FILE


async def test_vectors_and_counts_are_those_of_open_clip_and_the_tokenizer(tmp_path: Path, form: Form) -> None:
    import open_clip
    import torch

    folder = form.write(tmp_path / "model")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
    counts = [len(tokenizer.tokenizer(tokenizer.clean_fn(text), truncation=False).input_ids) for text in TEXTS]

    embedder = in_process(config(folder))
    await embedder.start()
    outcomes = await embedder.embed([TextInput(text, truncate=True) for text in TEXTS], QUERY)
    await embedder.close()

    np.testing.assert_allclose(vectors(outcomes), expected, atol=1e-6, rtol=0)
    assert [(each.token_count, each.truncated) for each in outcomes if isinstance(each, Embedding)] == [
        (min(count, CONTEXT_LENGTH), count > CONTEXT_LENGTH) for count in counts
    ]
    assert counts[-1] > CONTEXT_LENGTH > counts[0]


async def test_nvidia_s_checkpoint_is_taken_as_it_is_in_the_folder_or_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = [TextInput("red car"), ImageInput(picture())]
    folder = FORMS["nvclip"].write(tmp_path / "nvclip")
    renamed = in_process(config(shutil.copytree(folder, tmp_path / "other" / "nvclip")))
    await renamed.start()
    expected = vectors(await renamed.embed(inputs, QUERY))
    await renamed.close()
    checkpoint = nvidia_checkpoint(folder)

    inside = loading.load(config(folder))
    elsewhere = checkpoint.rename(tmp_path / NVIDIA_FILE)
    caplog.clear()
    beside = in_process(config(folder, elsewhere))
    await beside.start()
    actual = vectors(await beside.embed(inputs, QUERY))
    await beside.close()

    np.testing.assert_array_equal(actual, expected)
    assert beside.spec.space == inside.facts.spec.space
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING], "it has weights"


async def test_weights_that_are_missing_or_not_the_only_ones_are_explained(tmp_path: Path) -> None:
    folder = FORMS["nvclip"].write(tmp_path / "nvclip")
    with pytest.raises(ModelUnusable, match=r"leave its checkpoint unset"):
        loading.load(config(folder, tmp_path / "any.ckpt"))
    checkpoint = nvidia_checkpoint(folder)
    with pytest.raises(ModelUnusable, match=r"leave its checkpoint unset"):
        loading.load(config(folder, checkpoint))

    shutil.copy(checkpoint, folder / "another.ckpt")
    with pytest.raises(ModelUnusable, match=r"several .ckpt files.*set its checkpoint"):
        loading.load(config(folder))

    for each in folder.glob("*.ckpt"):
        each.unlink()
    with pytest.raises(ModelUnusable, match=r"has no weights: put open_clip_model.safetensors or a .ckpt into it"):
        loading.load(config(folder))
    with pytest.raises(ModelUnusable, match=r"gone.ckpt does not exist"):
        loading.load(config(folder, tmp_path / "gone.ckpt"))


def test_the_space_changes_with_the_vocabulary(tmp_path: Path, form: Form) -> None:
    spaces = [
        loading.load(config(form.write(tmp_path / name / "model", words=words))).facts.spec.space
        for name, words in (("one", "red car"), ("two", "red car"), ("three", "car red"))
    ]

    assert spaces[0] == spaces[1] != spaces[2]


def test_a_missing_package_is_named(tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = form.write(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(ModelUnusable, match=r"not installed \(transformers\): pip install 'vecgate\[clip\]'"):
        loading.load(config(folder))


@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_missing_and_broken_tokenizer_files_are_explained(tmp_path: Path, form: Form, fault: str) -> None:
    folder = form.write(tmp_path / "model")
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        if (folder / name).exists():
            (folder / name).unlink() if fault == "missing" else (folder / name).write_bytes(b"{\xff")

    with pytest.raises(
        ModelUnusable, match=r"tokenizer .* missing or broken: put tokenizer.json.* into the model's fold"
    ):
        loading.load(config(folder))


def test_a_named_model_with_a_tokenizer_in_files_is_told_to_be_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    with pytest.raises(ModelUnusable, match=r"set its model to a folder .* `vecgate weights fetch`"):
        loading.load(ClipConfig(model="ViT-B-16-SigLIP", checkpoint=weights, device="cpu"))


def test_code_in_a_model_s_folder_is_never_run(tmp_path: Path) -> None:
    folder = FORMS["nvclip"].write(tmp_path / "model")
    trace = tmp_path / "trace"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: pass\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
    )
    settings = json.loads((folder / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["trust_remote_code"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(settings))

    with pytest.raises(ModelUnusable, match="tokenizer"):
        loading.load(config(folder))
    assert not trace.exists()


@pytest.mark.parametrize("text", ["!", "\u200b!?", "&nbsp;", "_ -"])
async def test_a_text_of_which_cleaning_leaves_nothing_fails_alone(tmp_path: Path, text: str) -> None:
    embedder = in_process(config(FORMS["siglip"].write(tmp_path / "model")))
    await embedder.start()
    bad, good = await embedder.embed([TextInput(text), TextInput("red car")], QUERY)
    await embedder.close()

    assert isinstance(bad, InputRejected)
    assert isinstance(good, Embedding)


def test_models_with_the_same_own_tokenizer_share_its_tables_and_others_do_not(tmp_path: Path) -> None:
    first, second, shorter = (
        loading.load(
            ClipConfig(name=name, model=str(write_tiny_clip(tmp_path / name, seed=seed, text=text)), device="cpu")
        )
        for seed, (name, text) in enumerate({"a": None, "b": None, "c": {"context_length": 12}}.items())
    )

    assert first.facts.spec.space != second.facts.spec.space
    assert first.reader._byte_pairs is second.reader._byte_pairs
    assert first.reader._tokenizer.encoder is second.reader._tokenizer.encoder
    assert shorter.reader.context_length == 12
    assert first.reader._tokenizer.encoder is not shorter.reader._tokenizer.encoder
