"""Searches and reads by the client's own methods, which service/store/weaviate/wire.py is compared with."""

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from weaviate import WeaviateAsyncClient
from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.data import GeoCoordinate
from weaviate.classes.query import BM25Operator, HybridFusion, MetadataQuery, QueryNested, Sort
from weaviate.classes.query import GroupBy as ClientGroupBy
from weaviate.classes.query import Rerank as ClientRerank
from weaviate.classes.query import TargetVectors as ClientTargets
from weaviate.collections import CollectionAsync
from weaviate.collections.classes.filters import _Filters
from weaviate.collections.queries import base_executor
from weaviate.connect import ConnectionParams
from weaviate.proto.v1 import search_get_pb2
from weaviate.util import _ServerVersion

from embedders.contract import Vector
from service.domain import (
    AllOf,
    AnyOf,
    Blend,
    DataType,
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
    SortBy,
    StoredObject,
    TargetJoin,
    TargetVectors,
)
from service.errors import InvalidRequest, Violation
from service.store.weaviate.filters import filter_to_weaviate
from service.store.weaviate.vector_schema import NAMELESS

Objects = CollectionAsync[Mapping[str, Any], None]


class ClientQueries:
    """The client's methods, with a connection that keeps requests and answers with a given reply."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make a client that is not connected. Dates stay texts, as Weaviate gives them."""
        monkeypatch.setitem(vars(base_executor), "_datetime_from_weaviate_str", str)
        monkeypatch.setattr(base_executor._BaseExecutor, _EXTRACT, _extract_all_vectors)
        self._client = WeaviateAsyncClient(ConnectionParams.from_params("127.0.0.1", 1, False, "127.0.0.1", 2, False))
        connection: Any = self._client._connection
        connection._weaviate_version = _ServerVersion(1, 39, 3)
        connection.grpc_search = self._search
        self.reply = search_get_pb2.SearchReply()
        self.request = search_get_pb2.SearchRequest()

    async def _search(self, request: search_get_pb2.SearchRequest) -> search_get_pb2.SearchReply:
        self.request = request
        return self.reply

    def _within(self, collection: str, scope: Scope) -> Objects:
        found: Objects = self._client.collections.use(collection)
        if scope.tenant:
            found = found.with_tenant(scope.tenant)
        if scope.consistency is not None:
            found = found.with_consistency_level(ConsistencyLevel(scope.consistency.value))
        return found

    async def search(self, collection: str, spec: SearchSpec, *, nameless: bool = False) -> list[Hit]:
        """Search, and return the hits of `reply`; `request` is what was sent."""
        return await search_in_weaviate(self._within(collection, spec.scope), spec, nameless=nameless)

    async def get(
        self, collection: str, ids: Sequence[UUID], fields: ReturnFields, scope: Scope, *, nameless: bool = False
    ) -> list[StoredObject]:
        """Read objects, and return those of `reply`; `request` is what was sent."""
        found = await self._within(collection, scope).query.fetch_objects_by_ids(
            ids,
            limit=len(ids),
            include_vector=(nameless and NAMELESS in fields.vectors) or list(fields.vectors) or False,
            return_properties=names_to_weaviate(fields),
        )
        return [from_weaviate(each.uuid, each.properties, each.vector, fields) for each in found.objects]


FUSIONS = {None: None, Fusion.RANKED: HybridFusion.RANKED, Fusion.RELATIVE_SCORE: HybridFusion.RELATIVE_SCORE}
JOINS = {
    None: ClientTargets.minimum,
    TargetJoin.MINIMUM: ClientTargets.minimum,
    TargetJoin.SUM: ClientTargets.sum,
    TargetJoin.AVERAGE: ClientTargets.average,
}
WEIGHTED_JOINS = {
    TargetJoin.MANUAL_WEIGHTS: ClientTargets.manual_weights,
    TargetJoin.RELATIVE_SCORE: ClientTargets.relative_score,
}


async def search_in_weaviate(within: Objects, spec: SearchSpec, *, nameless: bool) -> list[Hit]:
    """Return what a search or a listing finds.

    Args:
        within: where to search.
        spec: what to find.
        nameless: whether "default" is the vector without a name, where it is searched or returned.

    Raises:
        InvalidRequest: the vector without a name is searched, and another one, too.
    """
    options, query, returned = spec.options, within.query, spec.fields.vectors
    common: dict[str, Any] = {
        "limit": spec.limit,
        "offset": spec.offset or None,
        "filters": None if options.filters is None else filter_to_weaviate(options.filters),
        # True is all of them, the one without a name included.
        "include_vector": (nameless and NAMELESS in returned) or list(returned) or False,
        "return_properties": names_to_weaviate(spec.fields),
        "return_metadata": _metadata(spec),
    }
    found: Any
    match spec.query:
        case None:
            common["filters"] = _listing_filters(options)
            found = await query.fetch_objects(**common, after=options.after, sort=_sort(options.sort))
        case TargetVectors() as targets:
            found = await query.near_vector(
                **common,
                **_shape(options),
                near_vector=_vectors(targets),
                target_vector=_target(targets, nameless=nameless),
                certainty=options.certainty,
                distance=options.distance,
            )
        case Keywords() as keywords:
            found = await query.bm25(
                **common,
                **_shape(options),
                query=keywords.query,
                query_properties=_properties(keywords),
                operator=_operator(keywords),
            )
        case Blend() as blend:
            found = await query.hybrid(**common, **_shape(options), **_blend(blend, nameless=nameless))
    return _hits(found, spec)


def _shape(options: SearchOptions) -> dict[str, Any]:
    """Return the arguments of searches that a listing does not have."""
    group, rerank = options.group_by, options.rerank
    return {
        "auto_limit": options.auto_limit or None,
        "group_by": group
        and ClientGroupBy(
            prop=group.property, number_of_groups=group.groups, objects_per_group=group.objects_per_group
        ),
        "rerank": rerank and ClientRerank(prop=rerank.property, query=rerank.query),
    }


def _blend(blend: Blend, *, nameless: bool) -> dict[str, Any]:
    """Return the arguments of hybrid searches alone."""
    words, targets = blend.keywords, blend.targets
    arguments: dict[str, Any] = {
        "query": words and words.query,
        "query_properties": words and _properties(words),
        "bm25_operator": words and _operator(words),
        "alpha": blend.alpha if words else 1.0,
        "fusion_type": FUSIONS[blend.fusion],
        "max_vector_distance": blend.max_vector_distance,
    }
    if targets.vectors:
        arguments["target_vector"] = _target(targets, nameless=nameless)
    return arguments if targets.words_only else arguments | {"vector": _vectors(targets)}


def _vectors(targets: TargetVectors) -> Any:
    lists = {name: vector.tolist() for name, vector in targets.vectors.items()}
    return lists if len(lists) > 1 else next(iter(lists.values()))


def _target(targets: TargetVectors, *, nameless: bool) -> Any:
    names = list(targets.vectors)
    nameless = nameless and NAMELESS in names
    if nameless and len(names) > 1:
        message = f"Weaviate searches the vector {NAMELESS!r}, which has no name there, only alone; name no other"
        raise InvalidRequest([Violation("target_vectors", message)])
    if len(names) == 1:
        return None if nameless else names[0]
    if targets.join in WEIGHTED_JOINS:
        return WEIGHTED_JOINS[targets.join](dict(targets.weights))
    return JOINS[targets.join](names)


def _properties(keywords: Keywords) -> list[str] | None:
    return [f"{each.name}^{each.weight:g}" for each in keywords.properties] or None


def _operator(keywords: Keywords) -> Any:
    if keywords.need_all is None:
        return None
    return BM25Operator.and_() if keywords.need_all else BM25Operator.or_(minimum_match=keywords.minimum_match)


def _listing_filters(options: SearchOptions) -> _Filters | None:
    filters = options.filters
    if filters is not None and not (isinstance(filters, AllOf | AnyOf) and len(filters.filters) > 1):
        # Of a single condition Weaviate 1.39 looks up only as many objects as the page and its offset have, in the
        # order of the values, and pages and sorts those. The parts of a conjunction it looks up in full.
        filters = AllOf((filters, filters))
    return None if filters is None else filter_to_weaviate(filters)


def _sort(sort: tuple[SortBy, ...]) -> Any:
    if not sort:
        return None
    first, *others = sort
    order = Sort.by_property(first.property, ascending=not first.descending)
    for each in others:
        order = order.by_property(each.property, ascending=not each.descending)
    return order


def _metadata(spec: SearchSpec) -> MetadataQuery | None:
    """Return the metadata that hits need."""
    options, measured = spec.options, isinstance(spec.query, TargetVectors)
    if spec.query is None and not options.times:
        return None
    scored = isinstance(spec.query, Keywords | Blend)
    return MetadataQuery(
        distance=measured,
        certainty=measured,
        score=scored,
        explain_score=scored and options.explain_score,
        creation_time=options.times,
        last_update_time=options.times,
    )


def _hits(found: Any, spec: SearchSpec) -> list[Hit]:
    """Return hits in their order, those of a group one after the other."""
    measured, reranked = isinstance(spec.query, TargetVectors), spec.options.rerank is not None
    if spec.options.group_by is None:
        return [
            Hit(
                from_weaviate(each.uuid, each.properties, each.vector, spec.fields),
                distance=each.metadata.distance,
                certainty=each.metadata.certainty,
                score=each.metadata.score,
                created=each.metadata.creation_time,
                updated=each.metadata.last_update_time,
                explain_score=each.metadata.explain_score or "",
                rerank_score=each.metadata.rerank_score if reranked else None,
            )
            for each in found.objects
        ]
    hits = []
    for each in found.groups.values():
        group = Group(
            each.name,
            each.number_of_objects,
            each.min_distance if measured else None,
            each.max_distance if measured else None,
            each.rerank_score if reranked else None,
        )
        for one in each.objects:
            object_ = from_weaviate(one.uuid, one.properties, one.vector, spec.fields)
            hits.append(Hit(object_, distance=one.metadata.distance, group=group))
    return hits


_EXTRACT = "_BaseExecutor__extract_vector_for_object"
_extract_vectors: Callable[[Any, Any], dict[str, Any]] = vars(base_executor._BaseExecutor)[_EXTRACT]


def _extract_all_vectors(executor: Any, said: Any) -> dict[str, Any]:
    """Return all vectors of an object. The client omits the named ones if the object also has one without a name."""
    found = _extract_vectors(executor, said)
    if said.vector_bytes and said.vectors:
        found |= _extract_vectors(executor, type(said)(vectors=said.vectors))
    return found


def from_weaviate(
    id_: UUID, properties: Mapping[str, Any], vectors: Mapping[str, Any], fields: ReturnFields
) -> StoredObject:
    """Return an object of the client's with the fields that were asked for; what it lacks is left out."""
    values = ((name, _value_from_weaviate(properties.get(name))) for name in fields.properties)
    return StoredObject(
        id=UUID(int=id_.int),
        properties={name: value for name, value in values if value is not None},
        images={name: b64decode(properties[name]) for name in fields.images if properties.get(name)},
        vectors={name: _vector_from_weaviate(vectors[name]) for name in fields.vectors if len(vectors.get(name, ()))},
    )


def names_to_weaviate(fields: ReturnFields) -> list[str | QueryNested]:
    """Return the properties and images that were asked for as the client asks for them; objects by their parts."""
    names: list[str | QueryNested] = [
        _nested_to_weaviate(name, fields.nested[name]) if name in fields.nested else name for name in fields.properties
    ]
    return [*names, *fields.images]


def _nested_to_weaviate(name: str, parts: Sequence[Property]) -> QueryNested:
    # Weaviate returns of an object only what is named.
    handled = [each for each in parts if each.data_type not in (None, DataType.BLOB)]
    inner: list[Any] = [_nested_to_weaviate(each.name, each.nested) if each.nested else each.name for each in handled]
    return QueryNested(name=name, properties=inner)


def _value_from_weaviate(value: object) -> PropertyValue:
    if isinstance(value, list):
        items: Any = [_value_from_weaviate(each) for each in value]
        return None if None in items else items
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        parts = ((name, _value_from_weaviate(each)) for name, each in value.items())
        return ObjectValue({name: part for name, part in parts if part is not None})
    if isinstance(value, GeoCoordinate):
        return {"latitude": _shortest(value.latitude), "longitude": _shortest(value.longitude)}
    return value if isinstance(value, bool | int | float | str) else None


def _shortest(value: float) -> float:
    # Weaviate keeps 32 bits of a coordinate; as a double, 52.52 would come back as 52.52000045776367.
    return float(str(np.float32(value)))


def _vector_from_weaviate(vector: object) -> Vector:
    return np.asarray(vector, dtype=np.float32)
