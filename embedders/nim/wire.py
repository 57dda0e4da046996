"""What goes over the wire to a NIM's /v1/embeddings and back.

Inputs are checked, read by a few threads and cut into requests of a bounded size. Answers are vectors; what any other
answer means, and what callers are told of it, is here, too.
"""

import asyncio
import base64
import binascii
import io
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from embedders.contract import EmbedOptions, ImageInput, Input, InputLimits, Modality, Purpose, TextInput, Vector
from embedders.errors import (
    AnswerInvalid,
    CallerKeyRejected,
    CredentialRejected,
    EmbedderError,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
)
from embedders.images import decoding as images
from embedders.nim.connection import Answer
from embedders.nim.profiles import NimProfile
from embedders.nim.retries import PASSING
from embedders.telemetry.timing import preprocessing
from embedders.texts import check_text

MAX_INPUTS = 64
"""Inputs that an nvclip NIM takes in one request."""

READERS = 4
"""Threads that read pictures."""

READ_AT_ONCE = 2 * READERS
"""Inputs of a batch that are read before those that fill a request are sent, so that it never holds all of them."""

_DATA_URI_START = re.compile(r"\s*data:(?=image)", re.IGNORECASE)

MAX_DIMENSION = 65_536
"""Values that a vector may have; Weaviate takes no more."""

MAX_REFUSAL_LENGTH = 200

NORM_TOLERANCE = 1e-2
"""How far a vector's length may be from 1: half-precision engines are within a tenth of it."""

_MAX_DEPTH = 4

INFERENCE_FAILED = HTTPStatus.INTERNAL_SERVER_ERROR
"""The NIM's own documented answer when inference fails, which may be an input's fault or its own."""

INPUT_AT_FAULT = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        INFERENCE_FAILED,
    }
)
"""What a NIM answers to an input that it cannot embed, if an input of ours shows that it can embed others."""

_KEY_AT_FAULT = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, slots=True)
class Kind:
    """Fields of a request that hold for all of its inputs; inputs of two kinds cannot share one.

    Attributes:
        role: `input_type`; None where the model has one role for all.
        truncate: `truncate`; None where the model takes no such field.
    """

    role: str | None = None
    truncate: str | None = None


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
        kind = request_kind(self._profile, each, options)
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


def request_kind(profile: NimProfile, each: Input, options: EmbedOptions) -> Kind:
    """Return the kind of request that an input belongs into."""
    # Of pictures these models know passages only.
    query = options.purpose is Purpose.QUERY and isinstance(each, TextInput)
    role = ("query" if query else "passage") if profile.roles else None
    if not profile.truncation:
        return Kind(role)
    # Nothing of a picture is cut.
    return Kind(role, "END" if isinstance(each, TextInput) and each.truncate else "NONE")


def request_fields(profile: NimProfile, kind: Kind, modalities: list[str]) -> dict[str, Any]:
    """Return the fields of a request beyond the common ones; `modalities` say of each input what it is."""
    fields: dict[str, Any] = {}
    if kind.role is not None:
        fields["input_type"] = kind.role
    if profile.modalities:
        fields["modality"] = modalities
    if kind.truncate is not None:
        fields["truncate"] = kind.truncate
    return fields


def max_answer_bytes(count: int, dimension: int | None) -> int:
    """Return the bytes that the longest sensible answer with `count` vectors has, floats written out in full."""
    return 65_536 + count * (1024 + 32 * (dimension or MAX_DIMENSION))


def read_embeddings(body: bytes, *, count: int, dimension: int | None, unit_length: bool = True) -> NDArray[np.float32]:
    """Return an answer's vectors in the order of the request: float32, shape (count, dimension), rows of unit length.

    Vectors may be base64 of little-endian float32 or lists of numbers. They are ordered by their `index`, which has to
    number them without a gap from 0 or from 1.

    Args:
        body: the answer.
        count: inputs of the request.
        dimension: values that each vector has to have; None for whatever the first one has.
        unit_length: whether the model promises unit vectors; those of others are scaled.

    Raises:
        AnswerInvalid: the answer is no JSON of that form, or has another count or dimension, or values that are not
            finite, or a vector that is not of unit length though promised, or has no length at all.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerInvalid("the NIM's answer is no JSON") from error
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise AnswerInvalid("the NIM's answer has no list of embeddings in data")
    if len(data) != count:
        raise AnswerInvalid(f"the NIM answered {len(data)} embeddings for {count} inputs")
    vectors = [_read_vector(entry.get("embedding"), dimension) for entry in data]
    width = len(vectors[0]) if vectors else 0
    if any(len(vector) != width for vector in vectors) or not 0 < width <= MAX_DIMENSION:
        raise AnswerInvalid(f"the NIM answered embeddings of different lengths, or none of 1 to {MAX_DIMENSION} values")
    rows = np.empty((count, width), np.float32)
    rows[_positions(data)] = vectors
    return _check_unit(rows) if unit_length else _scaled(rows)


def read_refusal(body: bytes) -> str:
    """Return what a NIM says in a refusal's body, in short: its message, detail or title; empty if it says nothing.

    Whoever shows the words to others has to know that the request held nothing that is not for them.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    words = _words(answer)
    printable = "".join(each if each.isprintable() else " " for each in words)
    return " ".join(printable.split())[:MAX_REFUSAL_LENGTH]


def _positions(data: Sequence[dict[str, Any]]) -> list[int]:
    indexes = [entry.get("index") for entry in data]
    numbers = [index for index in indexes if type(index) is int]
    base = min(numbers, default=0)
    if base not in (0, 1) or sorted(numbers) != list(range(base, base + len(data))):
        raise AnswerInvalid("the NIM's answer does not number its embeddings from 0 or 1 without a gap")
    return [number - base for number in numbers]


def _words(answer: object, depth: int = 0) -> str:
    # FastAPI's detail is a list of objects with msg and loc, NVIDIA's gateway has title and detail, OpenAI has error.
    match answer:
        case str():
            return answer
        case list() if depth < _MAX_DEPTH:
            return "; ".join(filter(None, (_words(each, depth + 1) for each in answer[:3])))
        case {"msg": str() as message, "loc": list() as where}:
            return f"{'.'.join(map(str, where[:5]))}: {message}"
        case dict() if depth < _MAX_DEPTH:
            found = (_words(answer.get(key), depth + 1) for key in ("message", "detail", "error", "msg", "title"))
            return next(filter(None, found), "")
    return ""


def _read_vector(value: object, dimension: int | None) -> Vector:
    if isinstance(value, str):
        try:
            # b64decode(validate=True) does the same at twice the cost, because it asks a regular expression first.
            vector = np.frombuffer(binascii.a2b_base64(value, strict_mode=True), "<f4")
        except (binascii.Error, ValueError) as error:
            raise AnswerInvalid("the NIM answered an embedding that is no base64 of float32 values") from error
    elif isinstance(value, list) and all(type(number) in (float, int) for number in value):
        try:
            with np.errstate(over="ignore"):
                vector = np.array(value, np.float32)
        except OverflowError as error:
            raise AnswerInvalid("the NIM answered an embedding with values beyond float32") from error
    else:
        raise AnswerInvalid("the NIM answered an embedding that is neither base64 nor a list of numbers")
    if dimension is not None and len(vector) != dimension:
        raise AnswerInvalid(
            f"the NIM answered an embedding with {len(vector)} values; {dimension} are expected; "
            "set the embedder's dimension to what the model gives"
        )
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


class NimFailures:
    """Words the failures of one NIM.

    Args:
        model: the model's name.
        profile: what the NIM is taken for.
        api_key: this server's own, which no message shows.
        keyless: whether it is for the callers to bring keys, because this server has none.
    """

    def __init__(self, model: str, profile: NimProfile, api_key: str | None, *, keyless: bool) -> None:
        self._model = model
        self._profile = profile
        self._api_key = api_key
        self._keyless = keyless

    def of(self, answer: Answer, key: str | None) -> EmbedderError:
        """Return what to raise for an answer that no input is to blame for; `key` is the caller's."""
        message = f"the NIM answered with status {answer.status}"
        wait_s = answer.retry_after_s or 1.0
        if answer.status in _KEY_AT_FAULT:
            return self._of_key(answer, key, message)
        if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return ModelGone(f"{message}: it does not serve the model {self._model}")
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return EmbedderRateLimited(f"{message}: too many calls", retry_after_s=wait_s)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in PASSING:
            return EmbedderUnavailable(message, retry_after_s=wait_s)
        return AnswerInvalid(f"{message}, which is none that a NIM gives; check its address")

    def _of_key(self, answer: Answer, key: str | None, message: str) -> EmbedderError:
        what = "no credits are left for" if answer.status == HTTPStatus.PAYMENT_REQUIRED else "it refuses"
        if key is not None:
            return CallerKeyRejected(f"{message}: {what} the key that came with the call; send a valid one")
        if self._keyless:
            return CallerKeyRejected(f"{message}: it wants a key, and this server has none; send one with the call")
        return CredentialRejected(f"{message}: {what} this server's key; set a valid one")

    def of_all(self, answer: Answer, modality: Modality, key: str | None) -> EmbedderError:
        """Return what to raise when the NIM refuses an input of ours. Its words can hold nothing of any caller's."""
        if answer.status == INFERENCE_FAILED:
            return self.of(answer, key)
        words = read_refusal(answer.body)
        for secret in filter(None, (key, self._api_key)):
            words = words.replace(secret, "...")
        message = f"the NIM refuses even a plain {modality.value} with status {answer.status}"
        if words:
            message += f' and says "{words}"'
        if re.search(r"\bdegraded\b", words, re.IGNORECASE):
            return EmbedderUnavailable(message)
        message += f"; check that it serves the model {self._model} and is of profile {self._profile.name}"
        if re.search(r"\bmodel\b", words, re.IGNORECASE):
            return ModelGone(message)
        return AnswerInvalid(message)

    def of_input(self, item: Item, answer: Answer) -> InputRejected:
        """Return what is wrong with an input that the NIM cannot embed, though it can others."""
        if answer.status == INFERENCE_FAILED:
            return InputRejected(
                f"the NIM fails on the input with status {answer.status}, and not on others; send another one"
            )
        if item.modality is Modality.IMAGE:
            fix = "send a smaller JPEG or PNG image"
        else:
            bound = self._profile.max_text_tokens
            fix = "send a shorter text" + (f"; the model reads {bound} tokens" if bound else "")
            fix += ", or let it be truncated" if item.kind.truncate == "NONE" else ""
        return InputRejected(f"the NIM refuses the input with status {answer.status}; {fix}")
