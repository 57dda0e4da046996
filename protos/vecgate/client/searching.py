"""Functions that build queries."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack
from uuid import UUID

from numpy.typing import ArrayLike

from vecgate.client.values import (
    Consistency,
    Image,
    Input,
    PilImage,
    Reference,
    TextImage,
    encode_vector,
    id_to_text,
    image_to_pb,
    several,
    text_image_to_pb,
)
from vecgate.v1 import filter_pb2 as filter_pb
from vecgate.v1 import output_fields_pb2 as output_pb
from vecgate.v1 import scope_pb2 as scope_pb
from vecgate.v1 import search_service_pb2 as pb

Query = pb.NearText | pb.NearImage | pb.NearVector | pb.NearInputs | pb.NearObject | pb.Bm25 | pb.Hybrid
"""A message that a search takes as its query."""

FIELDS: dict[type, str] = {
    pb.NearText: "near_text",
    pb.NearImage: "near_image",
    pb.NearVector: "near_vector",
    pb.NearInputs: "near_inputs",
    pb.NearObject: "near_object",
    pb.Bm25: "bm25",
    pb.Hybrid: "hybrid",
}
VECTOR_SIDES = ("near_text", "near_image", "near_vector", "near_inputs")
"""The queries that hybrid joins with words."""


class SearchOptions(TypedDict, total=False):
    """What a search takes beside its query.

    Attributes:
        limit: hits to return; 10 if left out.
        offset: hits to skip.
        filters: which objects count, such as `where("year") >= 2020`; all if left out.
        certainty: the least certainty of a hit, 0 to 1, for cosine distance.
        distance: the largest distance of a hit.
        auto_limit: after how many jumps of the distance or score the hits end; 0 for never.
        target_vector: the named vector to search, or several, with a mapping each with its weight; the collection's
            `default_vector` if left out.
        target_join: how the distances to several target vectors are joined; their minimum if left out, or with weights
            their weighted sum.
        group_by: return hits in groups, such as `GroupBy(property="year", number_of_groups=3, objects_per_group=2)`.
        rerank: sort the hits by a reranker of the server, such as
            `Rerank(reranker="rerank", property="text", query="a dog", image_property="photo")`, or without its name by
            the collection's own; `SearchResult.reranking` says what it did.
        return_properties: properties to return, `home.city` for a part of one; all but blobs if left out.
        return_images: blob properties to return as images.
        return_vectors: named vectors to return.
        return_times: whether hits have the times of their objects' creation and last update.
        return_explain_score: whether hits of bm25 and hybrid explain their scores.
        tenant: the tenant, if the collection has tenants.
        consistency: how many replicas must answer; Weaviate's default if left out.
    """

    limit: int
    offset: int
    filters: filter_pb.Filter | None
    certainty: float | None
    distance: float | None
    auto_limit: int
    target_vector: str | Iterable[str] | Mapping[str, float]
    target_join: "pb.TargetJoin.ValueType"
    group_by: pb.GroupBy | None
    rerank: pb.Rerank | None
    return_properties: str | Iterable[str]
    return_images: str | Iterable[str]
    return_vectors: str | Iterable[str]
    return_times: bool
    return_explain_score: bool
    tenant: str
    consistency: Consistency


def near_text(
    *concepts: str, move_to: pb.Move | None = None, move_away: pb.Move | None = None, truncate: bool = False
) -> pb.NearText:
    """Return a query for objects near texts, moved towards something and then away from something.

    Example:
        client.search("Pictures", query=near_text("a beach", move_to=move(0.5, "at night")))

    Raises:
        TypeError: a concept is not a str.
    """
    return pb.NearText(concepts=_texts(concepts), move_to=move_to, move_away=move_away, truncate=truncate)


def near_object(id_: str | UUID) -> pb.NearObject:
    """Return a query for objects near an object of the collection.

    Example:
        client.search("Pictures", query=near_object(hit.object.id))
    """
    return pb.NearObject(id=id_to_text(id_))


def move(force: float, *concepts: str, objects: str | UUID | Iterable[str | UUID] = ()) -> pb.Move:
    """Return what to move a query towards or away from.

    Args:
        force: how far: 0 to 1 towards it, 0 or more away from it.
        concepts: texts.
        objects: ids of objects of the collection.

    Raises:
        TypeError: a concept is not a str, or an id neither a str nor a UUID.
    """
    return pb.Move(force=force, concepts=_texts(concepts), objects=map(id_to_text, several(objects)))


def bm25(
    words: str,
    properties: str | Iterable[str] | Mapping[str, int] = (),
    *,
    operator: pb.KeywordOperator.ValueType = pb.KEYWORD_OPERATOR_UNSPECIFIED,
    minimum_match: int = 0,
) -> pb.Bm25:
    """Return a query for objects that contain words.

    Args:
        words: the words.
        properties: where to look, and with a mapping how much each counts, a whole number; everywhere if left out.
        operator: whether an object needs all of the words or one; one if left out.
        minimum_match: with KEYWORD_OPERATOR_OR, how many of them it needs.

    Example:
        client.search("Pictures", query=bm25("harbour", {"title": 3, "text": 1}))
    """
    weights = properties if isinstance(properties, Mapping) else dict.fromkeys(several(properties), 1)
    weighted = [pb.WeightedProperty(name=name, weight=weight) for name, weight in weights.items()]
    return pb.Bm25(query=words, properties=weighted, operator=operator, minimum_match=minimum_match)


def hybrid(
    words: str | pb.Bm25 | None = None,
    near: pb.NearText | pb.NearImage | pb.NearVector | pb.NearInputs | None = None,
    *,
    alpha: float | None = None,
    fusion_type: pb.FusionType.ValueType = pb.FUSION_TYPE_UNSPECIFIED,
    max_vector_distance: float | None = None,
    truncate: bool = False,
) -> pb.Hybrid:
    """Return a query for objects by words and by a vector, joined in one list.

    Args:
        words: the words, or a `bm25(...)`.
        near: the vector side, if it is something else than the words.
        alpha: the weight of the vector side, 0 to 1; Weaviate's default, 0.75, if left out.
        fusion_type: how the two lists are joined.
        max_vector_distance: the largest distance of a hit.
        truncate: whether to cut words that are too long for the model.

    Raises:
        TypeError: the vector side is something else.

    Example:
        client.search("Pictures", query=hybrid("a dog", alpha=0.5))
    """
    query = pb.Hybrid(
        bm25=pb.Bm25(query=words) if isinstance(words, str) else words,
        alpha=alpha,
        fusion_type=fusion_type,
        max_vector_distance=max_vector_distance,
        truncate=truncate,
    )
    if near is not None:
        field = FIELDS.get(type(near), "")
        if field not in VECTOR_SIDES:
            raise TypeError(f"the vector side must be one of {', '.join(VECTOR_SIDES)}, not {type(near).__name__}")
        getattr(query, field).CopyFrom(near)
    return query


def near_inputs(
    *inputs: Input | UUID | ArrayLike, weights: Sequence[float] | None = None, truncate: bool = False
) -> pb.NearInputs:
    """Return a query for objects near several things at once.

    Args:
        inputs: texts (str), images (bytes, the Path of a file, a PIL image, or a Reference), texts with an image as one
            input (TextImage), objects of the collection (UUID) and vectors.
        weights: how much each counts; all the same if left out.
        truncate: whether to cut texts that are too long for the model.

    Raises:
        ValueError: there are more or fewer weights than inputs.
        OSError: a file cannot be read.

    Example:
        client.search("Pictures", query=near_inputs("at night", Path("beach.jpg"), weights=(1, 2)))
    """
    messages = [_weighted_input(each) for each in inputs]
    if weights is not None and len(weights):
        for message, weight in zip(messages, weights, strict=True):
            message.weight = weight
    return pb.NearInputs(inputs=messages, truncate=truncate)


def _weighted_input(content: Input | UUID | ArrayLike) -> pb.WeightedInput:
    match content:
        case str():
            return pb.WeightedInput(text=content)
        case bytes() | bytearray() | memoryview() | Path() | PilImage() | Reference():
            return pb.WeightedInput(image=image_to_pb(content))
        case TextImage():
            return pb.WeightedInput(text_image=text_image_to_pb(content))
        case UUID():
            return pb.WeightedInput(near_object=near_object(content))
    return pb.WeightedInput(near_vector=pb.NearVector(vector=encode_vector(content)))


def search_request(collection: str, **options: Unpack[SearchOptions]) -> pb.SearchObjectsRequest:
    """Return a request without its query.

    Raises:
        TypeError: there is no such option.
    """
    unknown = options.keys() - SearchOptions.__annotations__
    if unknown:
        raise TypeError(f"search() has no argument {', '.join(sorted(unknown))}")
    target = options.get("target_vector", ())
    request = pb.SearchObjectsRequest(
        collection=collection,
        limit=options.get("limit", 10),
        offset=options.get("offset", 0),
        filters=options.get("filters"),
        certainty=options.get("certainty"),
        distance=options.get("distance"),
        auto_limit=options.get("auto_limit", 0),
        target_vectors=several(target) if target else (),
        target_join=options.get("target_join", pb.TARGET_JOIN_UNSPECIFIED),
        group_by=options.get("group_by"),
        rerank=options.get("rerank"),
        return_times=options.get("return_times", False),
        return_explain_score=options.get("return_explain_score", False),
        scope=scope_pb.Scope(
            tenant=options.get("tenant", ""), consistency=options.get("consistency", scope_pb.CONSISTENCY_UNSPECIFIED)
        ),
        output=output_pb.OutputFields(
            properties=several(options.get("return_properties", ())),
            images=several(options.get("return_images", ())),
            vectors=several(options.get("return_vectors", ())),
        ),
    )
    if isinstance(target, Mapping):
        request.target_weights.extend(target.values())
        request.target_join = request.target_join or pb.TARGET_JOIN_MANUAL_WEIGHTS
    return request


def set_query(
    request: pb.SearchObjectsRequest,
    text: str | Iterable[str] | None,
    image: Image | None,
    vector: ArrayLike | Mapping[str, ArrayLike] | None,
    vector_space: str,
    *,
    truncate: bool,
    query: Query | None,
) -> None:
    """Set the query of a request.

    Raises:
        ValueError: none or more than one of text, image, vector and query is given.
        TypeError: one of them has a wrong type.
    """
    if sum(each is not None for each in (text, image, vector, query)) != 1:
        raise ValueError("give one of text, image, vector and query, or list objects with list_objects")
    if text is not None:
        query = near_text(*several(text), truncate=truncate)
    elif image is not None:
        query = pb.NearImage(image=image_to_pb(image))
    elif isinstance(vector, Mapping):
        query = pb.NearVector(target_vectors={name: encode_vector(values) for name, values in vector.items()})
    elif vector is not None:
        query = pb.NearVector(vector=encode_vector(vector), space=vector_space)
    if type(query) not in FIELDS:
        raise TypeError(f"{type(query).__name__} is not a query; give one of {', '.join(FIELDS.values())}")
    getattr(request, FIELDS[type(query)]).CopyFrom(query)


def _texts(concepts: Sequence[str]) -> Sequence[str]:
    for each in concepts:
        if not isinstance(each, str):
            raise TypeError(
                f'a concept is a str, not {type(each).__name__}; give several one by one: near_text("a", "b")'
            )
    return concepts
