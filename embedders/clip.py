"""An embedder that runs a CLIP model in this process, by open_clip."""

import asyncio
import difflib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedders import images
from embedders.base import Outcome
from embedders.errors import (
    AnswerInvalid,
    EmbedderError,
    EmbedderUnavailable,
    ImageUndecodable,
    InputRejected,
    ModelUnusable,
    TextTooLong,
)
from embedders.inputs import QUERY, Embedding, EmbedOptions, ImageInput, Input, TextInput, Vector
from embedders.lifetime import Lifetime
from embedders.spec import EmbedderSpec, InputLimits
from embedders.texts import check_text

__all__ = ["ClipConfig", "ClipEmbedder"]

MODELS_DIR = Path(__file__).parent / "models"
CONFIG_FILE = "open_clip_config.json"
# In open_clip's own order, so that the digest is of the file that it loads.
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
PREPROCESS_THREADS = 4
# Sums over this many tokens group as they do over all, so that not a bit differs; over other numbers the last bit may.
EXACT_MULTIPLE = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Which model to run, and where.

    Attributes:
        name: the embedder's name.
        model: a bundled model's name, an open_clip model's name, or a folder with open_clip_config.json and weights.
        checkpoint: the weights file of an open_clip model; bundled models and folders bring their own.
        device: where the model runs; auto takes CUDA when it is there.
        max_batch: inputs in one forward pass.
        limits: bounds on one input.
    """

    name: str = "clip"
    model: str = "pictogram-clip"
    checkpoint: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_batch: int = 32
    limits: InputLimits = field(default_factory=InputLimits)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text as the model reads it: token ids, and how many of them are no padding."""

    ids: list[int]
    count: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image as the model reads it: a float32 tensor of shape (3, height, width)."""

    pixels: Any


class ClipEmbedder:
    """Runs every forward pass in one worker thread, and decoding and tokenising in a few others."""

    def __init__(self, config: ClipConfig) -> None:
        """Make one; `start` loads the model."""
        self._config = config
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"{config.name}-model")
        self._readers = ThreadPoolExecutor(PREPROCESS_THREADS, thread_name_prefix=f"{config.name}-input")
        self._life = Lifetime(config.name)
        self._model: _Model | None = None
        self._spec: EmbedderSpec | None = None

    @property
    def spec(self) -> EmbedderSpec:
        """Identity and bounds.

        Raises:
            EmbedderUnavailable: `start` has not returned yet.
        """
        if self._spec is None:
            raise EmbedderUnavailable(f"the embedder {self._config.name} is not started")
        return self._spec

    async def start(self) -> None:
        """Load the model and run one text and one image through it.

        Raises:
            ModelUnusable: the model is not known, its files are missing or broken, or its device is not there.
            EmbedderUnavailable: the embedder was closed before or meanwhile.
        """
        if self._model is None:
            model = await self._life.run(self._in(self._worker, _load, self._config))
            self._model, self._spec = model, model.spec

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs, max_batch at a time; CLIP has one role for queries and documents.

        Raises:
            EmbedderUnavailable: the embedder is not started or is closed, or the forward pass failed.
            AnswerInvalid: the model gave no usable vector for any input of a batch.
        """
        del options
        return await self._life.run(self._embed(inputs))

    async def check(self) -> None:
        """Embed a short text; raises what `embed` raises."""
        await self.embed([TextInput("ready")], QUERY)

    async def close(self) -> None:
        """Fail the calls in flight, wait for the threads and free the model. May be called twice."""
        await self._life.end()
        for pool in (self._readers, self._worker):
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)
        self._model = None

    async def _embed(self, inputs: Sequence[Input]) -> list[Outcome]:
        model, size = self._model, self._config.max_batch
        if model is None:
            raise EmbedderUnavailable(f"the embedder {self._config.name} is not started")
        batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        return [outcome for batch in batches for outcome in await self._embed_batch(model, batch)]

    async def _embed_batch(self, model: "_Model", inputs: Sequence[Input]) -> list[Outcome]:
        texts = {at: each for at, each in enumerate(inputs) if isinstance(each, TextInput)}
        pictures = {at: each for at, each in enumerate(inputs) if isinstance(each, ImageInput)}
        read_texts, read_pictures = await asyncio.gather(
            self._in(self._readers, lambda: [model.read_text(each) for each in texts.values()]),
            asyncio.gather(*(self._in(self._readers, model.read_image, each) for each in pictures.values())),
        )
        read: dict[int, _Text | _Picture | InputRejected] = dict(zip(texts, read_texts, strict=True))
        read |= zip(pictures, read_pictures, strict=True)

        rows: dict[int, Vector] = {}
        for kind, encode in ((_Text, model.encode_texts), (_Picture, model.encode_images)):
            valid = {at: each for at, each in read.items() if isinstance(each, kind)}
            if valid:
                rows |= zip(valid, await self._in(self._worker, encode, list(valid.values())), strict=True)
        usable = {at: row for at, row in rows.items() if np.isfinite(row).all() and row.any()}
        if rows and not usable:
            raise AnswerInvalid(f"the model of {self._config.name} gives no finite vectors")
        return [_outcome(read[at], usable.get(at)) for at in range(len(inputs))]

    async def _in(self, pool: Executor, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
        except EmbedderError:
            raise
        except Exception as error:
            raise EmbedderUnavailable(f"the model of {self._config.name} failed: {type(error).__name__}") from error


class _Model:
    """A loaded model. `read_*` may run in any thread, `encode_*` in one thread at a time."""

    def __init__(self, config: ClipConfig) -> None:
        torch, open_clip = _import_open_clip()
        name, source, weights = _locate(config, open_clip.list_models())
        device = _device(config.device, torch)
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._model, _, self._transform = open_clip.create_model_and_transforms(
            source,
            # A folder's weights are found by open_clip.
            pretrained=None if source.startswith("local-dir:") else str(weights),
            device=device,
            pretrained_text=False,
            **_published_preprocessing(source, open_clip),
        )
        self._model.eval()
        self._tokenizer = open_clip.get_tokenizer(source)
        self._tokenizer_lock = threading.Lock()
        self._torch, self._device, self._limits = torch, device, config.limits
        self._preprocessing: dict[str, Any] = self._model.visual.preprocess_cfg
        self._context: int = self._tokenizer.context_length
        plain = isinstance(self._tokenizer, open_clip.SimpleTokenizer)
        self._plain_tokens = plain and self._tokenizer.reduction_fn is None
        self._tower = _causal_tower(self._model, torch) if self._plain_tokens else None
        self.spec = EmbedderSpec(
            name=config.name,
            model=name,
            space=f"clip:{name}:{self._fingerprint(digest, open_clip.get_model_config(source))}",
            dimension=self._warm(),
            limits=config.limits,
            max_text_tokens=self._context,
            weights_digest=digest,
            max_batch=config.max_batch,
        )

    def read_text(self, each: TextInput) -> _Text | InputRejected:
        """Tokenise a text, and cut it where it may be and has to."""
        try:
            check_text(each.text, self._limits)
        except InputRejected as error:
            return error
        ids, count = self._tokens(each.text)
        bound = self._context
        if count > bound and not each.truncate:
            return TextTooLong(f"the text has {count} tokens; the model reads {bound}; shorten it or allow truncation")
        return _Text(ids, min(count, bound), truncated=count > bound)

    def read_image(self, image: ImageInput) -> _Picture | InputRejected:
        """Decode an image and give it the model's size and scale."""
        try:
            picture = images.decode(image.content, self._limits)
        except InputRejected as error:
            return error
        if self._preprocessing["resize_mode"] == "shortest":
            picture = images.without_far_ends(picture)
        try:
            return _Picture(self._transform(picture))
        except ValueError:
            return ImageUndecodable("the picture is too narrow to be scaled to what the model reads; crop it")

    def encode_texts(self, texts: Sequence[_Text]) -> NDArray[np.float32]:
        """Return unit vectors: float32, shape (texts, dimension)."""
        width = self._context
        if self._tower is not None:
            longest = max(len(each.ids) for each in texts)
            width = min(width, -(-longest // EXACT_MULTIPLE) * EXACT_MULTIPLE)
        ids = self._torch.zeros(len(texts), width, dtype=self._torch.long)
        for row, each in zip(ids, texts, strict=True):
            row[: len(each.ids)] = self._torch.tensor(each.ids)
        with self._torch.inference_mode():
            ids = ids.to(self._device)
            encoded = self._model.encode_text(ids) if self._tower is None else _encode_trimmed(self._tower, ids)
            return self._unit(encoded)

    def encode_images(self, pictures: Sequence[_Picture]) -> NDArray[np.float32]:
        """Return unit vectors: float32, shape (pictures, dimension)."""
        with self._torch.inference_mode():
            pixels = self._torch.stack([each.pixels for each in pictures]).to(self._device)
            return self._unit(self._model.encode_image(pixels))

    def _unit(self, encoded: Any) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self._torch.nn.functional.normalize(encoded.float(), dim=-1).cpu().numpy()
        return rows

    def _tokens(self, text: str) -> tuple[list[int], int]:
        """Return what open_clip's tokenizer returns, cut to the context length, and the count before that."""
        tokenizer = self._tokenizer
        if self._plain_tokens:
            ids = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
            if len(ids) <= self._context:
                return ids, len(ids)
            return [*ids[: self._context - 1], tokenizer.eot_token_id], len(ids)
        with self._tokenizer_lock:  # Hugging Face's keep the settings of the last call, and fail when two overlap
            whole = tokenizer.tokenizer(tokenizer.clean_fn(text), truncation=False).input_ids
            return tokenizer([text])[0].tolist(), len(whole)

    def _warm(self) -> int:
        ids, count = self._tokens("ready")
        texts = self.encode_texts([_Text(ids, count, truncated=False)])
        pictures = self.encode_images([_Picture(self._transform(Image.new("RGB", (64, 64), "white")))])
        dimension: int = texts.shape[1]
        if pictures.shape[1] != dimension or not (np.isfinite(texts).all() and np.isfinite(pictures).all()):
            raise ModelUnusable("the model's text and image vectors differ in dimension or are not finite")
        return dimension

    def _fingerprint(self, digest: str, model_config: dict[str, Any]) -> str:
        text_config = model_config["text_cfg"]
        settings = {
            "preprocessing": self._preprocessing,
            "tokenizer": {
                "kind": type(self._tokenizer).__name__,
                "context_length": self._context,
                **{key: text_config.get(key) for key in ("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs")},
            },
            # It changes vectors, but shows neither in the weights nor in the preprocessing.
            "quick_gelu": bool(model_config.get("quick_gelu", False)),
        }
        canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"{digest}\n{canonical}".encode()).hexdigest()[:16]


def _load(config: ClipConfig) -> _Model:
    try:
        return _Model(config)
    except EmbedderError:
        raise
    except Exception as error:  # whatever broken files lead the libraries to
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise ModelUnusable(f"the model {config.model} cannot be loaded: {reason}") from error


def _outcome(read: _Text | _Picture | InputRejected, row: Vector | None) -> Outcome:
    if isinstance(read, InputRejected):
        return read
    if row is None:
        return InputRejected("the model gives no finite vector for the input; send another one")
    return Embedding(row, read.count, read.truncated) if isinstance(read, _Text) else Embedding(row)


def _import_open_clip() -> tuple[Any, Any]:
    # The libraries behind open_clip fetch what they miss unless they are told otherwise, before their import or after.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    try:
        import huggingface_hub.constants  # noqa: PLC0415 -- a gateway without a local model has no torch
        import open_clip
        import torch
    except ImportError as error:
        raise ModelUnusable(
            f"a local model needs packages that are not installed ({error.name}): pip install 'vecgate[clip]'"
        ) from error
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    return torch, open_clip


def _locate(config: ClipConfig, known: Sequence[str]) -> tuple[str, str, Path]:
    """Return a model's name, open_clip's word for where its configuration is, and its weights file."""
    bundled = sorted(path.parent.name for path in MODELS_DIR.glob(f"*/{CONFIG_FILE}"))
    name = config.model.replace("/", "-")
    if name in known:
        if config.checkpoint is None or not config.checkpoint.is_file():
            fix = "set clip.checkpoint to it" if config.checkpoint is None else f"{config.checkpoint} does not exist"
            raise ModelUnusable(f"the model {name} needs its weights in a file: {fix}; nothing is downloaded")
        return name, name, config.checkpoint.absolute()
    folder = MODELS_DIR / config.model if config.model in bundled else Path(config.model)
    if not (folder / CONFIG_FILE).is_file():
        close = difflib.get_close_matches(config.model, [*bundled, *known], n=3)
        raise ModelUnusable(
            f"{config.model} is neither a bundled model, nor a model of open_clip, nor a folder with {CONFIG_FILE}"
            + (f"; did you mean {' or '.join(close)}?" if close else "")
        )
    if config.checkpoint is not None:
        raise ModelUnusable(f"the model {config.model} brings its own weights: leave clip.checkpoint unset")
    weights = next((folder / each for each in WEIGHTS_FILES if (folder / each).is_file()), None)
    if weights is None:
        raise ModelUnusable(f"the folder {folder} has no weights: put {WEIGHTS_FILES[0]} into it")
    return Path(os.path.abspath(folder)).name, f"local-dir:{folder}", weights  # noqa: PTH100 -- keeps a link's name


def _device(wanted: str, torch: Any) -> str:
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ModelUnusable("CUDA is not there: check driver and torch build, or set the device to auto or cpu")
    return "cuda" if there and wanted != "cpu" else "cpu"


def _published_preprocessing(source: str, open_clip: Any) -> dict[str, Any]:
    """Return the preprocessing that all published weights of an open_clip model share; open_clip's own for the rest.

    Weights in a file do not tell, and open_clip takes its default for them, which is wrong for SigLIP and others.
    """
    configs = [open_clip.get_pretrained_cfg(source, tag) for tag in open_clip.list_pretrained_tags_by_model(source)]
    keys = ("mean", "std", "interpolation", "resize_mode")
    first = {key: configs[0][key] for key in keys if key in configs[0]} if configs else {}
    same = all({key: each[key] for key in keys if key in each} == first for each in configs)
    return {f"image_{key}": value for key, value in first.items()} if same else {}


def _causal_tower(model: Any, torch: Any) -> Any:
    """Return the model's text tower if padding behind the end token changes nothing in it, else None."""
    tower = getattr(model, "text", model)
    mask = getattr(tower, "attn_mask", None)
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    if mask is None or pool not in ("argmax", "eos") or getattr(tower, "cls_emb", None) is not None:
        return None
    causal = torch.full_like(mask, float("-inf")).triu(1)
    return tower if torch.equal(mask, causal) and hasattr(tower, "positional_embedding") else None


def _encode_trimmed(tower: Any, ids: Any) -> Any:
    """Do what open_clip's encode_text does for a tower that `_causal_tower` returned, for any number of tokens."""
    from open_clip.transformer import text_global_pool

    length = ids.shape[1]
    hidden = tower.token_embedding(ids) + tower.positional_embedding[:length]
    hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length]))
    pool = getattr(tower, "text_pool_type", None) or tower.pool_type
    end = getattr(tower, "text_eos_id", None) or getattr(tower, "eos_id", None)
    pooled = text_global_pool(hidden, ids, pool, eos_token_id=end)
    projection = tower.text_projection
    if projection is None:
        return pooled
    return projection(pooled) if callable(projection) else pooled @ projection
