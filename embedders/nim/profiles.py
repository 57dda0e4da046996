"""Profiles of the families of embedding NIMs: further fields of a request, bounds, and dimensions.

Sources, read in November 2026:

- nvclip: NVIDIA's OpenAPI 3.1 document of nvclip-vit-h-14, which allows no field but `input`, `model` and
  `encoding_format`, at most 64 inputs, and gives 1024 values of unit length.
- nemotron-vl and its forerunner nemoretriever-vlm: docs.nvidia.com/nim/nemo-retriever/text-embedding, API reference
  2.0.0 and 2.2.0 (`input_type` query or passage, "image inputs are supported only with passage or when input_type is
  omitted"; `modality` text, image or text_image, one for the request or one for each input; `truncate` START, END or
  NONE; `encoding_format` float or base64) and support matrix 1.9.0 and 2.2.0 (2048 values; 2048 tokens of
  llama-nemotron-embed-vl-1b-v2, 4096 of llama-3.2-nemoretriever-1b-vlm-embed-v1). No bound on inputs is documented;
  NVIDIA's own pipeline (NVIDIA/NeMo-Retriever, docker-compose.yaml) sends 30. Unit length is not promised.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

AUTO = "auto"
"""A profile's name that stands for the profile whose pattern matches the model's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NimProfile:
    """The requests and answers of a family of models.

    Attributes:
        name: its name in the settings.
        patterns: the models' names in lower case, without the publisher, with * for anything.
        max_inputs: the most inputs of a request.
        batch: inputs of a request by default.
        dimension: values in a vector; None if it is learnt from the NIM.
        max_text_tokens: tokens that the model reads of a text; None if it differs or is not documented.
        roles: whether `input_type` tells queries from passages.
        modalities: whether `modality` names the kind of each input; if not, the NIM tells it by the input's prefix.
        truncation: whether `truncate` says how to cut a text that is too long.
        unit_length: whether the model returns unit vectors; if not, they are scaled here.
    """

    name: str
    patterns: tuple[str, ...] = ()
    max_inputs: int
    batch: int
    dimension: int | None = None
    max_text_tokens: int | None = None
    roles: bool = False
    modalities: bool = False
    truncation: bool = False
    unit_length: bool = False


PROFILES = {
    profile.name: profile
    for profile in (
        NimProfile(
            name="nvclip",
            patterns=("nvclip*",),
            max_inputs=64,
            batch=64,
            dimension=1024,
            max_text_tokens=77,
            unit_length=True,
        ),
        NimProfile(
            name="nemotron-vl",
            patterns=("llama-nemotron-embed-vl-*",),
            max_inputs=1024,
            batch=30,
            dimension=2048,
            max_text_tokens=2048,
            roles=True,
            modalities=True,
            truncation=True,
        ),
        NimProfile(
            name="nemoretriever-vlm",
            patterns=("llama-3*2-nemoretriever-*-vlm-embed-*",),
            max_inputs=1024,
            batch=30,
            dimension=2048,
            max_text_tokens=4096,
            roles=True,
            modalities=True,
            truncation=True,
        ),
        # Any server that answers like OpenAI's endpoint and recognises pictures by their data URI.
        NimProfile(name="plain", max_inputs=1024, batch=64),
    )
}
"""All profiles by name; the last one fits every model."""


def choose_profile(name: str, model: str) -> NimProfile:
    """Return the profile of a name; for AUTO the one that matches the model's name, or else `plain`.

    Raises:
        ValueError: the profile is unknown.
    """
    if name != AUTO:
        try:
            return PROFILES[name]
        except KeyError:
            raise ValueError(f"unknown profile; the known ones are: {', '.join((AUTO, *PROFILES))}") from None
    short = model.rpartition("/")[2].lower()
    fitting = (
        profile for profile in PROFILES.values() if any(fnmatchcase(short, pattern) for pattern in profile.patterns)
    )
    return next(fitting, PROFILES["plain"])
