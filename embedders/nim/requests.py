"""Requests to a NIM's /v1/embeddings: inputs checked, read by a few threads, and cut into bodies of a bounded size."""

import asyncio
import base64
import io
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from PIL import Image

from embedders.contract import EmbedOptions, ImageInput, Input, InputLimits, Modality
from embedders.errors import InputRejected
from embedders.images import decoding as images
from embedders.nim.profiles import Kind, NimProfile
from embedders.telemetry.timing import preprocessing
from embedders.texts import check_text

MAX_INPUTS = 64
"""Inputs that an nvclip NIM takes in one request."""

READERS = 4
"""Threads that read pictures."""

READ_AT_ONCE = 2 * READERS
"""Inputs of a batch that are read before those that fill a request are sent, so that it never holds all of them."""

_DATA_URI_START = re.compile(r"\s*data:(?=image)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Item:
    """One input as it goes over the wire: a string in JSON; of a text, perhaps only its first part."""

    content: bytes
    modality: Modality
    kind: Kind
    truncated: bool = False


class ItemReader:
    """Makes items of inputs.

    Args:
        name: the embedder's, for the names of the threads.
        profile: what the NIM takes.
        limits: bounds on one input.
        max_converted_pixels: pixels to which pictures that have to be converted are scaled down; 0 for no bound.
        max_request_bytes: bytes of the items of one request; a larger one goes alone.
    """

    def __init__(
        self,
        name: str,
        profile: NimProfile,
        limits: InputLimits,
        *,
        max_converted_pixels: int,
        max_request_bytes: int,
    ) -> None:
        self._profile = profile
        self._limits = limits
        self._max_converted_pixels = max_converted_pixels
        self._max_request_bytes = max_request_bytes
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix=f"{name}-input")

    async def requests(
        self, inputs: Sequence[Input], options: EmbedOptions, rejected: dict[int, InputRejected]
    ) -> AsyncGenerator[dict[int, Item]]:
        """Yield the items of one request after the other, by their inputs' places; further inputs are read in between.

        Args:
            inputs: of one batch.
            options: how to embed them.
            rejected: gets what is wrong with inputs, by their places.
        """
        filling: dict[Kind, dict[int, Item]] = {}
        sizes: dict[Kind, int] = {}
        for start in range(0, len(inputs), READ_AT_ONCE):
            for at, item in enumerate(await self._read(inputs[start : start + READ_AT_ONCE], options), start):
                if isinstance(item, InputRejected):
                    rejected[at] = item
                    continue
                sizes[item.kind] = sizes.get(item.kind, 0) + len(item.content)
                if sizes[item.kind] > self._max_request_bytes and item.kind in filling:
                    yield filling.pop(item.kind)
                    sizes[item.kind] = len(item.content)
                filling.setdefault(item.kind, {})[at] = item
        for request in filling.values():
            yield request

    async def close(self) -> None:
        """Wait for the threads, and end them. May be called twice."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def _read(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Item | InputRejected]:
        loop = asyncio.get_running_loop()
        with preprocessing():
            reading = [
                loop.run_in_executor(self._threads, self._item, each, options)
                for each in inputs
                if isinstance(each, ImageInput)
            ]
            pictures = iter(await asyncio.gather(*reading) if reading else [])
            return [next(pictures) if isinstance(each, ImageInput) else self._item(each, options) for each in inputs]

    def _item(self, each: Input, options: EmbedOptions) -> Item | InputRejected:
        kind = self._profile.kind(each, options)
        try:
            if isinstance(each, ImageInput):
                read = images.as_nim_image(each.content, self._limits, max_converted_pixels=self._max_converted_pixels)
                return Item(orjson.dumps(image_item(*read)), Modality.IMAGE, kind)
            text = check_text(each.text, self._limits, truncate=each.truncate)
        except InputRejected as error:
            return error
        # Where the request says what each input is, a text may look like anything.
        content = text if self._profile.modalities else text_item(text)
        return Item(orjson.dumps(content), Modality.TEXT, kind, truncated=len(text) < len(each.text))


@cache
def canary(modality: Modality, kind: Kind) -> Item:
    """Return an item that no working NIM refuses."""
    if modality is Modality.TEXT:
        return Item(b'"ready"', modality, kind)
    file = io.BytesIO()
    Image.new("RGB", (224, 224), "white").save(file, "PNG")
    return Item(orjson.dumps(image_item("image/png", file.getvalue())), modality, kind)


def text_item(text: str) -> str:
    """Return a text as an item of `input`.

    Line ends become spaces, because the schema's pattern has none. A NIM takes whatever starts with `data:image` for a
    picture; such a text gets a space behind the colon. The tokenizers of BERT and CLIP part words from punctuation and
    drop spaces, so both spellings give the same tokens and the same vector.
    """
    line = " ".join(text.splitlines())
    start = _DATA_URI_START.match(line)
    return line if start is None else f"{line[: start.end()]} {line[start.end() :]}"


def image_item(media_type: str, content: bytes) -> str:
    """Return an image file as an item of `input`: a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def embeddings_request(model: str, items: Sequence[bytes], fields: Mapping[str, Any] | None = None) -> list[bytes]:
    """Return the body of a request in pieces, so that large items are not copied into one.

    nvclip's schema allows no field besides these; other models take further ones.

    Args:
        model: the model's name.
        items: of `input`, each a string in JSON; at least one.
        fields: further fields.
    """
    others = orjson.dumps({"model": model, "encoding_format": "base64", **(fields or {})})
    pieces = [piece for item in items for piece in (b",", item)]
    return [b'{"input":[', *pieces[1:], b"],", others[1:]]
