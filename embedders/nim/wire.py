"""The JSON of a NIM's /v1/embeddings: what is asked and how the answer is read."""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from embedders.contract import Vector
from embedders.errors import AnswerInvalid

MAX_INPUTS = 64
"""Inputs that an nvclip NIM takes in one request."""

MAX_DIMENSION = 65_536
"""Values that a vector may have; Weaviate takes no more."""

MAX_REFUSAL_LENGTH = 200

NORM_TOLERANCE = 1e-2
"""How far a vector's length may be from 1: half-precision engines are within a tenth of it."""

_MAX_DEPTH = 4
_DATA_URI_START = re.compile(r"\s*data:(?=image)", re.IGNORECASE)


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
