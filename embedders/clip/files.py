"""Where a model's files are, and whether they are the right ones."""

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedders.clip.config import ClipConfig
from embedders.errors import ModelUnusable

MODELS_DIR = Path(__file__).parent.parent / "models"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files.

    Attributes:
        name: the model's name.
        source: open_clip's word for where the configuration is: its own model, or "local-dir:" and a folder.
        weights: the weights file.
    """

    name: str
    source: str
    weights: Path

    @property
    def in_folder(self) -> bool:
        """Whether the configuration is in a folder."""
        return self.source.startswith("local-dir:")


def locate(config: ClipConfig, known: Sequence[str]) -> ModelFiles:
    """Return where the files of a configuration's model are; `known` are open_clip's own models.

    Raises:
        ModelUnusable: the model is unknown, or its weights are missing.
    """
    bundled = sorted(path.parent.name for path in MODELS_DIR.glob(f"*/{CONFIG_FILE}"))
    name = config.model.replace("/", "-")
    if name in known:
        return ModelFiles(name, name, _checkpoint(config.checkpoint, name))
    folder = MODELS_DIR / config.model if config.model in bundled else Path(config.model)
    if not (folder / CONFIG_FILE).is_file():
        close = difflib.get_close_matches(config.model, [*bundled, *known], n=3)
        raise ModelUnusable(
            f"{config.model} is neither a bundled model, nor a model of open_clip, nor a folder with {CONFIG_FILE}"
            + (f"; did you mean {' or '.join(close)}?" if close else "")
        )
    own = [folder / each for each in WEIGHTS_FILES if (folder / each).is_file()][:1] or sorted(folder.glob("*.ckpt"))
    if own and config.checkpoint is not None:
        raise ModelUnusable(f"the model {config.model} has its own weights: leave its checkpoint unset")
    if len(own) > 1:
        raise ModelUnusable(
            f"the folder {folder} has several .ckpt files: leave one, or move them and set its checkpoint"
        )
    if not own and config.checkpoint is None:
        raise ModelUnusable(
            f"the folder {folder} has no weights: put {WEIGHTS_FILES[0]} or a .ckpt into it, or set its checkpoint"
        )
    weights = own[0] if own else _checkpoint(config.checkpoint, config.model)
    return ModelFiles(Path(os.path.abspath(folder)).name, f"local-dir:{folder}", weights)  # noqa: PTH100 -- keeps a link's name


def _checkpoint(checkpoint: Path | None, model: str) -> Path:
    if checkpoint is None or not checkpoint.is_file():
        fix = "set its checkpoint to it" if checkpoint is None else f"{checkpoint} does not exist"
        raise ModelUnusable(f"the model {model} needs its weights in a file: {fix}; nothing is downloaded")
    return checkpoint.absolute()


def weights_digest(weights: Path, expected: str | None) -> str:
    """Return the SHA-256 of a weights file in lower-case hex.

    Raises:
        ModelUnusable: it is not the expected one.
    """
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected.lower().removeprefix("sha256:"):
        raise ModelUnusable(
            f"the weights {weights} have SHA-256 {digest}, but its expected_digest differs; "
            "use the right file, or correct the setting"
        )
    return digest
