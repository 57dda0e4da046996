"""Listings as the client takes them."""

from typing import Any

from weaviate.classes.query import Sort

from service.domain import AllOf, AnyOf, SearchOptions
from service.store.weaviate.filters import filter_to_weaviate


def listing_to_weaviate(options: SearchOptions) -> dict[str, Any]:
    """Return the arguments of the client's fetch_objects that differ from those of a search."""
    filters = options.filters
    if filters is not None and not (isinstance(filters, AllOf | AnyOf) and len(filters.filters) > 1):
        # For a single condition Weaviate 1.39 finds only as many objects as the page and its offset have, in order of
        # the values, and pages and sorts those. For each part of a conjunction it finds all.
        filters = AllOf((filters, filters))
    listing = {"after": options.after, "filters": None if filters is None else filter_to_weaviate(filters)}
    if not options.sort:
        return listing
    first, *others = options.sort
    order = Sort.by_property(first.property, ascending=not first.descending)
    for each in others:
        order = order.by_property(each.property, ascending=not each.descending)
    return {**listing, "sort": order}
