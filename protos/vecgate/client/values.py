"""What the client takes and returns, and its conversion to and from protobuf messages."""

import io
import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable
from uuid import UUID

import numpy as np
from google.protobuf import json_format
from numpy.typing import ArrayLike, NDArray

from vecgate.client.errors import VecgateError, error_from_status
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import input_pb2 as input_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import scope_pb2 as scope_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1 import vector_pb2 as vector_pb
from vecgate.v1.embedder_pb2 import EmbedderRef

Floats = NDArray[np.float32]
Consistency: TypeAlias = "scope_pb.Consistency.ValueType"


@runtime_checkable
class PilImage(Protocol):
    """A PIL image. The client needs Pillow for nothing else."""

    @property
    def mode(self) -> str:
        """Its pixel format."""

    def convert(self, mode: str) -> Self:
        """Return the image in another mode."""

    def getexif(self) -> Any:
        """Return its EXIF data."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002 -- Pillow's name
        """Write it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image by its URI, which the server fetches if its operator allows it."""

    uri: str


Image = bytes | bytearray | memoryview | Path | PilImage | Reference
"""An encoded image, the path of an image file, a PIL image, or a reference to an image.

A PIL image is sent upright and without loss; CMYK, YCbCr, LAB and HSV become RGB first. One of mode F or I is a TIFF,
of which the server reads the least value as black and the greatest as white; give an L to keep values as they are.
"""


@dataclass(frozen=True, slots=True, eq=False)
class TextImage:
    """A text and an image as one input, for models that read both together."""

    text: str
    image: Image


Input = str | Image | TextImage
"""What is embedded: a str is a text."""

# The modes of Pillow that PNG can store; and those whose values it would cut, which TIFF stores.
PNG_MODES = frozenset({"1", "I;16", "L", "LA", "P", "RGB", "RGBA"})
TIFF_MODES = frozenset({"F", "I", "I;16B"})

MAX_LEVELS = 32
"""Objects and lists within each other in a property; Weaviate has at most 10 levels, and protobuf fails beyond 48."""
MINUTE = timedelta(minutes=1)

MAX_EXACT_INT = 2**53
"""Up to this number, positive or negative, every whole number is exact as a double."""


def decode_vector(vector: vector_pb.Vector) -> Floats:
    """Return the values of a Vector message: little-endian float32, one after the other.

    The array is a copy and may be changed.

    Example:
        response = stub.EmbedInputs(request)
        values = decode_vector(response.results[0].embedding.vector)
    """
    return np.frombuffer(vector.data, dtype="<f4").astype(np.float32)


def encode_vector(values: ArrayLike) -> vector_pb.Vector:
    """Return a Vector message of the values.

    Raises:
        ValueError: the values are not one-dimensional.
    """
    array = np.ascontiguousarray(values, dtype="<f4")
    if np.ndim(values) != 1:
        raise ValueError(f"a vector has one dimension, not the shape {np.shape(values)}")
    return vector_pb.Vector(data=array.tobytes())


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """The result of one input: a vector or an error.

    Attributes:
        vector: float32 values, scaled to unit length; None if the input failed.
        error: why there is no vector; None if there is one.
        token_count: the tokens of a text; None for images, alone or with a text, and if the backend does not say.
        truncated: whether a text was cut.
    """

    vector: Floats | None = None
    error: VecgateError | None = None
    token_count: int | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The answer of `Client.embed`.

    Attributes:
        embedder: the embedder that made the vectors: name, model, space, dimension.
        items: one entry for each input, in order.
    """

    embedder: EmbedderRef
    items: tuple[Embedded, ...]

    def matrix(self) -> Floats:
        """Return all vectors as the rows of one array.

        Raises:
            VecgateError: an input failed; the error of the first one.
        """
        for item in self.items:
            if item.error is not None:
                raise item.error
        return np.stack([item.vector for item in self.items if item.vector is not None])


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Object:
    """One entry of a collection.

    Attributes:
        properties: values by property name. Dates may be `datetime` with a time zone, ids `UUID`; a location is a
            mapping of "latitude" and "longitude"; None is an absent value; at most 32 lists and objects are within each
            other. Of an object that was read, a number without a fraction is an int up to 2^53, whatever the property's
            type, and may be written back unchanged.
        images: images by blob property; in an object that was read, encoded bytes.
        vectors: values by named vector; an import stores them instead of computing vectors.
        id: a UUID as text; if empty, the server derives one from the content.
    """

    properties: Mapping[str, Any]
    images: Mapping[str, bytes]
    vectors: Mapping[str, ArrayLike]
    id: str

    def __init__(
        self,
        properties: Mapping[str, Any] | None = None,
        images: Mapping[str, Image] | None = None,
        vectors: Mapping[str, ArrayLike] | None = None,
        id: str | UUID = "",  # noqa: A002 -- the field's name
    ) -> None:
        for name, value in (("properties", properties), ("images", images), ("vectors", vectors)):
            object.__setattr__(self, name, {} if value is None else value)
        object.__setattr__(self, "id", id_to_text(id))


Objects = Object | Iterable[Object]
AsyncObjects = Objects | AsyncIterable[Object]


class Health(Enum):
    """The health of a service, as in grpc.health.v1."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """The result of one object.

    Attributes:
        id: its id, given or derived.
        error: why it is not stored; None if it is, or if it was left out as a duplicate.
        vectors: where each named vector came from.
        duplicate_of: the object that it duplicates, with `duplicates`; None if there is none.
        skipped: whether it is not stored because it is a duplicate.
    """

    id: str
    error: VecgateError | None = None
    vectors: tuple[object_pb.StoredVector, ...] = ()
    duplicate_of: object_pb.Duplicate | None = None
    skipped: bool = False

    @property
    def stored(self) -> bool:
        """Whether the object is stored."""
        return self.error is None and not self.skipped


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """One object found.

    Attributes:
        object: the object.
        distance: its distance to the query; None if there is none.
        certainty: 1 - distance / 2, for cosine distance only.
        score: how well it matches a bm25 or hybrid query.
        created: when the object was created, with `return_times`.
        updated: when it was last updated, with `return_times`.
        explain_score: how the score was computed, with `return_explain_score`.
        rerank_score: the reranker's, with `rerank`.
        group: the name of its group, with `group_by`.
    """

    object: Object
    distance: float | None
    certainty: float | None
    score: float | None = None
    created: datetime | None = None
    updated: datetime | None = None
    explain_score: str = ""
    rerank_score: float | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Reranking:
    """What a reranker of the server did.

    Attributes:
        reranker: its name.
        model: its model's name.
        scored: how many of the first hits have a score now.
        error: why the hits have kept their first order, with `keep_order_on_failure`; None if they are reranked.
    """

    reranker: str
    model: str
    scored: int
    error: VecgateError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """The answer of `Client.search`.

    Attributes:
        embedder: the embedder of the query; None if nothing was embedded.
        hits: nearest first; with `group_by`, group by group.
        groups: the groups in order, with `group_by`.
        embedders: the embedders of the query for all searched vectors.
        reranking: what a reranker of the server did; None if none was named.
    """

    embedder: EmbedderRef | None
    hits: tuple[Hit, ...]
    groups: tuple[search_pb.Group, ...] = ()
    embedders: tuple[EmbedderRef, ...] = ()
    reranking: Reranking | None = None


@dataclass(frozen=True, slots=True)
class PlacedInput:
    """Where an input of `Client.project_objects` is.

    Attributes:
        x: along the first axis.
        y: along the second axis.
        nearest: the indexes of the nearest objects, the nearest one first.
    """

    x: float
    y: float
    nearest: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The answer of `Client.project_objects`: objects as points in two dimensions.

    Attributes:
        ids: the objects, by ascending id.
        coordinates: float32, shape (ids, 2): where they are. Their mean is (0, 0).
        properties: of each property one value for each id, None where an object has none.
        inputs: where the inputs are.
        embedder: the embedder of the inputs; None without inputs.
        target_vector: the named vector that was projected.
        space: the space that it is bound to; empty if it is bound to none.
        explained_variance: with PCA, the share of the variance along each axis.
        total_count: how many objects match the filters.
        missing_count: how many objects were read that lack the named vector.
    """

    ids: tuple[str, ...]
    coordinates: Floats
    properties: Mapping[str, tuple[Any, ...]]
    inputs: tuple[PlacedInput, ...]
    embedder: EmbedderRef | None
    target_vector: str
    space: str
    explained_variance: tuple[float, ...]
    total_count: int
    missing_count: int


def several(items: Any) -> Iterable[Any]:
    """Return items, and a single one as a list of one; a str is never a list of its letters."""
    alone = isinstance(items, str | bytes | bytearray | memoryview) or not isinstance(items, Iterable)
    return [items] if alone else items


async def async_each(items: AsyncObjects) -> AsyncIterator[Object]:
    """Yield items as `several` returns them, or those of an asynchronous iterable."""
    if isinstance(items, AsyncIterable):
        async for each in items:
            yield each
    else:
        for each in several(items):
            yield each


def id_to_text(value: str | UUID) -> str:
    """Return an id as text.

    Raises:
        TypeError: it is neither a str nor a UUID.
    """
    if isinstance(value, str | UUID):
        return str(value)
    raise TypeError(f"an id is a str or a UUID, not {type(value).__name__}")


def input_to_pb(value: Input) -> input_pb.Input:
    """Return the message of an input: a str is a text, a TextImage both, anything else an image."""
    if isinstance(value, str):
        return input_pb.Input(text=value)
    if isinstance(value, TextImage):
        return input_pb.Input(text_image=text_image_to_pb(value))
    return input_pb.Input(image=image_to_pb(value))


def text_image_to_pb(value: TextImage) -> input_pb.TextImage:
    """Return the message of a text and an image as one input.

    Raises:
        TypeError: one of them has another type.
        OSError: the file cannot be read.
    """
    if not isinstance(value.text, str):
        raise TypeError(f"the text of a TextImage is a str, not {type(value.text).__name__}")
    return input_pb.TextImage(text=value.text, image=image_to_pb(value.image))


def image_to_pb(value: Image) -> input_pb.Image:
    """Return the message of an image.

    Raises:
        TypeError: it has another type.
        OSError: the file cannot be read.
    """
    match value:
        case Path():
            return input_pb.Image(content=value.read_bytes())
        case bytes() | bytearray() | memoryview():
            return input_pb.Image(content=bytes(value))
        case Reference():
            return input_pb.Image(uri=value.uri)
        case PilImage():
            return input_pb.Image(content=_encode(value))
    raise TypeError(f"an image is bytes, the Path of a file, a PIL image or a Reference, not {type(value).__name__}")


def embedded_from_pb(result: embedding_pb.EmbedResult) -> Embedded:
    """Return the result of one input."""
    if result.WhichOneof("outcome") != "embedding":
        return Embedded(error=error_from_status(result.error))
    made = result.embedding
    return Embedded(
        vector=decode_vector(made.vector),
        token_count=made.token_count if made.HasField("token_count") else None,
        truncated=made.truncated,
    )


def object_to_pb(value: Object) -> object_pb.DataObject:
    """Return the message of an object.

    Raises:
        TypeError: it is something else, such as a dict.
        ValueError: a property's value or a vector cannot be sent; the message names it.
        OSError: an image cannot be read.
    """
    if not isinstance(value, Object):
        raise TypeError(f"an object is an Object(properties), not {type(value).__name__}")
    message = object_pb.DataObject(id=value.id)
    for name, data in value.images.items():
        try:
            message.images[name].CopyFrom(image_to_pb(data))
        except TypeError as error:
            raise ValueError(f"image {name!r}: {error}") from error
        except OSError as error:
            raise OSError(f"image {name!r} cannot be read: {error}") from error
    for name, content in value.properties.items():
        try:
            message.properties[name] = _plain(content)
        except (TypeError, ValueError) as error:
            raise ValueError(f"property {name!r}: {error}") from error
    for name, values in value.vectors.items():
        try:
            message.vectors[name].CopyFrom(encode_vector(values))
        except (TypeError, ValueError) as error:
            raise ValueError(f"vector {name!r}: {error}") from error
    return message


def object_from_pb(message: object_pb.DataObject) -> Object:
    """Return the object of a message; numbers without a fraction are ints as far as ints are exact."""
    properties = json_format.MessageToDict(message.properties)
    return Object(
        properties=_whole(properties),
        images={name: image.content for name, image in message.images.items()},
        vectors={name: decode_vector(vector) for name, vector in message.vectors.items()},
        id=message.id,
    )


def outcome_from_pb(result: object_pb.ImportResult) -> ImportOutcome:
    """Return the result of one object."""
    match result.WhichOneof("outcome"):
        case "stored":
            of = result.stored.duplicate_of if result.stored.HasField("duplicate_of") else None
            return ImportOutcome(result.id, vectors=tuple(result.stored.vectors), duplicate_of=of)
        case "skipped":
            return ImportOutcome(result.id, duplicate_of=result.skipped, skipped=True)
        case _:
            return ImportOutcome(result.id, error_from_status(result.error))


def result_from_pb(response: search_pb.SearchObjectsResponse) -> SearchResult:
    """Return the result of a search."""
    hits = (
        Hit(
            object_from_pb(hit.object),
            hit.distance if hit.HasField("distance") else None,
            hit.certainty if hit.HasField("certainty") else None,
            hit.score if hit.HasField("score") else None,
            hit.creation_time.ToDatetime(UTC) if hit.HasField("creation_time") else None,
            hit.update_time.ToDatetime(UTC) if hit.HasField("update_time") else None,
            hit.explain_score,
            hit.rerank_score if hit.HasField("rerank_score") else None,
            hit.group,
        )
        for hit in response.hits
    )
    embedder = response.embedder if response.HasField("embedder") else None
    did, reranking = response.reranking, None
    if response.HasField("reranking"):
        error = error_from_status(did.error) if did.HasField("error") else None
        reranking = Reranking(did.reranker, did.model, did.scored, error)
    return SearchResult(embedder, tuple(hits), tuple(response.groups), tuple(response.embedders), reranking)


def projection_from_pb(response: search_pb.ProjectObjectsResponse) -> Projection:
    """Return the points of a map."""
    return Projection(
        ids=tuple(response.ids),
        coordinates=np.frombuffer(response.coordinates, "<f4").astype(np.float32).reshape(-1, 2),
        properties={
            each.name: tuple(_whole(value) for value in json_format.MessageToDict(each.values))
            for each in response.properties
        },
        inputs=tuple(PlacedInput(each.x, each.y, tuple(each.nearest)) for each in response.inputs),
        embedder=response.embedder if response.HasField("embedder") else None,
        target_vector=response.target_vector,
        space=response.space,
        explained_variance=tuple(response.explained_variance),
        total_count=response.total_count,
        missing_count=response.missing_count,
    )


def exact(number: int) -> float:
    """Return a whole number as a double, the only number of a Struct.

    Raises:
        ValueError: the number is not exact as a double.
    """
    try:
        double = float(number)
    except OverflowError:
        double = math.inf
    if double != number:
        raise ValueError("a whole number beyond 2^53 must be one that a double can hold")
    return double


def date_to_text(value: datetime) -> str:
    """Return a date in RFC 3339 form.

    Raises:
        ValueError: it has no time zone, or one with seconds, and in no zone of whole minutes there is such a date.
    """
    offset = value.utcoffset()
    if offset is None:
        raise ValueError("a date needs a time zone")
    if offset % MINUTE:
        # The local mean times of the 19th century have seconds, which RFC 3339 has not.
        whole = -(-offset // MINUTE) * MINUTE
        try:
            value = value.replace(tzinfo=timezone(whole)) + (whole - offset)
        except (OverflowError, ValueError) as error:
            raise ValueError("in a zone of whole minutes there is no such date") from error
    return value.isoformat()


def from_numpy(value: Any) -> Any:
    """Return a scalar or an array of numpy as Python's own types; other values as they are.

    Raises:
        TypeError: it is a date, which has no time zone in numpy, and would become a number.
    """
    if not isinstance(value, np.generic | np.ndarray):
        return value
    if value.dtype.kind in "mM":
        raise TypeError("a date of numpy has no time zone: give a datetime")
    return value.tolist()


def _encode(image: PilImage) -> bytes:
    """Return a PIL image as PNG, or as TIFF where PNG would cut its values, rotated as its EXIF data says."""
    from PIL import ImageOps  # noqa: PLC0415 -- installed if the caller has an image of it

    upright = ImageOps.exif_transpose(image)  # type: ignore[call-overload]  # it is Pillow's
    buffer = io.BytesIO()
    if upright.mode in TIFF_MODES:
        # A smooth picture of floats would often be too large for a request.
        upright.save(buffer, "TIFF", compression="tiff_adobe_deflate")
        return buffer.getvalue()
    if upright.mode not in PNG_MODES:
        upright = upright.convert("RGBA" if upright.mode in {"PA", "RGBa"} else "RGB")
    upright.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _plain(value: Any, levels: int = MAX_LEVELS) -> Any:
    """Return a value in a type that google.protobuf.Struct takes."""
    value = from_numpy(value)
    match value:
        case None | bool() | float() | str():
            return value
        case int():
            return exact(value)
        case datetime():
            return date_to_text(value)
        case date():
            raise TypeError("a date needs a time of day and a zone: give a datetime")
        case UUID():
            return str(value)
        case list() | tuple() | Mapping() if not levels:
            raise ValueError(f"there are more than {MAX_LEVELS} objects and lists within each other")
        case list() | tuple():
            return [_plain(each, levels - 1) for each in value]
        case Mapping():
            return {name: _plain(each, levels - 1) for name, each in value.items()}
    raise TypeError(f"{type(value).__name__} is not a type that a property takes")


def _whole(value: Any) -> Any:
    """Return numbers without a fraction as ints, as far as ints are exact: a Struct has doubles only."""
    match value:
        case list():
            return [_whole(each) for each in value]
        case dict():
            return {name: _whole(each) for name, each in value.items()}
        case float() if value.is_integer() and abs(value) <= MAX_EXACT_INT and (value or math.copysign(1, value) > 0):
            return int(value)
    return value
