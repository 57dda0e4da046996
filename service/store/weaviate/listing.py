"""Listings as the client takes them."""

from typing import Any

from weaviate.classes.query import Sort

from service.domain import SearchOptions


def listing_to_weaviate(options: SearchOptions) -> dict[str, Any]:
    """Return the arguments of the client's fetch_objects that only a listing has."""
    if not options.sort:
        return {"after": options.after}
    first, *others = options.sort
    order = Sort.by_property(first.property, ascending=not first.descending)
    for each in others:
        order = order.by_property(each.property, ascending=not each.descending)
    return {"after": options.after, "sort": order}
