"""Indexes of existing properties: Weaviate drops them at once and builds them in the background."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from service.domain import Collection, Parameters

FLAGS = {"indexFilterable": "filterable", "indexSearchable": "searchable", "indexRangeFilters": "rangeFilters"}


@dataclass(frozen=True, slots=True)
class IndexChange:
    """A request to Weaviate, with a path relative to that of the collection."""

    method: Literal["put", "delete"]
    path: str
    body: Parameters


def index_changes(schema: Mapping[str, Any], collection: Collection) -> Iterator[IndexChange]:
    """Yield the requests that change the properties' indexes in Weaviate into those of a collection."""
    there = {str(each["name"]): each for each in schema.get("properties") or ()}
    for wanted in collection.properties:
        present = there.get(wanted.name)
        if present is None:
            continue
        tokenization = wanted.indexing.get("tokenization")
        for flag, index in FLAGS.items():
            on, path = wanted.indexing.get(flag), f"/properties/{wanted.name}/index/{index}"
            if on is None or on == bool(present.get(flag)):
                continue
            body = {"tokenization": tokenization} if index == "searchable" else {}
            yield IndexChange("put", path, body) if on else IndexChange("delete", path, {})
        if tokenization != present.get("tokenization"):
            index = "searchable" if present.get("indexSearchable") else "filterable"
            yield IndexChange("put", f"/properties/{wanted.name}/index/{index}", {"tokenization": tokenization})
