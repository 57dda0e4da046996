"""Proof that two embedders share a vector space: one text and one image, embedded by both, compared."""

import io
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedders.base import Embedder, Outcome
from embedders.errors import EmbedderUnavailable, ModelUnusable, SpaceDisproved
from embedders.inputs import QUERY, Embedding, EmbedOptions, ImageInput, Input, TextInput, Vector
from embedders.spec import EmbedderSpec

__all__ = ["PROBE_TEXT", "ProbeVectors", "ProvenEmbedder", "probe_image", "probe_vectors", "read_probe", "write_probe"]

PROBE_TEXT = "a photograph of a red bicycle leaning against a white wall"
PROBE_SIDE = 224


@dataclass(frozen=True, slots=True)
class ProbeVectors:
    """What a space's embedder makes of the probe.

    Attributes:
        space: the space.
        text: the vector of PROBE_TEXT: float32, shape (dimension,).
        image: the vector of probe_image().
    """

    space: str
    text: Vector
    image: Vector


Reference = Callable[[], Awaitable[ProbeVectors]]


def probe_image() -> bytes:
    """Return the image of the probe: a PNG of smooth waves of colour, which no scaling changes much."""
    across, down = np.meshgrid(np.linspace(0, 1, PROBE_SIDE), np.linspace(0, 1, PROBE_SIDE))
    waves = [np.sin(6 * across + 2 * down), np.cos(5 * down - across), np.sin(9 * across * down)]
    pixels = np.stack([np.round(127.5 * (1 + wave)) for wave in waves], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


async def probe_vectors(embedder: Embedder) -> ProbeVectors:
    """Embed the probe.

    Raises:
        EmbedderError: the embedder fails, or refuses the probe.
    """
    outcomes = await embedder.embed([TextInput(PROBE_TEXT), ImageInput(probe_image())], QUERY)
    vectors = [outcome.vector for outcome in outcomes if isinstance(outcome, Embedding)]
    if len(vectors) != len(outcomes):
        raise SpaceDisproved(f"the embedder {embedder.spec.name} refuses the text or the image of the probe")
    return ProbeVectors(embedder.spec.space, *vectors)


def write_probe(path: Path, probe: ProbeVectors) -> None:
    """Write a probe's vectors to a JSON file."""
    content = {"space": probe.space, "text": probe.text.tolist(), "image": probe.image.tolist()}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_probe(path: Path) -> ProbeVectors:
    """Return the vectors that write_probe wrote.

    Raises:
        ModelUnusable: the file cannot be read, or is of another form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        text, image = np.array([content["text"], content["image"]], np.float32)
        return ProbeVectors(str(content["space"]), text, image)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnusable(
            f"the probe file {path} cannot be read ({type(error).__name__}); write one with vecgate probe"
        ) from error


class ProvenEmbedder:
    """An embedder that says to be of another space than its own, and serves once a probe has shown it."""

    def __init__(self, inner: Embedder, *, space: str, reference: Reference, min_cosine: float) -> None:
        """Wrap `inner`, whose life this embedder takes over.

        Args:
            inner: the embedder.
            space: what it is said to be of.
            reference: gives the probe's vectors in that space; raises EmbedderUnavailable while it cannot.
            min_cosine: how near both vectors have to be to it.
        """
        self._inner = inner
        self._space = space
        self._reference = reference
        self._min_cosine = min_cosine
        self._proven = False

    @property
    def spec(self) -> EmbedderSpec:
        """The inner embedder's, with the declared space."""
        return replace(self._inner.spec, space=self._space)

    async def start(self) -> None:
        """Start the inner embedder, and prove its space if the reference can be had already.

        Raises:
            ModelUnusable: a local model cannot be loaded, or is of another space.
        """
        await self._inner.start()
        try:
            await self._prove()
        except SpaceDisproved as error:
            raise ModelUnusable(str(error)) from error
        except EmbedderUnavailable:
            pass  # `check` goes on trying

    async def embed(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Outcome]:
        """Embed inputs.

        Raises:
            EmbedderUnavailable: the space is not proven yet.
            SpaceDisproved: it is another one.
            EmbedderError: as the inner embedder.
        """
        if not self._proven:
            await self._prove()
        return await self._inner.embed(inputs, options)

    async def check(self) -> None:
        """Prove the space if that is still to be done, and check the inner embedder.

        Raises:
            EmbedderError: as `embed`.
        """
        if not self._proven:
            await self._prove()
        await self._inner.check()

    async def close(self) -> None:
        """Close the inner embedder. May be called twice."""
        await self._inner.close()

    async def _prove(self) -> None:
        name = self.spec.name
        try:
            expected = await self._reference()
        except EmbedderUnavailable as error:
            raise EmbedderUnavailable(
                f"whether {name} is of the space {self._space} is not proven yet: {error}",
                retry_after_s=error.retry_after_s,
            ) from error
        actual = await probe_vectors(self._inner)
        if expected.space != self._space:
            raise SpaceDisproved(f"{name} is declared to be of {self._space}, but the probe is of {expected.space}")
        for what, one, other in (("text", actual.text, expected.text), ("image", actual.image, expected.image)):
            near = _cosine(one, other)
            if near < self._min_cosine:
                raise SpaceDisproved(
                    f"{name} is declared to be of the space {self._space}, but its vector of the probe's {what} is far "
                    f"from that space's: cosine {near:.3f}, at least {self._min_cosine} is needed; its weights or its "
                    "preprocessing are others: unset clip.space, or use the model of that space"
                )
        self._proven = True


def _cosine(one: Vector, other: Vector) -> float:
    if one.shape != other.shape:
        return -1.0
    lengths: NDArray[np.float64] = np.linalg.norm(np.stack([one, other]).astype(np.float64), axis=1)
    return float(np.dot(one, other) / lengths.prod()) if lengths.all() else -1.0
