"""Whether what narrows and shapes a search fits the collection."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace

from service.core.searching.filtering import check_filter
from service.domain import (
    TEXTS,
    Collection,
    DataType,
    Distance,
    Keywords,
    NamedVector,
    SearchOptions,
    some_of,
    unknown_property,
)
from service.errors import Violation, collecting, noting

WITHOUT_ORDER = frozenset({DataType.BLOB, DataType.UUID, DataType.UUID_ARRAY})
WITHOUT_GROUPS = frozenset({DataType.BLOB, DataType.GEO_COORDINATES, DataType.OBJECT, DataType.OBJECT_ARRAY})
# Weaviate silently finds no groups of others in searches by words.
NOT_TEXT = frozenset(DataType) - TEXTS


def check_options(
    collection: Collection, options: SearchOptions, linked: Mapping[str, Collection], *, by_vector: bool = True
) -> SearchOptions:
    """Return options whose filter has the types of the collection.

    Args:
        collection: where to search.
        options: what to check.
        linked: the collections that references of the filter lead to, by name.
        by_vector: whether the search is by a vector alone.

    Raises:
        InvalidRequest: the filter, the order or the grouping does not fit; all violations are listed.
    """
    filters = options.filters
    with collecting() as violations:
        for index, each in enumerate(options.sort):
            violations.extend(_check_property(collection, each.property, f"sort[{index}].property", WITHOUT_ORDER))
        if options.group_by is not None:
            types = WITHOUT_GROUPS if by_vector else NOT_TEXT
            violations.extend(_check_property(collection, options.group_by.property, "group_by.property", types))
        if options.rerank is not None:
            violations.extend(_check_property(collection, options.rerank.property, "rerank.property", NOT_TEXT))
        if filters is not None:
            with noting(violations):
                filters = check_filter(collection, filters, "filters", linked)
    return replace(options, filters=filters)


def check_keywords(collection: Collection, keywords: Keywords, *, needed: bool = True) -> Iterator[Violation]:
    """Yield what is wrong with the properties in which words are looked for.

    Args:
        collection: where to search.
        keywords: the words.
        needed: whether they decide which objects are found.
    """
    texts = {each.name: None for each in collection.properties if each.searchable}
    if needed and not keywords.properties and not texts:
        message = f"collection {collection.name!r} has no text property to look for words in"
        yield Violation(keywords.path, f"{message}; set index_searchable of one", "INVALID_PROPERTY")
    seen: set[str] = set()
    for index, each in enumerate(keywords.properties):
        where, name = f"{keywords.path}.properties[{index}].name", each.name
        found = collection.find_property(name)
        if name in seen:
            yield Violation(where, "names a property twice; name each once")
        seen.add(name)
        if found is None:
            yield unknown_property(collection, where, texts, "text")
        elif name not in texts:
            rule = "its index_searchable is false" if found.data_type in TEXTS else "only texts have words"
            yield Violation(where, f"{rule}; choose among: {some_of(texts)}", "INVALID_PROPERTY")


def check_certainty(targets: Iterable[NamedVector], options: SearchOptions) -> Iterator[Violation]:
    """Yield that a searched vector has no certainties, where one is asked for: its distance is not cosine."""
    others = [each.name for each in targets if each.distance is not Distance.COSINE]
    if options.certainty is not None and others:
        message = f"named vector {others[0]!r} has no cosine distance, and so no certainty; give distance"
        yield Violation("certainty", message)


def with_certainty(targets: Iterable[NamedVector], options: SearchOptions) -> list[NamedVector]:
    """Return those of some named vectors that have certainties, or all where none is asked for."""
    return [each for each in targets if options.certainty is None or each.distance is Distance.COSINE]


def _check_property(collection: Collection, name: str, path: str, wrong: Container[DataType]) -> Iterator[Violation]:
    found = collection.find_property(name)
    fitting = [each.name for each in collection.properties if each.data_type not in wrong]
    if found is None:
        yield unknown_property(collection, path, fitting)
    elif found.data_type is not None and found.data_type in wrong:
        message = f"does not go with type {found.data_type.value}; choose among: {some_of(fitting)}"
        yield Violation(path, message, "INVALID_PROPERTY")
