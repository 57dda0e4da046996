"""Loading a model: files, devices, precision, and the probes that it has to pass before it serves."""

import hashlib
import io
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedders.clip.config import ClipConfig
from embedders.clip.files import ModelFiles, locate, weights_digest
from embedders.clip.libraries import import_open_clip, load_towers
from embedders.clip.messages import Facts
from embedders.clip.reading import Reader, Text
from embedders.clip.replica import Replica
from embedders.clip.tokenizers import load_tokenizer
from embedders.contract import EmbedderSpec, TextInput
from embedders.errors import ModelUnusable
from embedders.images.scaling import Scaling, scaled

PROBE_TEXTS = (
    "ready",
    "a red bicycle leaning against a white wall",
    "one two three four five six seven eight nine ten",
)
CPU_PICTURES_AT_ONCE = 8
"""Pictures in one forward pass on a CPU: more are hardly faster, and the next caller would wait for all of them."""

GPU_SLOTS = 3
"""Batches for each GPU at the same time: it is kept busy by some that are read while another one is computed. A CPU
does both itself, so that a batch better waits and grows."""

LEAST_PARITY = 0.999
"""The least cosine between a probe's vector in half precision and in 32 bits."""

GIB = 1024**3

_MISSING_WEIGHTS = ("No pretrained weights loaded", "Local config loaded, but no CLIP weights")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready, on one device.

    Attributes:
        reader: reads texts.
        replica: the model.
        facts: what there is to know of it; `devices` are all that are wanted, the first of which it is on.
        own_text: our own test input, for which the model has given a good vector.
        own_pixels: the same for a picture: uint8, shape (height, width, 3).
    """

    reader: Reader
    replica: Replica
    facts: Facts
    own_text: Text
    own_pixels: NDArray[np.uint8]


def load(config: ClipConfig) -> LoadedModel:
    """Load a model onto the first of its devices, and run a few texts and images through it.

    Raises:
        ModelUnusable: it is not known, its files are missing, broken or others than expected, a device is not there or
            has too little free memory, or its vectors are invalid.
    """
    try:
        return _load(config)
    except ModelUnusable as error:
        raise ModelUnusable(f"embedder {config.name}: {error}") from error
    except Exception as error:  # broken files may raise any error in the libraries
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise ModelUnusable(f"embedder {config.name}: the model {config.model} cannot be loaded: {reason}") from error


def published_preprocessing(source: str, open_clip: Any) -> dict[str, Any]:
    """Return the preprocessing that all published weights of an open_clip model share; open_clip's own for the rest.

    Weights in a file do not tell, and open_clip takes its default for them, which is wrong for SigLIP and others.
    """
    configs = [open_clip.get_pretrained_cfg(source, tag) for tag in open_clip.list_pretrained_tags_by_model(source)]
    keys = ("mean", "std", "interpolation", "resize_mode")
    first = {key: configs[0][key] for key in keys if key in configs[0]} if configs else {}
    same = all({key: each[key] for key in keys if key in each} == first for each in configs)
    return first if same else {}


def _load(config: ClipConfig) -> LoadedModel:
    torch, open_clip = import_open_clip()
    files = locate(config, open_clip.list_models())
    load_towers(open_clip.get_model_config(files.source))
    devices = _devices(config.device, torch)
    device = devices[0]
    if config.graphs and device == "cpu":
        raise ModelUnusable("CUDA graphs need a GPU: set its graphs to false, or its device to cuda")
    tokenizer = load_tokenizer(files.source)
    digest = weights_digest(files.weights, config.expected_digest)
    model = _create(files, device, "fp32")
    preprocessing: dict[str, Any] = model.visual.preprocess_cfg
    scaling = Scaling.of(preprocessing, draft_factor=config.jpeg_draft_factor)
    reader = Reader(tokenizer, limits=config.limits)
    texts, pixels = _probes(reader, scaling)
    replica = Replica(model, device=device, reader=reader)
    replica.check_packing(texts)
    expected = _vectors(replica, texts, pixels)
    precision = config.precision if config.precision != "auto" else "fp32" if device == "cpu" else "fp16"
    if precision != "fp32":
        may_pack = replica.packs
        del replica, model
        model = _create(files, device, precision)
        replica = Replica(model, device=device, reader=reader, precision=precision, may_pack=may_pack)
        _check_parity(_vectors(replica, texts, pixels), expected, f"in {precision} on {device}")
    if config.graphs:
        _record(replica, config.max_batch, texts, pixels, expected)
    spec = EmbedderSpec(
        name=config.name,
        model=files.name,
        space=f"clip:{files.name}:{_fingerprint(digest, preprocessing, reader, files, open_clip)}",
        dimension=expected.shape[1],
        limits=config.limits,
        max_text_tokens=reader.context_length,
        weights_digest=digest,
        max_batch=config.max_batch,
        max_images=min(config.max_batch, CPU_PICTURES_AT_ONCE) if device == "cpu" else None,
        slots=1 if device == "cpu" else GPU_SLOTS,
    )
    facts = Facts(
        spec=spec,
        form=reader.form,
        scaling=scaling,
        devices=tuple(devices),
        held_bytes=replica.held_bytes,
        cores=torch.get_num_threads(),
    )
    return LoadedModel(reader, replica, facts, texts[0], pixels[0])


def _create(files: ModelFiles, device: str, precision: str) -> Any:
    """Return the model on a device."""
    import open_clip

    if device != "cpu":
        _require_memory(files, device)
    # open_clip by itself looks in a folder for files of certain names only.
    with _quiet_about_missing_weights():
        model = open_clip.create_model(
            files.source,
            pretrained=None if files.in_folder else str(files.weights),
            load_weights=not files.in_folder,
            device=device,
            precision=precision,
            pretrained_text=False,
            force_preprocess_cfg=published_preprocessing(files.source, open_clip),
        )
    if files.in_folder:
        open_clip.load_checkpoint(model, str(files.weights))
    return model.eval()


def _require_memory(files: ModelFiles, device: str) -> None:
    """Check that a GPU has room for a model's weights in 32 bits, in which each model is loaded and probed first.

    Raises:
        ModelUnusable: it has not. A model that runs out of memory halfway would take what other models need.
    """
    import torch

    torch.cuda.empty_cache()  # what batches of other models have left behind counts as taken
    free, total = torch.cuda.mem_get_info(device)
    needed = _weights_bytes(files.weights)
    if needed > free:
        raise ModelUnusable(
            f"the model {files.name} needs {needed / GIB:.1f} GiB on {device} to load, and {free / GIB:.1f} of "
            f"{total / GIB:.1f} GiB are free: use another device or a smaller model, or end what else uses the GPU"
        )


def _weights_bytes(weights: Path) -> int:
    """Return the bytes of a model's weights in 32 bits; of a pickled file, which may hold fewer bits, its size."""
    if weights.suffix != ".safetensors":
        return weights.stat().st_size
    from safetensors import safe_open  # noqa: PLC0415 -- a gateway without a local model has none

    with safe_open(weights, "numpy") as file:
        counts: list[int] = [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 -- no mapping
    return 4 * sum(counts)


@contextmanager
def _quiet_about_missing_weights() -> Iterator[None]:
    """Keep open_clip's warnings from the log that a model has no weights, which it gets afterwards."""

    def others(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_MISSING_WEIGHTS)

    root = logging.getLogger()
    root.addFilter(others)
    try:
        yield
    finally:
        root.removeFilter(others)


def _devices(wanted: str, torch: Any) -> list[str]:
    """Return the devices to run on."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    if wanted == "auto":
        return gpus or ["cpu"]
    devices: list[str] = []
    for each in wanted.split(","):
        name = each.strip()
        if name == "cuda" and gpus:
            devices += gpus
        elif name == "cpu" or name in gpus:
            devices.append(name)
        else:
            there = f"there are {', '.join(gpus)}" if gpus else "no CUDA: check the driver and the torch build"
            raise ModelUnusable(f"the device {name} cannot be used; {there}; or set its device to auto or cpu")
    if "cpu" in devices and len(set(devices)) > 1:
        raise ModelUnusable("its device mixes cpu with GPUs; name one kind")
    return devices


def _probes(reader: Reader, scaling: Scaling) -> tuple[list[Text], NDArray[np.uint8]]:
    """Return texts, and pixels of pictures: uint8, shape (pictures, height, width, 3)."""
    texts = [
        each
        for each in reader.texts([TextInput(text, truncate=True) for text in PROBE_TEXTS])
        if isinstance(each, Text)
    ]
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    gradient = np.stack(
        [np.tile(ramp, (64, 1)), np.tile(ramp[:64, None], (1, 96)), np.full((64, 96), 128, np.uint8)], 2
    )
    pictures = Image.new("RGB", (64, 64), "white"), Image.fromarray(gradient)
    return texts, np.stack([scaled(_png(each), reader.limits, scaling) for each in pictures])


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _vectors(replica: Replica, texts: list[Text], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probes' vectors: float32, shape (probes, dimension)."""
    rows = replica.encode_texts(texts), replica.encode_pictures(pixels)
    if rows[0].shape[1] != rows[1].shape[1] or not all(np.isfinite(each).all() for each in rows):
        raise ModelUnusable("the model's text and image vectors differ in dimension or are not finite")
    return np.concatenate(rows)


def _record(
    replica: Replica,
    max_batch: int,
    texts: list[Text],
    pixels: NDArray[np.uint8],
    expected: NDArray[np.float32],
) -> None:
    """Record a replica's passes as CUDA graphs, and check each of them with the probes.

    Raises:
        ModelUnusable: memory does not suffice, the model cannot be recorded, or its vectors differ from `expected`.
            It does not go on without: after a recording that fails, torch does not give its memory back.
    """
    _, height, width, _ = pixels.shape
    try:
        replica.record(max_batch, (height, width))
    except RuntimeError as error:  # of which shortage of memory is one
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise ModelUnusable(
            f"CUDA graphs cannot be recorded on {replica.device}: {reason}; set its graphs to false, or its "
            "max_batch lower"
        ) from error
    for rows in replica.recorded_texts(texts):
        _check_parity(rows, expected[: len(rows)], f"by CUDA graphs on {replica.device}")
    for rows in replica.recorded_pictures(pixels):
        _check_parity(rows, expected[len(texts) :][: len(rows)], f"by CUDA graphs on {replica.device}")


def _check_parity(actual: NDArray[np.float32], expected: NDArray[np.float32], what: str) -> None:
    least = float((actual * expected).sum(axis=1).min())
    if not least >= LEAST_PARITY:
        raise ModelUnusable(
            f"the model's vectors {what} are too far from those in fp32: cosine {least:.4f}, at least {LEAST_PARITY} "
            "is needed; set its precision to fp32, or to bf16 if it was fp16, and its graphs to false"
        )


def _fingerprint(digest: str, preprocessing: dict[str, Any], reader: Reader, files: ModelFiles, open_clip: Any) -> str:
    model_config = open_clip.get_model_config(files.source)
    text_config = model_config["text_cfg"]
    settings = {
        "preprocessing": preprocessing,
        "tokenizer": {
            "kind": reader.tokenizer_kind,
            **({"tokens": reader.tokens_digest} if reader.tokens_digest else {}),
            "context_length": reader.context_length,
            **{key: text_config.get(key) for key in ("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs")},
        },
        # It changes vectors, but shows neither in the weights nor in the preprocessing.
        "quick_gelu": bool(model_config.get("quick_gelu", False)),
    }
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{digest}\n{canonical}".encode()).hexdigest()[:16]
