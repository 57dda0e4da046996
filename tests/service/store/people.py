"""Objects within objects for the tests of stores, and collections without what a store adds of its own."""

from dataclasses import replace

from service.domain import Collection, DataType, Property, VectorIndex

OBJECTS = (DataType.OBJECT, DataType.OBJECT_ARRAY)
PERSON = (
    Property("name", DataType.TEXT, "of a person"),
    Property("ages", DataType.INT_ARRAY),
    Property("born", DataType.DATE),
    Property(
        "home",
        DataType.OBJECT,
        nested=(
            Property("city", DataType.TEXT),
            Property("latitude", DataType.NUMBER),
            Property("longitude", DataType.NUMBER),
        ),
    ),
)


def bare(collection: Collection) -> Collection:
    """Return a collection without what a store adds of its own to what is left out."""
    return replace(
        collection,
        properties=tuple(map(_bare_property, collection.properties)),
        vectors=tuple(replace(each, index=VectorIndex()) for each in collection.vectors),
        replication={},
        sharding={},
        inverted_index={},
    )


def _bare_property(each: Property) -> Property:
    return replace(each, indexing={}, nested=tuple(map(_bare_property, each.nested)))
