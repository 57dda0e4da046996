"""What an embedder says of itself."""

from dataclasses import dataclass

from embedders.inputs import Modality

__all__ = ["CUT_TEXTS", "EmbedderSpec", "InputLimits"]

CUT_TEXTS = 32
"""A text that may be cut may be so many times as long as others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLimits:
    """Bounds on one input, checked before any work is done for it.

    Attributes:
        max_text_bytes: UTF-8 bytes of a text; one that may be cut is cut to them first of all.
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
    """An embedder's identity and bounds. It does not change while the embedder lives, but for a dimension of 0.

    Attributes:
        name: what callers ask for.
        model: the model's name, such as "nvidia/nvclip".
        space: the id of the vector space that weights and preprocessing produce.
        dimension: values in a vector; 0 until a remote model whose dimension nobody set or knows has told it. Until
            then the embedder embeds nothing, and nothing may be bound to its space.
        modalities: what it embeds.
        limits: bounds on one input.
        max_text_tokens: tokens that the model reads with start and end tokens; None where the backend does not say.
        weights_digest: SHA-256 of the weights in lower-case hex; None for a model that runs elsewhere.
        max_batch: inputs that the backend takes at once.
        max_images: images that it takes at once, where that is fewer; None where it is not.
        slots: batches that the backend works on at the same time.
    """

    name: str
    model: str
    space: str
    dimension: int
    modalities: frozenset[Modality] = frozenset(Modality)
    limits: InputLimits
    max_text_tokens: int | None = None
    weights_digest: str | None = None
    max_batch: int
    max_images: int | None = None
    slots: int = 1
