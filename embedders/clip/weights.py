"""Getting published weights through open_clip's registry, for `vecgate weights fetch`. The service never does it."""

import difflib
import hashlib
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

CONFIG_FILE = "open_clip_config.json"
MANIFEST_FILE = "manifest.json"
SAFE_WEIGHTS_FILE = "open_clip_model.safetensors"
PICKLED_WEIGHTS_FILE = "open_clip_pytorch_model.bin"
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
LICENCE_NOTE = (
    "open_clip's registry does not name the licence of the weights. Read it where they are published before you use or "
    "pass them on."
)


class NotFetchable(Exception):
    """The request cannot be met: unknown names, a folder that exists, or a model that a folder cannot hold."""


class DownloadFailed(Exception):
    """The weights did not come, or are not what they should be."""


@dataclass(frozen=True, slots=True)
class FetchedWeights:
    """What was fetched.

    Attributes:
        folder: absolute; the setting `model` accepts it.
        source: where the weights come from, as the registry names it.
        sha256: of the weights file, in lower-case hex.
        size: of the weights file, in bytes.
    """

    folder: Path
    source: str
    sha256: str
    size: int


def fetch_weights(
    model: str, tag: str, folder: Path, *, watch: Callable[[Path], AbstractContextManager[object]]
) -> FetchedWeights:
    """Download a model's weights and write a folder that the setting `model` accepts; nothing stays after a failure.

    Args:
        model: one of open_clip's models.
        tag: one of its sets of published weights.
        folder: what is made; its name becomes the model's name, and so a part of its space.
        watch: entered while the download runs, with the folder that grows meanwhile.

    Raises:
        ModuleNotFoundError: open_clip is not installed.
        NotFetchable: the weights are unknown, the folder exists, or the model needs more than a folder can hold.
        DownloadFailed: the weights did not come, or are not tensors.
    """
    # open_clip and huggingface_hub draw bars and log retries unless told before they are imported.
    os.environ.update(TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_VERBOSITY="error")
    import open_clip

    checkpoint = _find(model, tag, open_clip)
    folder = folder.expanduser().absolute()
    if folder.exists():
        raise NotFetchable(f"{folder} exists already; name a new folder, or remove it first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, so that the last step is a rename within one file system.
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise NotFetchable(f"{folder} cannot be made: {error.strerror}") from error
    try:
        with watch(unfinished):
            fetched = _fill(unfinished, checkpoint, open_clip)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except NotFetchable:
        raise
    except Exception as error:  # any error of the network, the disk or a library
        if isinstance(error, HTTPError):
            error.close()  # it holds an open connection
        raise DownloadFailed(f"{model} {tag} from {checkpoint.source}: {_first_line(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return FetchedWeights(folder, checkpoint.source, *fetched)


def require_tensors(weights: Path) -> None:
    """Check that a weights file holds tensors and nothing that loading it could run; nothing in it is run here either.

    Raises:
        DownloadFailed: it holds something else, or is broken.
    """
    if weights.suffix == ".safetensors":
        import safetensors  # noqa: PLC0415 -- a gateway without a local model does not have it

        try:
            with safetensors.safe_open(weights, "pt") as file:
                file.keys()
        except (safetensors.SafetensorError, OSError) as error:
            raise DownloadFailed(f"the weights are not a complete safetensors file: {error}") from error
        return
    import torch

    try:
        loaded = torch.load(weights, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DownloadFailed(
            "the weights file holds more than tensors, and loading it could run code; use weights in safetensors form, "
            "or a file with the state_dict alone"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise DownloadFailed(f"the weights file cannot be read as tensors: {_first_line(error)}") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    if not (isinstance(state, dict) and any(isinstance(each, torch.Tensor) for each in state.values())):
        raise DownloadFailed("the weights file holds no tensors by name")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """What open_clip says of published weights, and of their model."""

    model: str
    tag: str
    published: dict[str, Any]
    config: dict[str, Any]

    @property
    def source(self) -> str:
        """Where the registry has the weights; open_clip prefers the hub, as here."""
        if self.published.get("hf_hub"):
            return f"hf-hub:{self.published['hf_hub']}"
        return str(self.published.get("url") or self.published.get("file"))


def _find(model: str, tag: str, open_clip: Any) -> _Checkpoint:
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tags:
        known = sorted({name for name, _ in open_clip.list_pretrained()})
        close = difflib.get_close_matches(model, known, n=5, cutoff=0.5)
        raise NotFetchable(f"open_clip has no weights for a model {model}" + _perhaps(close))
    published: dict[str, Any] = open_clip.get_pretrained_cfg(model, tag)
    if not published:
        close = difflib.get_close_matches(tag, tags, n=5, cutoff=0.3) or tags
        raise NotFetchable(f"open_clip has no weights {tag} for the model {model}" + _perhaps(close))
    config: dict[str, Any] = open_clip.get_model_config(model)
    if config["text_cfg"].get("hf_model_name"):
        raise NotFetchable(
            f"the text tower of {model} is a Hugging Face model, which open_clip does not load from a folder; "
            "take a model with a text tower of open_clip's own"
        )
    if config["text_cfg"].get("hf_tokenizer_name") and find_spec("transformers") is None:
        raise NotFetchable(
            f"{model} has a Hugging Face tokenizer: pip install 'vecgate[clip]', here and where the model is to run"
        )
    if published.get("quick_gelu"):
        # The weights were trained with it; under the plain model's name open_clip only warns, and vectors are wrong.
        config["quick_gelu"] = True
    return _Checkpoint(model, tag, published, config)


def _perhaps(close: list[str]) -> str:
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _fill(folder: Path, checkpoint: _Checkpoint, open_clip: Any) -> tuple[str, int]:
    """Write everything into a folder, and return digest and size of the weights."""
    published, config = checkpoint.published, checkpoint.config
    cache = folder / "download"
    downloaded = Path(open_clip.download_pretrained(published, cache_dir=str(cache)))
    if downloaded.suffix in {".npz", ".npy"}:
        raise NotFetchable(
            f"the weights {checkpoint.tag} of {checkpoint.model} are numpy arrays, which a local model does not take"
        )
    weights = folder / (SAFE_WEIGHTS_FILE if downloaded.suffix == ".safetensors" else PICKLED_WEIGHTS_FILE)
    # In the hub's cache the name is a link to the file.
    shutil.copyfile(downloaded, weights) if "file" in published else downloaded.resolve().rename(weights)
    require_tensors(weights)
    if config["text_cfg"].get("hf_tokenizer_name"):
        # Into the folder, where open_clip looks for its files.
        open_clip.get_tokenizer(checkpoint.model, cache_dir=str(cache)).save_pretrained(folder)
    shutil.rmtree(cache, ignore_errors=True)
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = weights.stat().st_size
    preprocessing = {key: published[key] for key in PREPROCESSING if key in published}
    _write_json(folder / CONFIG_FILE, {"model_cfg": config, "preprocess_cfg": preprocessing})
    manifest = {
        "model": checkpoint.model,
        "tag": checkpoint.tag,
        "source": checkpoint.source,
        "file": weights.name,
        "sha256": sha256,
        "bytes": size,
        "open_clip": open_clip.__version__,
        "licence": LICENCE_NOTE,
    }
    _write_json(folder / MANIFEST_FILE, manifest)
    return sha256, size


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
