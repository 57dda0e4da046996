"""Hits as the client gives them, and what it is asked for to shape them."""

from typing import Any

from weaviate.classes.query import GroupBy as ClientGroupBy
from weaviate.classes.query import MetadataQuery
from weaviate.classes.query import Rerank as ClientRerank

from service.domain import Group, Hit, ReturnFields, SearchOptions
from service.store.weaviate.objects import from_weaviate


def shape_to_weaviate(options: SearchOptions) -> dict[str, Any]:
    """Return the arguments of the client's searches that a listing does not have."""
    shape: dict[str, Any] = {"auto_limit": options.auto_limit or None}
    if options.group_by is not None:
        shape["group_by"] = ClientGroupBy(
            prop=options.group_by.property,
            number_of_groups=options.group_by.groups,
            objects_per_group=options.group_by.objects_per_group,
        )
    if options.rerank is not None:
        shape["rerank"] = ClientRerank(prop=options.rerank.property, query=options.rerank.query)
    return shape


def metadata_to_weaviate(options: SearchOptions, *, measured: bool = False, scored: bool = False) -> MetadataQuery:
    """Return what hits shall say of themselves."""
    return MetadataQuery(
        distance=measured,
        certainty=measured,
        score=scored,
        explain_score=scored and options.explain_score,
        creation_time=options.times,
        last_update_time=options.times,
    )


def hits_from_weaviate(
    found: Any, fields: ReturnFields, options: SearchOptions, *, measured: bool = False
) -> list[Hit]:
    """Return hits in their order, those of a group one after the other."""
    if options.group_by is None:
        return [_hit(each, fields, options) for each in found.objects]
    hits = []
    for each in found.groups.values():
        group = Group(
            each.name,
            each.number_of_objects,
            each.min_distance if measured else None,
            each.max_distance if measured else None,
            each.rerank_score if options.rerank is not None else None,
        )
        for one in each.objects:
            object_ = from_weaviate(one.uuid, one.properties, one.vector, fields)
            hits.append(Hit(object_, distance=one.metadata.distance, group=group))
    return hits


def _hit(found: Any, fields: ReturnFields, options: SearchOptions) -> Hit:
    said = found.metadata
    return Hit(
        from_weaviate(found.uuid, found.properties, found.vector, fields),
        distance=said.distance,
        certainty=said.certainty,
        score=said.score,
        created=said.creation_time,
        updated=said.last_update_time,
        explain_score=said.explain_score or "",
        rerank_score=said.rerank_score if options.rerank is not None else None,
    )
