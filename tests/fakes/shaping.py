"""How Weaviate groups and dates hits, for the store in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from service.domain import Group, GroupBy, Hit, SearchOptions
from service.errors import InvalidRequest, Violation

SOME_TIME = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)


def shape_hits(hits: Sequence[Hit], options: SearchOptions) -> list[Hit]:
    """Return hits, best first, as the options want them; there is no reranker."""
    if options.rerank is not None:
        raise InvalidRequest([Violation("rerank", "the collection has no reranker module; leave this out")])
    if options.group_by is not None:
        return _group(hits, options.group_by)
    explained = "in memory" if options.explain_score else ""
    time = SOME_TIME if options.times else None
    return [replace(each, created=time, updated=time, explain_score=explained) for each in hits]


def _group(hits: Sequence[Hit], group_by: GroupBy) -> list[Hit]:
    groups: dict[str, list[Hit]] = {}
    for each in hits:
        value = each.object.properties.get(group_by.property)
        if value is None:
            continue
        members = groups.setdefault(str(value), [])
        if len(members) < group_by.objects_per_group:
            members.append(each)
    found = []
    for name, members in list(groups.items())[: group_by.groups]:
        group = Group(name, len(members), members[0].distance, members[-1].distance)
        found += [Hit(each.object, distance=each.distance, group=group) for each in members]
    return found
