"""Requests to a NIM's /v1/embeddings, and its answers.

Inputs are checked and cut into requests of a bounded size; decoders read the pictures. Answers are read as vectors, or
as the error that their status means.
"""

import asyncio
import base64
import binascii
import io
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from embedders.contract import (
    EmbedOptions,
    ImageInput,
    Input,
    InputLimits,
    Modality,
    Purpose,
    TextImageInput,
    TextInput,
    Vector,
    modality,
    refused,
)
from embedders.errors import (
    AnswerInvalid,
    EmbedderError,
    InputRejected,
    ModelUnusable,
)
from embedders.images.decoders import Decoders
from embedders.nim.connection import Answer
from embedders.nim.failures import INFERENCE_FAILED, NimFailures, read_refusal
from embedders.nim.profiles import MAX_DIMENSION, NimProfile
from embedders.nim.serving import ServedModel
from embedders.telemetry.timing import preprocessing
from embedders.texts import check_text

READ_AT_ONCE = 8
"""Inputs of a batch that are read at a time, so that full requests are sent before all inputs are read."""

TEXT_AT_ONCE = 256 * 1024
"""Characters of texts that are read between two turns of the event loop, unless one text has more."""

READ_IN_THREAD_BYTES = 256 * 1024
"""Longer answers are read in a thread: one of 64 vectors as lists of 2048 numbers takes tens of milliseconds."""

WRITE_IN_THREAD_BYTES = 1024 * 1024
"""Larger pictures are written into requests in a thread."""

T = TypeVar("T")

_DATA_URL = re.compile(r":(?=image)(?<=data:)", re.IGNORECASE)

_TOKEN_BOUND = re.compile(r"maximum allowed token size (\d{1,7})")
"""How a NIM tells its bound when it refuses a text that is too long."""

NORM_TOLERANCE = 1e-2
"""How far a vector's length may be from 1; half-precision engines stay within a tenth of this."""

_PLAIN = {Modality.TEXT: "text", Modality.IMAGE: "image", Modality.TEXT_IMAGE: "text with an image"}


@dataclass(frozen=True, slots=True)
class Kind:
    """Fields of a request that apply to all of its inputs; inputs of different kinds cannot share one.

    Attributes:
        role: `input_type`; None if the model does not take it.
        truncate: `truncate`; None if the model does not take it.
    """

    role: str | None = None
    truncate: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One input as it is sent: a JSON string, of a text perhaps only its first part."""

    content: bytes
    modality: Modality
    kind: Kind
    truncated: bool = False


class ItemReader:
    """Reads inputs and cuts them into requests.

    Args:
        decoders: read pictures.
        served: what the NIM serves.
        limits: bounds on one input.
        max_converted_pixels: converted pictures are scaled down to so many pixels; 0 for no bound.
        max_request_bytes: bytes of the items of one request; a larger item goes alone.
    """

    def __init__(
        self,
        decoders: Decoders,
        served: ServedModel,
        limits: InputLimits,
        *,
        max_converted_pixels: int,
        max_request_bytes: int,
    ) -> None:
        self._served = served
        self._limits = limits
        self._max_converted_pixels = max_converted_pixels
        self._max_request_bytes = max_request_bytes
        self._decoders = decoders

    async def requests(
        self, inputs: Sequence[Input], options: EmbedOptions, rejected: dict[int, InputRejected]
    ) -> AsyncGenerator[dict[int, Item]]:
        """Yield one request after the other: its items by their inputs' places. Inputs are read in between.

        Args:
            inputs: of one batch.
            options: how to embed them.
            rejected: receives the errors of invalid inputs, by their places.
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

    async def _read(self, inputs: Sequence[Input], options: EmbedOptions) -> list[Item | InputRejected]:
        with preprocessing():
            reading = [self._item(each, options) for each in inputs if not isinstance(each, TextInput)]
            pictures = iter(await asyncio.gather(*reading) if reading else [])
            items = []
            size = TEXT_AT_ONCE
            for each in inputs:
                if isinstance(each, TextInput):
                    size += len(each.text)
                    if size > TEXT_AT_ONCE:
                        await asyncio.sleep(0)
                        size = len(each.text)
                items.append(await self._item(each, options) if isinstance(each, TextInput) else next(pictures))
            return items

    async def _item(self, each: Input, options: EmbedOptions) -> Item | InputRejected:
        what = modality(each)
        if what not in self._served.profile.reads:
            return refused(self._served.spec, each)
        try:
            # Before anything is decoded.
            text = "" if isinstance(each, ImageInput) else self._text(each)
        except InputRejected as error:
            return error
        if isinstance(each, TextInput):
            return self._written(each, options, text)
        write = partial(self._written, each, options, text)
        return await with_picture(each.content, self._decoders, self._limits, self._max_converted_pixels, write)

    def _written(self, each: Input, options: EmbedOptions, text: str, url: str = "") -> Item:
        profile = self._served.profile
        kind, what = request_kind(profile, each, options), modality(each)
        truncated = not isinstance(each, ImageInput) and len(text) < len(each.text)
        match what:
            case Modality.TEXT:
                # If the request names each input's kind, a text may hold a data URL.
                content = text if profile.modalities else text_item(text)
            case Modality.IMAGE:
                content = url
            case Modality.TEXT_IMAGE:
                content = text_image_item(text, url)
        return Item(orjson.dumps(content), what, kind, truncated=truncated)

    def _text(self, each: TextInput | TextImageInput) -> str:
        profile = self._served.profile
        if each.truncate and each.at_start and not profile.truncation:
            raise InputRejected(
                f"a NIM of profile {profile.name} cuts no text at its start; let it be cut at its end, or not at all"
            )
        return check_text(each.text, self._limits, truncate=each.truncate, at_start=each.at_start)


@cache
def white_picture() -> str:
    """Return a picture as an item of `input`: a white square, in which no working NIM finds a fault."""
    file = io.BytesIO()
    Image.new("RGB", (224, 224), "white").save(file, "PNG")
    return image_item("image/png", file.getvalue())


@cache
def canary(what: Modality, kind: Kind) -> Item:
    """Return an item that no working NIM rejects."""
    if what is Modality.TEXT:
        return Item(b'"ready"', what, kind)
    url = white_picture()
    return Item(orjson.dumps(url if what is Modality.IMAGE else text_image_item("ready", url)), what, kind)


def text_item(text: str) -> str:
    """Return a text as an item of `input`, for a NIM that is not told what the item is.

    Line breaks become spaces, because nvclip's schema excludes them. A NIM takes a string for a picture if it starts
    with `data:image`, and newer ones if it has that anywhere; so each gets a space after the colon. The tokenizers of
    BERT and CLIP separate words from punctuation and drop spaces, so both spellings give the same tokens and the same
    vector.
    """
    return _without_data_urls(" ".join(text.splitlines()))


def text_image_item(text: str, url: str) -> str:
    """Return a text and the data URL of a picture as one item of `input`, which has no other data URL."""
    return f"{_without_data_urls(text)}\n{url}"


def _without_data_urls(text: str) -> str:
    return _DATA_URL.sub(": ", text)


async def with_picture(
    content: bytes, decoders: Decoders, limits: InputLimits, max_converted_pixels: int, write: Callable[[str], T]
) -> T | InputRejected:
    """Return what `write` makes of a picture as an item of `input`, or why the picture cannot be sent.

    It is read by a decoder, and written in a thread if it is large: neither keeps the event loop.

    Raises:
        EmbedderUnavailable: nothing can read.
    """
    try:
        media_type, sent = await decoders.nim_image(content, limits, max_converted_pixels=max_converted_pixels)
    except InputRejected as error:
        return error

    def written() -> T:
        return write(image_item(media_type, sent))

    return await asyncio.to_thread(written) if len(sent) > WRITE_IN_THREAD_BYTES else written()


def image_item(media_type: str, content: bytes) -> str:
    """Return an image file as an item of `input`: a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def embeddings_request(model: str, items: Sequence[bytes], fields: Mapping[str, Any] | None = None) -> list[bytes]:
    """Return the body of a request in pieces, so that large items are not copied into one.

    nvclip's schema allows no other fields; other models take further ones.

    Args:
        model: the model's name.
        items: of `input`, each a string in JSON; at least one.
        fields: further fields.
    """
    others = orjson.dumps({"model": model, "encoding_format": "base64", **(fields or {})})
    pieces = [piece for item in items for piece in (b",", item)]
    return [b'{"input":[', *pieces[1:], b"],", others[1:]]


def request_kind(profile: NimProfile, each: Input, options: EmbedOptions) -> Kind:
    """Return the kind of request that an input belongs into."""
    # These models take pictures as passages only, also with a text.
    query = options.purpose is Purpose.QUERY and isinstance(each, TextInput)
    role = ("query" if query else "passage") if profile.roles else None
    if not profile.truncation:
        return Kind(role)
    # Pictures are not cut.
    if isinstance(each, ImageInput) or not each.truncate:
        return Kind(role, "NONE")
    return Kind(role, "START" if each.at_start else "END")


def request_fields(
    profile: NimProfile, kind: Kind, modalities: Sequence[str], dimensions: int | None = None
) -> dict[str, Any]:
    """Return the further fields of a request.

    Args:
        profile: of the model's family.
        kind: of its inputs.
        modalities: of its inputs, in order; one for all is written once.
        dimensions: values of a vector to ask for.
    """
    fields: dict[str, Any] = {} if dimensions is None else {"dimensions": dimensions}
    if kind.role is not None:
        fields["input_type"] = kind.role
    if profile.modalities:
        fields["modality"] = list(modalities) if len(set(modalities)) > 1 else modalities[0]
    if kind.truncate is not None:
        fields["truncate"] = kind.truncate
    return fields


def max_answer_bytes(count: int, dimension: int | None) -> int:
    """Return the most bytes of a valid answer with `count` vectors, with floats written out in full."""
    return 65_536 + count * (1024 + 32 * (dimension or MAX_DIMENSION))


class Embeddings(NamedTuple):
    """What a NIM answers.

    Attributes:
        model: the model's name; empty if the answer has none.
        rows: the vectors in the order of the request: float32, shape (count, dimension), rows of unit length.
    """

    model: str
    rows: NDArray[np.float32]


def read_embeddings(body: bytes, *, count: int, dimension: int | None, unit_length: bool = True) -> Embeddings:
    """Return an answer's vectors.

    Vectors may be base64 of little-endian float32 or lists of numbers. They are ordered by `index`, which must count
    from 0 or from 1 without a gap.

    Args:
        body: the answer.
        count: inputs of the request.
        dimension: the number of values of each vector; None for that of the first one.
        unit_length: whether the model promises unit vectors; if not, they are scaled.

    Raises:
        AnswerInvalid: the answer is not JSON of that form, has the wrong count or dimension, or has a vector with
            values that are not finite, not of the promised unit length, or all zeros.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise AnswerInvalid("the NIM's answer is not JSON") from error
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise AnswerInvalid("the NIM's answer has no list of embeddings in data")
    if len(data) != count:
        raise AnswerInvalid(f"the NIM answered {len(data)} embeddings for {count} inputs")
    vectors = [_read_vector(entry.get("embedding"), dimension) for entry in data]
    width = len(vectors[0]) if vectors else 0
    if any(len(vector) != width for vector in vectors) or not 0 < width <= MAX_DIMENSION:
        raise AnswerInvalid(f"the NIM answered embeddings of different lengths, or not of 1 to {MAX_DIMENSION} values")
    rows = np.empty((count, width), np.float32)
    rows[_positions(data)] = vectors
    model = answer.get("model")
    return Embeddings(model if isinstance(model, str) else "", _check_unit(rows) if unit_length else _scaled(rows))


def _positions(data: Sequence[dict[str, Any]]) -> list[int]:
    indexes = [entry.get("index") for entry in data]
    numbers = [index for index in indexes if type(index) is int]
    base = min(numbers, default=0)
    if base not in (0, 1) or sorted(numbers) != list(range(base, base + len(data))):
        raise AnswerInvalid("the NIM's answer does not number its embeddings from 0 or 1 without a gap")
    return [number - base for number in numbers]


def _read_vector(value: object, dimension: int | None) -> Vector:
    if isinstance(value, str):
        try:
            # b64decode(validate=True) does the same at twice the cost, because it runs a regular expression first.
            vector = np.frombuffer(binascii.a2b_base64(value, strict_mode=True), "<f4")
        except (binascii.Error, ValueError) as error:
            raise AnswerInvalid("the NIM answered an embedding that is not base64 of float32 values") from error
    elif isinstance(value, list) and {float, int}.issuperset(map(type, value)):
        with np.errstate(over="ignore"):
            vector = np.array(value, np.float32)
    else:
        raise AnswerInvalid("the NIM answered an embedding that is neither base64 nor a list of numbers")
    if dimension is not None and len(vector) != dimension:
        raise AnswerInvalid(f"the NIM answered an embedding with {len(vector)} values; {dimension} are expected")
    return vector


def _check_unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    _check_finite(rows)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(rows, axis=1)
    if (np.abs(lengths - 1) > NORM_TOLERANCE).any():
        raise AnswerInvalid("the NIM answered an embedding that is not of unit length")
    return rows


def _scaled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    _check_finite(rows)
    # In float64 no square of a float32 overflows.
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not lengths.all():
        raise AnswerInvalid("the NIM answered an embedding of nothing but zeros")
    scaled: NDArray[np.float32] = (rows / lengths).astype(np.float32)
    return scaled


def _check_finite(rows: NDArray[np.float32]) -> None:
    if not np.isfinite(rows).all():
        raise AnswerInvalid("the NIM answered an embedding with values that are not finite")


class EmbeddingFailures(NimFailures):
    """Maps the failures of one embedding NIM to errors.

    Args:
        served: what the NIM serves.
        api_key: this server's, which no message may show.
        keyless: whether only callers have keys.
    """

    def __init__(self, served: ServedModel, api_key: str | None, *, keyless: bool) -> None:
        super().__init__(api_key, keyless=keyless)
        self._served = served

    @property
    def model(self) -> str:
        """The name of the model that the NIM is to serve."""
        return self._served.spec.model

    @property
    def serves(self) -> str:
        """What the NIM lists instead of the model, in words; empty if it lists the model or nothing."""
        return self._served.serves

    def of_canary(self, answer: Answer, what: Modality, key: str | None) -> EmbedderError:
        """Return the error when the NIM rejects a canary of a kind; see of_all."""
        return self.of_all(answer, _PLAIN[what], key)

    def _of_misfit(self, message: str, words: str, check: str = "") -> EmbedderError:
        if self._served.dimensions is not None and "dimension" in words:
            return ModelUnusable(f"{message}; set dimensions to what {self.model} has, or leave it out")
        return super()._of_misfit(message, words, check or f" and is of profile {self._served.profile.name}")

    def of_input(self, item: Item, answer: Answer) -> InputRejected:
        """Return the error for an input that the NIM cannot embed, while it can embed others."""
        if answer.status == INFERENCE_FAILED:
            return InputRejected(
                f"the NIM fails on the input with status {answer.status}, but not on others; send another one"
            )
        return InputRejected(f"the NIM rejects the input with status {answer.status}; {self._fix(item, answer)}")

    def _fix(self, item: Item, answer: Answer) -> str:
        if item.modality is Modality.IMAGE:
            return "send a smaller JPEG or PNG image"
        told = _TOKEN_BOUND.search(read_refusal(answer.body))
        bound = int(told[1]) if told else self._served.profile.max_text_tokens
        fix = "send a shorter text" + (f"; the model reads at most {bound} tokens" if bound else "")
        if item.modality is Modality.TEXT_IMAGE:
            fix += ", or a smaller JPEG or PNG image"
        return fix + (", or let the text be truncated" if item.kind.truncate == "NONE" else "")
