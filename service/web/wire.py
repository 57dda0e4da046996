"""The JSON of a NIM's /v1/embeddings as a server reads and writes it; embedders/nim/wire.py has the client's side."""

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
import orjson

from embedders.contract import Embedding, ImageInput, Input, Modality, TextInput, Vector

NVCLIP_TOKENS = 77
"""Tokens that nvclip counts for a text, because it pads. Reported where the backend does not count them."""

_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(?P<field>\w{1,64})`")
_PLACE = re.compile(r"\.(?P<field>\w+(?:\[\d+\])?)`")
_TOKENS = frozenset({"Expected `str`, got `int`", "Expected `str`, got `array`"})
"""Errors about token numbers instead of texts. OpenAI accepts them, and LangChain's client sends them by default."""

Encoding = Literal["float", "base64"]
Role = Literal["query", "passage"]
Truncation = Literal["NONE", "END", "START"]
Kind = Literal["text", "image", "text_image"]
ValueType = Literal["float", "int8", "uint8", "binary", "ubinary"]

CHOICES: dict[str, tuple[str, ...]] = {
    "encoding_format": get_args(Encoding),
    "input_type": get_args(Role),
    "truncate": get_args(Truncation),
    "modality": get_args(Kind),
    # What a NIM knows beside it is refused with its own words.
    "embedding_type": ("float",),
}
"""The values that fields may have."""

VALUES_AT_ONCE = 64 * 1024
"""Values of vectors that are written at a time, so that a long answer keeps no other thread waiting."""


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
    """A request: the fields of nvclip and of today's embedding NIMs, and those that OpenAI's clients add.

    Attributes:
        input: a text, an image as a data URL, or a text with one behind it; or a list of them.
        model: the model that embeds.
        encoding_format: how vectors are written.
        embedding_type: the type of a vector's values.
        dimensions: the expected dimension.
        user: ignored.
        input_type: what the vectors are for.
        truncate: whether and where long texts may be truncated.
        modality: what the inputs are, all of them or each; None where their data URLs tell it.
    """

    input: str | list[str]
    model: Annotated[str, msgspec.Meta(min_length=1)]
    encoding_format: Encoding | None = None
    embedding_type: ValueType | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None
    input_type: Role | None = None
    truncate: Truncation | None = None
    modality: Kind | list[Kind] | None = None

    @property
    def items(self) -> list[str]:
        """The inputs, always as a list."""
        return [self.input] if isinstance(self.input, str) else self.input

    @property
    def modalities(self) -> list[Modality | None]:
        """What each input is declared to be."""
        if self.modality is None:
            return [None] * len(self.items)
        kinds = [self.modality] if isinstance(self.modality, str) else self.modality
        return [Modality(kind) for kind in (kinds * len(self.items) if len(kinds) == 1 else kinds)]


class RequestReader:
    """Reads requests.

    Args:
        max_inputs: inputs of one request.
    """

    def __init__(self, *, max_inputs: int) -> None:
        self._max_inputs = max_inputs
        self._decoder = msgspec.json.Decoder(EmbeddingsRequest)

    def read(self, body: bytes) -> EmbeddingsRequest:
        """Return a request.

        Raises:
            RequestRefused: the body is not JSON, breaks the schema, or asks for what this server does not do.
        """
        self._check_strings(body)
        try:
            request = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _broken_rule(error) from None  # the text of a cause may contain content
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise RequestRefused("the body is not JSON; send an object with input and model", readable=False) from None
        count = len(request.items)
        if not count:
            raise RequestRefused(f"is empty; give 1 to {self._max_inputs} texts and images", "input")
        if count > self._max_inputs:
            raise self._too_many(f"has {count} items")
        if isinstance(request.modality, list) and len(request.modality) not in (1, count):
            raise RequestRefused(
                f"has {len(request.modality)} values for {count} inputs; give one, or one for each input", "modality"
            )
        if request.embedding_type not in (None, "float"):
            raise RequestRefused(
                "must be float: this server has no integer and no binary vectors; leave it out, and let the vector "
                "index quantize",
                "embedding_type",
            )
        return request

    def _check_strings(self, body: bytes) -> None:
        # A list of millions of empty strings would need a dozen times the body's memory before its length is checked.
        # Of a body with n strings, this counts n to 2 n quotes: two a string, less one where a backslash ends it.
        fields = len(EmbeddingsRequest.__struct_fields__)
        bound = 2 * (2 * self._max_inputs + 2 * fields)  # each input may have a modality
        quotes = body.count(b'"')
        if quotes > bound and quotes - body.count(b'\\"') > bound:
            raise self._too_many("has far too many items")

    def _too_many(self, what: str) -> RequestRefused:
        return RequestRefused(
            f"{what}; a request takes at most {self._max_inputs}: split the request", "input", too_many=True
        )


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
        message = f"must be one of {', '.join(CHOICES.get((field or '').partition('[')[0], ()))}"
    if message in _TOKENS and (field or "").startswith("input["):
        message = (
            "token numbers are not accepted, because they belong to another model; send the text itself (in "
            "LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)"
        )
    return RequestRefused((message or text).replace("`", ""), field)


def write_embeddings(
    model: str, inputs: Sequence[Input], embeddings: Sequence[Embedding], *, packed: bool
) -> list[bytes]:
    """Return the answer to a request, in pieces.

    Args:
        model: the model that embedded.
        inputs: of the request.
        embeddings: one for each input, in order.
        packed: whether to write vectors as base64 of little-endian float32 instead of lists of numbers.
    """
    tokens = sum(
        NVCLIP_TOKENS if each.token_count is None else each.token_count
        for wanted, each in zip(inputs, embeddings, strict=True)
        if not isinstance(wanted, ImageInput)
    )
    usage = {
        "num_images": sum(not isinstance(each, TextInput) for each in inputs),
        "prompt_tokens": tokens,
        "total_tokens": tokens,
    }
    rest = orjson.dumps({"model": model, "usage": usage})
    pieces = list(_write_vectors(embeddings, packed=packed))
    pieces[0] = b'{"object":"list","data":[' + pieces[0]
    pieces[-1] += b"]," + rest[1:]
    return pieces


def _write_vectors(embeddings: Sequence[Embedding], *, packed: bool) -> Iterator[bytes]:
    """Write the items of a list, some at a time."""
    at_once = max(1, VALUES_AT_ONCE // max(1, len(embeddings[0].vector)))
    for start in range(0, len(embeddings), at_once):
        items = [
            {"object": "embedding", "index": start + at, "embedding": _write_vector(each.vector, packed=packed)}
            for at, each in enumerate(embeddings[start : start + at_once])
        ]
        yield (b"," if start else b"") + orjson.dumps(items, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


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
