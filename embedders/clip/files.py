"""Where a model's files are, and whether they are the right ones."""

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedders.clip.config import ClipConfig
from embedders.errors import ModelUnusable

__all__ = ["ModelFiles", "locate", "weights_digest"]

MODELS_DIR = Path(__file__).parent.parent / "models"
CONFIG_FILE = "open_clip_config.json"
# In open_clip's own order, so that the digest is of the file that it loads.
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files.

    Attributes:
        name: the model's name.
        source: open_clip's word for where the configuration is: a model of its own, or "local-dir:" and a folder.
        weights: the weights file.
    """

    name: str
    source: str
    weights: Path

    @property
    def pretrained(self) -> str | None:
        """What open_clip is told of the weights: it finds those of a folder itself."""
        return None if self.source.startswith("local-dir:") else str(self.weights)


def locate(config: ClipConfig, known: Sequence[str]) -> ModelFiles:
    """Return where the files of a configuration's model are; `known` are open_clip's own models.

    Raises:
        ModelUnusable: there is no such model, or it lacks weights.
    """
    bundled = sorted(path.parent.name for path in MODELS_DIR.glob(f"*/{CONFIG_FILE}"))
    name = config.model.replace("/", "-")
    if name in known:
        if config.checkpoint is None or not config.checkpoint.is_file():
            fix = "set clip.checkpoint to it" if config.checkpoint is None else f"{config.checkpoint} does not exist"
            raise ModelUnusable(f"the model {name} needs its weights in a file: {fix}; nothing is downloaded")
        return ModelFiles(name, name, config.checkpoint.absolute())
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
    return ModelFiles(Path(os.path.abspath(folder)).name, f"local-dir:{folder}", weights)  # noqa: PTH100 -- keeps a link's name


def weights_digest(weights: Path, expected: str | None) -> str:
    """Return the SHA-256 of a weights file in lower-case hex.

    Raises:
        ModelUnusable: it is not the expected one.
    """
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected.lower().removeprefix("sha256:"):
        raise ModelUnusable(
            f"the weights {weights} have SHA-256 {digest}, but clip.expected_digest is another one; "
            "use the right file, or correct the setting"
        )
    return digest
