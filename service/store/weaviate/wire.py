"""Searches and reads over Weaviate's gRPC: requests made of our searches, and hits made of its replies.

The client's own query methods check every argument again, make a list of each vector and an object of each hit: three
quarters of what a search costs in this process. So messages are written and read here, with the client's stubs, channel
and retries. tests/service/store/test_wire.py compares both with what the client makes, so that a new version of it that
speaks differently is noticed.
"""

import struct
from base64 import b64decode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
from weaviate import WeaviateAsyncClient
from weaviate.collections.filters import _FilterToGRPC
from weaviate.proto.v1 import base_pb2, base_search_pb2, properties_pb2, search_get_pb2

from embedders.contract import Vector
from service.domain import (
    AllOf,
    AnyOf,
    Blend,
    Consistency,
    DataType,
    Filter,
    Fusion,
    Group,
    Hit,
    Keywords,
    ObjectValue,
    Property,
    PropertyValue,
    ReturnFields,
    Scope,
    SearchOptions,
    SearchSpec,
    StoredObject,
    TargetJoin,
    TargetVectors,
)
from service.errors import InvalidRequest, Violation
from service.store.weaviate.filters import filter_to_weaviate
from service.store.weaviate.vector_schema import NAMELESS

Request = search_get_pb2.SearchRequest
Reply = search_get_pb2.SearchReply

CONSISTENCIES = {
    Consistency.ONE: base_pb2.CONSISTENCY_LEVEL_ONE,
    Consistency.QUORUM: base_pb2.CONSISTENCY_LEVEL_QUORUM,
    Consistency.ALL: base_pb2.CONSISTENCY_LEVEL_ALL,
}
FUSIONS = {
    Fusion.RANKED: base_search_pb2.Hybrid.FUSION_TYPE_RANKED,
    Fusion.RELATIVE_SCORE: base_search_pb2.Hybrid.FUSION_TYPE_RELATIVE_SCORE,
}
JOINS = {
    None: base_search_pb2.COMBINATION_METHOD_TYPE_MIN,
    TargetJoin.MINIMUM: base_search_pb2.COMBINATION_METHOD_TYPE_MIN,
    TargetJoin.SUM: base_search_pb2.COMBINATION_METHOD_TYPE_SUM,
    TargetJoin.AVERAGE: base_search_pb2.COMBINATION_METHOD_TYPE_AVERAGE,
    TargetJoin.MANUAL_WEIGHTS: base_search_pb2.COMBINATION_METHOD_TYPE_MANUAL,
    TargetJoin.RELATIVE_SCORE: base_search_pb2.COMBINATION_METHOD_TYPE_RELATIVE_SCORE,
}
PLAIN_KINDS = frozenset(
    {"text_value", "int_value", "number_value", "bool_value", "date_value", "uuid_value", "blob_value"}
)
"""The fields of a value that hold what a property has."""
_DIMENSION_BYTES = 2
MILLISECOND_DIGITS = 13
"""Weaviate gives times in milliseconds, which have so many digits until the year 2286; some versions in nanoseconds."""


async def ask(client: WeaviateAsyncClient, request: Request) -> Reply:
    """Send a request, with the client's headers, time-out and retries."""
    reply: Reply = await client._connection.grpc_search(request)  # noqa: SLF001 -- it offers no method for a request
    return reply


def search_request(collection: str, spec: SearchSpec, *, nameless: bool) -> Request:
    """Return the request of a search or a listing.

    Args:
        collection: where to search.
        spec: what to find.
        nameless: whether "default" is the vector without a name, where it is searched or returned.

    Raises:
        InvalidRequest: the vector without a name is searched, and another one, too.
    """
    options = spec.options
    request = _request(collection, spec.scope, spec.fields, nameless=nameless)
    request.limit, request.offset = spec.limit, spec.offset
    _add_metadata(request.metadata, spec)
    if spec.query is None:
        _add_listing(request, options)
        return request
    if options.filters is not None:
        request.filters.CopyFrom(_filters(options.filters))
    request.autocut = options.auto_limit
    if (group := options.group_by) is not None:
        request.group_by.path.append(group.property)
        request.group_by.number_of_groups = group.groups
        request.group_by.objects_per_group = group.objects_per_group
    if options.rerank is not None:
        request.rerank.property, request.rerank.query = options.rerank.property, options.rerank.query
    match spec.query:
        case TargetVectors() as targets:
            near = request.near_vector
            _add_vectors(near, targets, near.targets, nameless=nameless)
            if options.certainty is not None:
                near.certainty = options.certainty
            if options.distance is not None:
                near.distance = options.distance
        case Keywords() as keywords:
            request.bm25_search.query = keywords.query
            request.bm25_search.properties.extend(_properties(keywords))
            _add_operator(request.bm25_search.search_operator, keywords)
        case Blend() as blend:
            _add_blend(request.hybrid_search, blend, nameless=nameless)
    return request


def objects_request(
    collection: str, ids: Sequence[UUID], fields: ReturnFields, scope: Scope, *, nameless: bool
) -> Request:
    """Return the request of the objects of certain ids, of which there is at least one."""
    request = _request(collection, scope, fields, nameless=nameless)
    request.limit = len(ids)
    each = [
        base_pb2.Filters(
            operator=base_pb2.Filters.OPERATOR_EQUAL,
            target=base_pb2.FilterTarget(property="_id"),
            value_text=str(id_),
        )
        for id_ in ids
    ]
    request.filters.CopyFrom(
        each[0] if len(each) == 1 else base_pb2.Filters(operator=base_pb2.Filters.OPERATOR_OR, filters=each)
    )
    return request


def read_objects(reply: Reply, fields: ReturnFields) -> list[StoredObject]:
    """Return the objects of a reply."""
    return [_object(each, each.metadata, fields) for each in reply.results]


def read_hits(reply: Reply, spec: SearchSpec) -> list[Hit]:
    """Return the hits of a reply in their order, those of a group one after the other."""
    measured, reranked = isinstance(spec.query, TargetVectors), spec.options.rerank is not None
    if spec.options.group_by is None:
        return [_hit(each, spec.fields, reranked=reranked) for each in reply.results]
    hits = []
    for each in reply.group_by_results:
        group = Group(
            each.name,
            each.number_of_objects,
            each.min_distance if measured else None,
            each.max_distance if measured else None,
            each.rerank.score if reranked and each.HasField("rerank") else None,
        )
        for one in each.objects:
            metadata = one.metadata
            distance = metadata.distance if metadata.distance_present else None
            hits.append(Hit(_object(one, metadata, spec.fields), distance, group=group))
    return hits


def _request(collection: str, scope: Scope, fields: ReturnFields, *, nameless: bool) -> Request:
    request = Request(
        collection=collection, tenant=scope.tenant, uses_123_api=True, uses_125_api=True, uses_127_api=True
    )
    if scope.consistency is not None:
        request.consistency_level = CONSISTENCIES[scope.consistency]
    wanted = request.properties
    wanted.SetInParent()  # even where none are wanted: without it, Weaviate returns all
    wanted.non_ref_properties.extend(name for name in fields.properties if name not in fields.nested)
    wanted.non_ref_properties.extend(fields.images)
    wanted.non_ref_properties.extend(name for name in fields.hashes if name not in fields.properties)
    wanted.object_properties.extend(
        _parts(name, fields.nested[name]) for name in fields.properties if name in fields.nested
    )
    request.metadata.uuid = True
    if nameless and NAMELESS in fields.vectors:
        request.metadata.vector = True  # all of them, the one without a name included
    else:
        request.metadata.vectors.extend(fields.vectors)
    return request


def _parts(name: str, parts: Sequence[Property]) -> search_get_pb2.ObjectPropertiesRequest:
    # Weaviate returns of an object only what is named.
    handled = [each for each in parts if each.data_type not in (None, DataType.BLOB)]
    return search_get_pb2.ObjectPropertiesRequest(
        prop_name=name,
        primitive_properties=[each.name for each in handled if not each.nested],
        object_properties=[_parts(each.name, each.nested) for each in handled if each.nested],
    )


def _add_metadata(metadata: search_get_pb2.MetadataRequest, spec: SearchSpec) -> None:
    measured, scored = isinstance(spec.query, TargetVectors), isinstance(spec.query, Keywords | Blend)
    metadata.distance = metadata.certainty = measured
    metadata.score = scored
    metadata.explain_score = scored and spec.options.explain_score
    metadata.creation_time_unix = metadata.last_update_time_unix = spec.options.times


def _add_listing(request: Request, options: SearchOptions) -> None:
    filters = options.filters
    if filters is not None:
        if not (isinstance(filters, AllOf | AnyOf) and len(filters.filters) > 1):
            # Of a single condition Weaviate 1.39 looks up only as many objects as the page and its offset have, in the
            # order of the values, and pages and sorts those. The parts of a conjunction it looks up in full.
            filters = AllOf((filters, filters))
        request.filters.CopyFrom(_filters(filters))
    if options.after is not None:
        request.after = str(options.after)
    request.sort_by.extend(
        search_get_pb2.SortBy(ascending=not each.descending, path=[each.property]) for each in options.sort
    )


def _filters(filters: Filter) -> base_pb2.Filters:
    made: base_pb2.Filters = _FilterToGRPC.convert(filter_to_weaviate(filters))
    return made


def _add_blend(hybrid: base_search_pb2.Hybrid, blend: Blend, *, nameless: bool) -> None:
    words, targets = blend.keywords, blend.targets
    if words is not None:
        hybrid.query = words.query
        hybrid.properties.extend(_properties(words))
        _add_operator(hybrid.bm25_search_operator, words)
    hybrid.use_alpha_param = True
    alpha = blend.alpha if words is not None else 1.0
    if alpha is not None:
        hybrid.alpha_param = alpha
    if blend.fusion is not None:
        hybrid.fusion_type = FUSIONS[blend.fusion]
    if blend.max_vector_distance is not None:
        hybrid.vector_distance = blend.max_vector_distance
    if targets.words_only:
        if targets.vectors:
            _add_targets(hybrid.targets, targets, nameless=nameless)
    elif len(targets.vectors) == 1:
        _add_targets(hybrid.targets, targets, nameless=nameless)
        (vector,) = targets.vectors.values()
        hybrid.vector_bytes = _bytes(vector)
    else:
        _add_vectors(hybrid.near_vector, targets, hybrid.targets, nameless=nameless)


def _add_vectors(
    near: base_search_pb2.NearVector, targets: TargetVectors, into: base_search_pb2.Targets, *, nameless: bool
) -> None:
    _add_targets(into, targets, nameless=nameless)
    if len(targets.vectors) == 1:
        (vector,) = targets.vectors.values()
        near.vectors.append(_vectors_to_pb(vector))
        return
    for name, vector in targets.vectors.items():
        near.vector_for_targets.add(name=name).vectors.append(_vectors_to_pb(vector, name))


def _add_targets(into: base_search_pb2.Targets, targets: TargetVectors, *, nameless: bool) -> None:
    names = list(targets.vectors)
    if nameless and NAMELESS in names:
        if len(names) > 1:
            message = f"Weaviate searches the vector {NAMELESS!r}, which has no name there, only alone; name no other"
            raise InvalidRequest([Violation("target_vectors", message)])
        return
    into.target_vectors.extend(names)
    if len(names) > 1:
        into.combination = JOINS[targets.join]
        for name, weight in targets.weights.items():
            into.weights_for_targets.add(target=name, weight=weight)


def _vectors_to_pb(vector: Vector, name: str = "") -> base_pb2.Vectors:
    """Return a vector, or several of an object (shape (vectors, dimension)), as ColBERT makes them."""
    if vector.ndim == 1:
        return base_pb2.Vectors(name=name, vector_bytes=_bytes(vector), type=base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32)
    dimension = struct.pack("<H", vector.shape[1])
    return base_pb2.Vectors(
        name=name, vector_bytes=dimension + _bytes(vector), type=base_pb2.Vectors.VECTOR_TYPE_MULTI_FP32
    )


def _bytes(vector: Vector) -> bytes:
    return vector.astype("<f4", copy=False).tobytes()


def _properties(keywords: Keywords) -> list[str]:
    return [f"{each.name}^{each.weight:g}" for each in keywords.properties]


def _add_operator(operator: base_search_pb2.SearchOperatorOptions, keywords: Keywords) -> None:
    if keywords.need_all is None:
        return
    if keywords.need_all:
        operator.operator = base_search_pb2.SearchOperatorOptions.OPERATOR_AND
    else:
        operator.operator = base_search_pb2.SearchOperatorOptions.OPERATOR_OR
        operator.minimum_or_tokens_match = keywords.minimum_match


def _hit(said: search_get_pb2.SearchResult, fields: ReturnFields, *, reranked: bool) -> Hit:
    metadata = said.metadata
    return Hit(
        _object(said, metadata, fields),
        metadata.distance if metadata.distance_present else None,
        metadata.certainty if metadata.certainty_present else None,
        metadata.score if metadata.score_present else None,
        _time(metadata.creation_time_unix) if metadata.creation_time_unix_present else None,
        _time(metadata.last_update_time_unix) if metadata.last_update_time_unix_present else None,
        metadata.explain_score if metadata.explain_score_present else "",
        metadata.rerank_score if reranked and metadata.rerank_score_present else None,
    )


def _time(since_1970: int) -> datetime:
    per_second = 1e3 if len(str(since_1970)) <= MILLISECOND_DIGITS else 1e9
    return datetime.fromtimestamp(since_1970 / per_second, tz=UTC)


def _object(
    said: search_get_pb2.SearchResult, metadata: search_get_pb2.MetadataResult, fields: ReturnFields
) -> StoredObject:
    """Return an object with the fields that were asked for; what it lacks is left out."""
    # It runs for every hit: what is read from a message is kept, and loops over nothing are left out.
    values = said.properties.non_ref_props.fields
    properties: dict[str, PropertyValue] = {}
    for name in fields.properties:
        found = values.get(name)
        if found is not None and (value := _value(found)) is not None:
            properties[name] = value
    made = StoredObject(UUID(bytes=metadata.id_as_bytes), properties)
    if fields.images:
        images = {name: b64decode(values[name].blob_value) for name in fields.images if name in values}
        made.images = {name: image for name, image in images.items() if image}
    if fields.vectors:
        made.vectors = _vectors(metadata, fields.vectors)
    if fields.hashes:
        hashes = {name: values[name].blob_value for name in fields.hashes if name in values}
        made.hashes = {name: each for name, each in hashes.items() if each}
    return made


def _vectors(metadata: search_get_pb2.MetadataResult, names: Iterable[str]) -> dict[str, Vector]:
    said = {
        each.name: _several(each.vector_bytes) if _is_multiple(each) else _vector(each.vector_bytes)
        for each in metadata.vectors
    }
    if metadata.vector_bytes:
        said[NAMELESS] = _vector(metadata.vector_bytes)
    return {name: said[name] for name in names if name in said and len(said[name])}


def _is_multiple(said: base_pb2.Vectors) -> bool:
    return said.type == base_pb2.Vectors.VECTOR_TYPE_MULTI_FP32


def _vector(said: bytes) -> Vector:
    return np.frombuffer(said, "<f4")


def _several(said: bytes) -> Vector:
    """Return several vectors of an object: float32, shape (vectors, dimension)."""
    (dimension,) = struct.unpack_from("<H", said)
    return _vector(said[_DIMENSION_BYTES:]).reshape(-1, dimension)


def _value(said: properties_pb2.Value) -> PropertyValue | None:
    """Return a value; None for none, and for one of a type that this version does not handle."""
    kind = said.WhichOneof("kind")
    if kind in PLAIN_KINDS:
        plain: PropertyValue = getattr(said, kind)
        return plain
    match kind:
        case "list_value":
            return _list(said.list_value)
        case "object_value":
            return _parts_of(said.object_value)
        case "geo_value":
            place = said.geo_value
            return {"latitude": _shortest(place.latitude), "longitude": _shortest(place.longitude)}
    return None


def _list(said: properties_pb2.ListValue) -> PropertyValue | None:
    match kind := said.WhichOneof("kind"):
        case "text_values" | "date_values" | "uuid_values" | "bool_values":
            return list(getattr(said, kind).values)
        case "int_values":
            whole: list[int] = np.frombuffer(said.int_values.values, "<i8").tolist()
            return whole
        case "number_values":
            numbers: list[float] = np.frombuffer(said.number_values.values, "<f8").tolist()
            return numbers
        case "object_values":
            return [_parts_of(each) for each in said.object_values.values]
    return None


def _parts_of(said: properties_pb2.Properties) -> ObjectValue:
    parts = ((name, _value(each)) for name, each in said.fields.items())
    return ObjectValue({name: part for name, part in parts if part is not None})


def _shortest(value: float) -> float:
    # Weaviate keeps 32 bits of a coordinate; as a double, 52.52 would come back as 52.52000045776367.
    return float(str(np.float32(value)))
