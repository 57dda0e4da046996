"""Profiles of the families of embedding NIMs: what they read, further fields of a request, and bounds.

A model's name and the length of its vectors are learnt from the NIM; what a profile says is what a NIM does not tell.
Sources, read in November 2026:

- nvclip: NVIDIA's OpenAPI 3.1 document of nvclip-vit-h-14, which allows no field but `input`, `model` and
  `encoding_format`, at most 64 inputs, and gives values of unit length. NVIDIA's hosted endpoint of it ended in June
  2026 (NVIDIA-AI-Blueprints/retail-shopping-assistant, PR 99); the container is what is left.
- The families of NeMo Retriever, one NIM with several models: docs.nvidia.com/nim/nemo-retriever, embedding 2.4 and
  text-embedding 2.2.0, 2.0.0 and 1.13.0, reference, parameters, support matrix and environment variables.
  `input_type` is query or passage, and pictures are taken as passage only; `modality` is text, image or text_image,
  one for the request or one for each input; `truncate` is START, END or NONE; `dimensions` is any value for the 3.5
  models, a list by model for others, and nothing for nemotron-3-embed-1b. Unit length is not promised.
- Batches: no bound on inputs is documented. The image of the 3.5 models sets its pipeline to 16; NVIDIA's own pipeline
  (NVIDIA/NeMo-Retriever, commit 3a2894c42) sends 32. More than 1024 are never sent.
- Tokens: the models' own bounds by the support matrix of 2.x; a NIM may be set to fewer (`NIM_PIPELINE_MAX_SEQ_LEN`).
- `dimensions` of llama-nemotron-embed-1b-v2: NVIDIA's page of NeMo Customizer. Of the others the values are in no page
  that was read, so that the NIM decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from embedders.contract import SEPARATE, Modality

AUTO = "auto"
"""A profile's name that stands for the profile whose pattern matches the model's name."""

MAX_DIMENSION = 65_536
"""The most values of a vector, as in Weaviate."""

TEXTS = frozenset({Modality.TEXT})

ROLE_SUFFIXES = ("-query", "-passage")
"""Ends of a model's name by which 1.x releases tell the role instead of by `input_type`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NimProfile:
    """The requests and answers of a family of models.

    Attributes:
        name: its name in the settings.
        patterns: the models' names in lower case, without the publisher, with * for anything and [] for one of a few
            characters.
        reads: the kinds of inputs that the models read.
        max_inputs: the most inputs of a request.
        batch: inputs of a request by default.
        max_text_tokens: tokens that the model reads of a text at most; None if models differ or none is documented.
        dimensions: the lengths of vectors that may be asked for (Matryoshka); empty if the models have one length.
        roles: whether `input_type` tells queries from passages.
        modalities: whether `modality` names the kind of each input; if not, the NIM tells it by a data URL in it.
        truncation: whether `truncate` says how to cut a text that is too long.
        unit_length: whether the model returns unit vectors; if not, they are scaled here.
    """

    name: str
    patterns: tuple[str, ...] = ()
    reads: frozenset[Modality] = SEPARATE
    max_inputs: int = 1024
    batch: int = 32
    max_text_tokens: int | None = None
    dimensions: Sequence[int] = ()
    roles: bool = False
    modalities: bool = False
    truncation: bool = False
    unit_length: bool = False


def _retriever(
    name: str,
    patterns: tuple[str, ...],
    *,
    reads: frozenset[Modality],
    batch: int = 32,
    max_text_tokens: int | None = None,
    dimensions: Sequence[int] = (),
) -> NimProfile:
    return NimProfile(
        name=name,
        patterns=patterns,
        reads=reads,
        batch=batch,
        max_text_tokens=max_text_tokens,
        dimensions=dimensions,
        roles=True,
        modalities=True,
        truncation=True,
    )


_UNDOCUMENTED = range(1, MAX_DIMENSION + 1)
_ALL = frozenset(Modality)

PROFILES = {
    profile.name: profile
    for profile in (
        NimProfile(name="nvclip", patterns=("nvclip*",), max_inputs=64, batch=64, max_text_tokens=77, unit_length=True),
        _retriever(
            "nemotron-3.5",
            ("nemotron-3[._-]5-embed*",),
            reads=_ALL,
            batch=16,
            max_text_tokens=32_768,
            dimensions=_UNDOCUMENTED,
        ),
        _retriever(
            "nemotron-vl",
            ("llama-nemotron-embed-vl-*",),
            reads=_ALL,
            max_text_tokens=2048,
            dimensions=_UNDOCUMENTED,
        ),
        _retriever(
            "nemoretriever-vlm",
            ("llama-3[._-]2-nemoretriever-*-vlm-embed-*",),
            reads=_ALL,
            max_text_tokens=4096,
            dimensions=_UNDOCUMENTED,
        ),
        # llama-3.2-nv-embedqa-1b-v2 is the former name of llama-nemotron-embed-1b-v2.
        _retriever(
            "llama-nemotron",
            ("llama-nemotron-embed-*", "llama-3[._-]2-nemoretriever-*-embed-*", "llama-3[._-]2-nv-embedqa-*"),
            reads=TEXTS,
            max_text_tokens=8192,
            dimensions=(384, 512, 768, 1024, 2048),
        ),
        _retriever("text", ("nemotron-3-embed-*", "nv-embed*", "bge-*", "*arctic-embed-*"), reads=TEXTS),
        # Any server that answers like OpenAI's endpoint and recognises pictures by their data URL.
        NimProfile(name="plain", batch=64),
    )
}
"""All profiles by name. Of several that match a model's name the first one counts; the last one fits every model."""


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


def check_profile(profile: NimProfile, model: str, *, max_batch: int | None, dimensions: int | None) -> None:
    """Refuse what a family of models does not take.

    Args:
        profile: of the family.
        model: the model's name; empty if it is not known yet.
        max_batch: inputs of a request, if set.
        dimensions: values of a vector to ask for, if set.

    Raises:
        ValueError: one of them does not fit; the message names the fix.
    """
    family = f"a NIM of profile {profile.name}"
    if max_batch is not None and not 1 <= max_batch <= profile.max_inputs:
        raise ValueError(f"max_batch is {max_batch}; {family} takes 1 to {profile.max_inputs} inputs a request")
    if dimensions is not None and dimensions not in profile.dimensions:
        match profile.dimensions:
            case ():
                fix = "has vectors of one length; leave dimensions out, or set the profile of the model's family"
            case range():
                fix = f"takes 1 to {MAX_DIMENSION}"
            case _:
                fix = f"takes {', '.join(map(str, profile.dimensions))}"
        raise ValueError(f"dimensions is {dimensions}; {family} {fix}")
    if profile.roles and (suffix := next(filter(model.lower().endswith, ROLE_SUFFIXES), None)) is not None:
        raise ValueError(
            f"model ends with {suffix}, by which each input has the role {suffix[1:]}; give the name without it: "
            "each request says the role of its inputs"
        )
