"""The JSON of a NIM's /v1/embeddings as a server reads and writes it; embedders/nim/wire.py has the client's side."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
import orjson

from embedders.contract import Embedding, ImageInput, Input, TextInput, Vector
from embedders.nim.wire import MAX_INPUTS

NVCLIP_TOKENS = 77
"""Tokens that nvclip counts for a text, because it pads. Reported where the backend does not count them."""

_IMAGE_START = "data:image"
_IMAGE_URI = re.compile(r"data:image/[\w.+-]{1,40}(?:;[\w.+-]{1,40}=[\w.+-]{1,40}){0,4};base64,")
_PICTURE_LIKE = re.compile(r"\s*(?:(?i:data:)|(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/]{20,}={0,2}\s*$)")
"""A data URI, or base64 that begins like a PNG, JPEG, GIF or WebP file."""

_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(?P<field>\w{1,64})`")
_PLACE = re.compile(r"\.(?P<field>\w+(?:\[\d+\])?)`")
_TOKENS = frozenset({"Expected `str`, got `int`", "Expected `str`, got `array`"})
"""Errors about token numbers instead of texts. OpenAI accepts them, and LangChain's client sends them by default."""

_CHOICES = {"encoding_format": ("float", "base64"), "input_type": ("query", "passage"), "truncate": ("NONE", "END")}


class RequestRefused(Exception):
    """A body is not a valid request. The message names the rule, the bound and the fix, and contains no content.

    Attributes:
        field: the part that is wrong, such as "input[3]"; None for the whole body.
        readable: whether the body is JSON.
        too_many: whether it has too many inputs.
    """

    def __init__(
        self, message: str, field: str | None = None, *, readable: bool = True, too_many: bool = False
    ) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.readable = readable
        self.too_many = too_many


class EmbeddingsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request: the NIM's three fields, and those that clients of OpenAI and of text NIMs add.

    Attributes:
        input: a text or a data URI, or a list of them.
        model: the model that embeds.
        encoding_format: how vectors are written.
        dimensions: the expected dimension.
        user: ignored.
        input_type: what the vectors are for.
        truncate: whether long texts may be truncated.
    """

    input: str | list[str]
    model: Annotated[str, msgspec.Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None
    input_type: Literal["query", "passage"] | None = None
    truncate: Literal["NONE", "END"] | None = None

    @property
    def items(self) -> list[str]:
        """The inputs, always as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


class RequestReader:
    """Reads requests.

    Args:
        max_inputs: inputs of one request.
        strict_images: whether to refuse a text that looks like an image without its prefix. A NIM embeds it as text.
    """

    def __init__(self, *, max_inputs: int = MAX_INPUTS, strict_images: bool = False) -> None:
        self._max_inputs = max_inputs
        self._strict_images = strict_images
        self._decoder = msgspec.json.Decoder(EmbeddingsRequest)

    def read(self, body: bytes) -> EmbeddingsRequest:
        """Return a request.

        Raises:
            RequestRefused: the body is not JSON or breaks the schema.
        """
        self._check_strings(body)
        try:
            request = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _broken_rule(error) from None  # the text of a cause may contain content
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise RequestRefused("the body is not JSON; send an object with input and model", readable=False) from None
        if not request.items:
            raise RequestRefused(f"is empty; give 1 to {self._max_inputs} texts and images", "input")
        if len(request.items) > self._max_inputs:
            raise self._too_many(f"has {len(request.items)} items")
        return request

    def read_inputs(self, request: EmbeddingsRequest) -> list[Input]:
        """Return a request's inputs. An input that starts with `data:image` is an image, whatever its media type.

        Raises:
            RequestRefused: an image is not base64, or strict_images refuses a text.
        """
        truncate = request.truncate != "NONE"
        return [self._read_item(item, at, truncate=truncate) for at, item in enumerate(request.items)]

    def _check_strings(self, body: bytes) -> None:
        # A list of millions of empty strings would need a dozen times the body's memory before its length is checked.
        # Of a body with n strings, this counts n to 2 n quotes: two a string, less one where a backslash ends it.
        bound = 2 * (self._max_inputs + 2 * len(EmbeddingsRequest.__struct_fields__))
        quotes = body.count(b'"')
        if quotes > bound and quotes - body.count(b'\\"') > bound:
            raise self._too_many("has far too many items")

    def _too_many(self, what: str) -> RequestRefused:
        return RequestRefused(
            f"{what}; a request takes at most {self._max_inputs}: split the request", "input", too_many=True
        )

    def _read_item(self, item: str, at: int, *, truncate: bool) -> Input:
        field = f"input[{at}]"
        if item.startswith(_IMAGE_START):
            uri = _IMAGE_URI.match(item)
            if uri is None:
                raise RequestRefused(
                    "an image has the form data:image/png;base64,... or data:image/jpeg;base64,", field
                )
            packed = item[uri.end() :]
            if "\n" in packed:
                # The program base64 and MIME encoders write lines.
                packed = packed.replace("\r", "").replace("\n", "")
            try:
                return ImageInput(binascii.a2b_base64(packed, strict_mode=True))
            except (binascii.Error, ValueError):
                raise RequestRefused("the image is not base64; use the standard alphabet with padding", field) from None
        if self._strict_images and _PICTURE_LIKE.match(item):
            raise RequestRefused(
                "looks like an image without its prefix, or a data URI of another kind, and would be embedded as a "
                "text; send images as data:image/png;base64,...",
                field,
            )
        return TextInput(item, truncate)


def _broken_rule(error: msgspec.ValidationError) -> RequestRefused:
    # Two kinds of messages repeat what the caller sent, which may be megabytes and look like the end of a message.
    text = str(error)
    if text.startswith("Object contains unknown field"):
        # A plain word is the name of an unknown field; anything else may be content.
        named = _FIELD.fullmatch(text)
        known = ", ".join(EmbeddingsRequest.__struct_fields__)
        return RequestRefused(f"extra inputs are not permitted; the fields are {known}", named and named["field"])
    message, _, where = text.rpartition(" - at `$")
    place = _FIELD.fullmatch(text) or _PLACE.fullmatch(where)
    field = place and place["field"]
    if message.startswith("Invalid enum value"):
        message = f"must be one of {', '.join(_CHOICES.get(field or '', ()))}"
    if message in _TOKENS and (field or "").startswith("input["):
        message = "token numbers are not accepted, because they belong to another model; send the text itself"
    return RequestRefused((message or text).replace("`", ""), field)


def write_embeddings(model: str, inputs: Sequence[Input], embeddings: Sequence[Embedding], *, packed: bool) -> bytes:
    """Return the answer to a request.

    Args:
        model: the model that embedded.
        inputs: of the request.
        embeddings: one for each input, in order.
        packed: whether to write vectors as base64 of little-endian float32 instead of lists of numbers.
    """
    tokens = sum(
        NVCLIP_TOKENS if each.token_count is None else each.token_count
        for wanted, each in zip(inputs, embeddings, strict=True)
        if isinstance(wanted, TextInput)
    )
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _write_vector(each.vector, packed=packed)}
            for index, each in enumerate(embeddings)
        ],
        "model": model,
        "usage": {
            "num_images": sum(isinstance(each, ImageInput) for each in inputs),
            "prompt_tokens": tokens,
            "total_tokens": tokens,
        },
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _write_vector(vector: Vector, *, packed: bool) -> str | Vector:
    if packed:
        return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")
    return np.ascontiguousarray(vector, np.float32)


def write_error(
    status: int, message: str, *, kind: str, code: str, field: str | None = None, request_id: str = ""
) -> bytes:
    """Return the body of an error that every client can show.

    Weaviate's module shows `message`, `detail` or `title`, depending on the status, and takes strings only; a NIM's
    users look for `detail` and `requestId`, OpenAI's clients for `error`.

    Args:
        status: of HTTP.
        message: for the caller.
        kind: OpenAI's type of the error, such as "invalid_request_error".
        code: the reason, for programs.
        field: the part of the request that is wrong.
        request_id: identifies the request in the log.
    """
    return orjson.dumps(
        {
            "message": message,
            "detail": message,
            "title": message,
            "status": status,
            "requestId": request_id,
            "error": {"message": message, "type": kind, "param": field, "code": code},
        }
    )
