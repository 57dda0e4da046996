"""Searches and listings as the client takes them, and the hits that it gives."""

from typing import Any

from weaviate.classes.query import BM25Operator, HybridFusion, MetadataQuery, Sort
from weaviate.classes.query import GroupBy as ClientGroupBy
from weaviate.classes.query import Rerank as ClientRerank
from weaviate.classes.query import TargetVectors as ClientTargets
from weaviate.collections.classes.filters import _Filters

from service.domain import (
    AllOf,
    AnyOf,
    Blend,
    Fusion,
    Group,
    Hit,
    Keywords,
    SearchOptions,
    SearchSpec,
    SortBy,
    TargetJoin,
    TargetVectors,
)
from service.errors import InvalidRequest, Violation
from service.store.weaviate.filters import filter_to_weaviate
from service.store.weaviate.objects import Objects, from_weaviate, names_to_weaviate
from service.store.weaviate.vector_schema import NAMELESS

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
