"""What an embedder is: inputs, options, outcomes, what it says of itself, and how it starts and ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedders.errors import InputRejected

Vector = NDArray[np.float32]
"""One vector: float32, shape (dimension,)."""


class Modality(Enum):
    """A kind of input."""

    TEXT = "text"
    IMAGE = "image"
    TEXT_IMAGE = "text_image"

    # Enum's own hash is that of the member's name, in Python; every call looks some up.
    __hash__ = object.__hash__


SEPARATE = frozenset({Modality.TEXT, Modality.IMAGE})
"""What a model with a tower for texts and one for images embeds, such as CLIP."""


class Purpose(Enum):
    """What a vector is for. Models with one role for both ignore it."""

    QUERY = "query"
    DOCUMENT = "document"

    __hash__ = object.__hash__


class Priority(Enum):
    """Who goes first when work waits: a person at a screen, or a bulk load."""

    INTERACTIVE = "interactive"
    BULK = "bulk"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How to embed the inputs of a call. Inputs of calls with equal options may share a batch.

    Attributes:
        purpose: what the vectors are for.
        priority: how urgent they are.
        api_key: the caller's own key for the backend; None for this server's.
        fresh: whether the backend must be asked, even if its answer is cached.
    """

    purpose: Purpose = Purpose.QUERY
    priority: Priority = Priority.INTERACTIVE
    api_key: str | None = field(default=None, repr=False)
    fresh: bool = False


QUERY = EmbedOptions()
DOCUMENT = EmbedOptions(Purpose.DOCUMENT)


@dataclass(frozen=True, slots=True)
class TextInput:
    """A text.

    Attributes:
        text: the text; not blank.
        truncate: whether it may be cut to the length that the model reads.
        at_start: whether it is cut at its start, so that its end is kept. A local model rejects a text that it would
            have to cut so, and a NIM without `truncate` each text that may be cut so.
    """

    text: str
    truncate: bool = False
    at_start: bool = False


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An encoded picture: the bytes of a file."""

    content: bytes


@dataclass(frozen=True, slots=True)
class TextImageInput:
    """A text and an encoded picture that a model reads together, as one input with one vector.

    Attributes:
        text: the text; not blank.
        content: the bytes of the picture's file.
        truncate: whether the text may be cut to the length that the model reads.
        at_start: whether it is cut at its start; see TextInput.
    """

    text: str
    content: bytes
    truncate: bool = False
    at_start: bool = False


Input = TextInput | ImageInput | TextImageInput


def modality(each: Input) -> Modality:
    """Return the kind of an input."""
    match each:
        case TextInput():
            return Modality.TEXT
        case ImageInput():
            return Modality.IMAGE
        case TextImageInput():
            return Modality.TEXT_IMAGE


@dataclass(frozen=True, slots=True)
class Embedding:
    """An input's vector and what happened to the input.

    Attributes:
        vector: float32, shape (dimension,), unit length.
        token_count: tokens of a text with the model's start and end tokens, after truncation; None for images and where
            the backend does not say.
        truncated: whether a text was cut.
    """

    vector: Vector
    token_count: int | None = None
    truncated: bool = False


CUT_TEXTS = 32
"""How many times as long a text may be if it may be cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLimits:
    """Bounds on one input, checked before any work is done for it.

    Attributes:
        max_text_bytes: UTF-8 bytes of a text; a text that may be cut is first cut to this length.
        max_image_bytes: bytes of an encoded image.
        max_image_pixels: width x height, read from the image's header. The default lets pictures of 50-megapixel
            cameras and phones pass, which have up to 51.3 million pixels.
        max_image_frames: frames or pages of an image, counted without decoding them; the first one is embedded.
    """

    max_text_bytes: int = 32 * 1024
    max_image_bytes: int = 20 * 1024 * 1024
    max_image_pixels: int = 52_000_000
    max_image_frames: int = 1000

    @property
    def max_cut_text_bytes(self) -> int:
        """UTF-8 bytes of a text that may be cut."""
        return CUT_TEXTS * self.max_text_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderSpec:
    """An embedder's identity and bounds. They change once at most, when a remote model is learnt.

    Attributes:
        name: what callers ask for.
        model: the model's name, such as "nvidia/nvclip"; empty while it is unknown.
        space: the id of the vector space that weights and preprocessing produce; empty while it is unknown.
        dimension: values in a vector; 0 while it is unknown.
        modalities: what it embeds.
        limits: bounds on one input.
        max_text_tokens: tokens that the model reads with start and end tokens; None where the backend does not say.
        weights_digest: SHA-256 of the weights in lower-case hex; None for a model that runs elsewhere.
        max_batch: inputs that the backend takes at once.
        max_images: images that it takes at once, if fewer than max_batch; else None.
        slots: batches that the backend works on at the same time.
        caller_keys: whether calls may have their own key; others' keys must not be sent to it.
        learnt: whether the backend has shown which model it serves. Until then nothing may be bound to the space, and
            the other attributes may still change.
    """

    name: str
    model: str
    space: str
    dimension: int
    modalities: frozenset[Modality] = SEPARATE
    limits: InputLimits
    max_text_tokens: int | None = None
    weights_digest: str | None = None
    max_batch: int
    max_images: int | None = None
    slots: int = 1
    caller_keys: bool = False
    learnt: bool = True


_KINDS = {
    frozenset({Modality.TEXT}): "texts only",
    frozenset({Modality.IMAGE}): "pictures only",
    SEPARATE: "texts and pictures, each as an input of its own",
}


def unread(spec: EmbedderSpec, kind: Modality) -> str:
    """Return in words that an embedder's model does not read a kind of input."""
    reads = _KINDS.get(spec.modalities) or " and ".join(sorted(_NAMES[each] for each in spec.modalities))
    return f"the model {spec.model} of embedder {spec.name} reads {reads}, not {_NAMES[kind]}"


def refused(spec: EmbedderSpec, each: Input) -> InputRejected:
    """Return why an embedder refuses an input of a kind that its model does not read."""
    return InputRejected(unread(spec, modality(each)))


_NAMES = {
    Modality.TEXT: "texts",
    Modality.IMAGE: "pictures",
    Modality.TEXT_IMAGE: "text and picture as one input",
}

Outcome = Embedding | InputRejected
"""The result for one input: its embedding, or the (unraised) error that says why there is none."""


class Embedder(Protocol):
    """Turns inputs into unit vectors of one space.

    An embedder belongs to one event loop. Its methods may run at the same time. The caller of `start` calls `close`.
    """

    @property
    def spec(self) -> EmbedderSpec:
        """Identity and bounds. Known once `start` has returned; of a remote model, once a `check` has passed."""
        ...

    async def start(self) -> None:
        """Get ready to embed: load and warm a local model, open connections.

        A backend that is down does not make it fail: `check` reports it, and the backend may come back.

        Raises:
            ModelUnusable: a local model cannot be loaded.
        """
        ...

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs; the outcomes keep their order, and an invalid input fails alone.

        Takes any number of inputs; an embedder with a bound on a batch splits them. Cancelling the call drops inputs
        that have not been started.

        Raises:
            EmbedderUnavailable: the backend does not answer, is overloaded or limits the rate of calls.
            CredentialRejected: the backend rejects the key; CallerKeyRejected if it is the key of `options`.
            ModelGone: the backend does not serve the model.
            AnswerInvalid: the backend's answer cannot be used, in whole or in part.
        """
        ...

    async def check(self) -> None:
        """Embed a short text to prove that the backend works.

        Raises:
            EmbedderError: as `embed`.
        """
        ...

    async def close(self) -> None:
        """Stop and free everything. Calls in flight fail with EmbedderUnavailable. May be called twice."""
        ...


NOT_CHECKED = "it has not been checked yet"


@dataclass(slots=True)
class Health:
    """Whether an embedder works, by the last call or check that reached the backend.

    Attributes:
        fault: why it does not work, in words; None if it works.
        last_success_s: when the last success was, by time.monotonic.
        outages: how often its circuit breaker has opened.
    """

    fault: str | None = NOT_CHECKED
    last_success_s: float = -math.inf
    outages: int = 0


class WatchedEmbedder(Embedder, Protocol):
    """An embedder that knows whether it works."""

    @property
    def health(self) -> Health:
        """Whether it works; answers from a cache and calls with callers' own keys do not change it."""
        ...

    def note_silence(self, since_s: float) -> None:
        """Record that a call which began then, by time.monotonic, was given up; another embedder may still answer."""
        ...
