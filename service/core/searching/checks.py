"""Whether a search fits its collection, and which named vectors it searches."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

from service.core.searching.filter_checks import check_filter
from service.domain import (
    BLOBS,
    OBJECTS,
    TEXTS,
    Collection,
    DataType,
    Distance,
    Keywords,
    NamedVector,
    Near,
    OwnVector,
    SearchOptions,
    some_of,
    unknown_property,
    unknown_vector,
)
from service.errors import InvalidRequest, Violation, Violations, collecting, noting

# Weaviate silently lists by id instead.
WITHOUT_ORDER = BLOBS | OBJECTS | frozenset({DataType.UUID, DataType.UUID_ARRAY})
WITHOUT_GROUPS = frozenset({DataType.BLOB, DataType.GEO_COORDINATES, DataType.OBJECT, DataType.OBJECT_ARRAY})
# Weaviate silently finds no groups of others in searches by words.
NOT_TEXT = frozenset(DataType) - TEXTS


def check_options(
    collection: Collection,
    options: SearchOptions,
    linked: Mapping[str, Collection],
    violations: Violations,
    *,
    by_vector: bool = True,
) -> SearchOptions:
    """Return options whose filter has the types of the collection, and note what does not fit it.

    Args:
        collection: where to search.
        options: what to check.
        linked: the collections that references of the filter lead to, by name.
        violations: where to note what does not fit.
        by_vector: whether the search is by a vector alone.
    """
    for index, each in enumerate(options.sort):
        _check_property(collection, each.property, f"sort[{index}].property", WITHOUT_ORDER, violations)
    if options.group_by is not None:
        types = WITHOUT_GROUPS if by_vector else NOT_TEXT
        _check_property(collection, options.group_by.property, "group_by.property", types, violations)
    if options.rerank is not None:
        _check_property(collection, options.rerank.property, "rerank.property", NOT_TEXT, violations)
    if options.filters is None:
        return options
    with noting(violations):
        return replace(options, filters=check_filter(collection, options.filters, linked))
    return options


def check_keywords(collection: Collection, keywords: Keywords, violations: Violations, *, needed: bool = True) -> None:
    """Note which properties cannot be searched for words.

    Args:
        collection: where to search.
        keywords: the words.
        violations: where to note them.
        needed: whether the words decide which objects are found.
    """
    texts = {each.name: None for each in collection.properties if each.searchable}
    if needed and not keywords.properties and not texts:
        message = f"collection {collection.name!r} has no text property to look for words in"
        violations.add(keywords.path, f"{message}; set index_searchable of one", "INVALID_PROPERTY")
    seen: set[str] = set()
    for index, each in enumerate(keywords.properties):
        where, name = f"{keywords.path}.properties[{index}].name", each.name
        found = collection.find_property(name)
        if name in seen:
            violations.add(where, "names a property twice; name each once")
        seen.add(name)
        if found is None:
            violations.append(unknown_property(collection, where, texts, "text"))
        elif name not in texts:
            rule = "its index_searchable is false" if found.data_type in TEXTS else "only texts have words"
            violations.add(where, f"{rule}; choose among: {some_of(texts)}", "INVALID_PROPERTY")


def check_certainty(targets: Iterable[NamedVector], violations: Violations) -> None:
    """Note a searched vector without certainties, for a search that asks for one: its distance is not cosine."""
    others = [each.name for each in targets if each.distance is not Distance.COSINE]
    if others:
        message = f"named vector {others[0]!r} has no cosine distance, and so no certainty; give distance"
        violations.add("certainty", message)


def with_certainty(targets: Iterable[NamedVector]) -> list[NamedVector]:
    """Return those of some named vectors that have certainties."""
    return [each for each in targets if each.distance is Distance.COSINE]


def _check_property(
    collection: Collection, name: str, path: str, wrong: Container[DataType], violations: Violations
) -> None:
    found = collection.find_property(name)
    fitting = [each.name for each in collection.properties if each.data_type not in wrong]
    if found is None:
        violations.append(unknown_property(collection, path, fitting))
    elif found.data_type is not None and found.data_type in wrong:
        message = f"does not go with type {found.data_type.value}; choose among: {some_of(fitting)}"
        violations.add(path, message, "INVALID_PROPERTY")


def named_targets(collection: Collection, names: Sequence[str]) -> list[NamedVector]:
    """Return the named vectors of these names.

    Raises:
        InvalidRequest: there are no such named vectors; all violations are listed.
    """
    found = [collection.find_vector(name) for name in names]
    with collecting() as violations:
        unknown = [f"target_vectors[{index}]" for index, each in enumerate(found) if each is None]
        violations += [unknown_vector(collection, path) for path in unknown]
    return [each for each in found if each is not None]


def default_target(collection: Collection, default: NamedVector | None) -> NamedVector:
    """Return the named vector of a search that names none.

    Raises:
        InvalidRequest: the collection has several named vectors and no default one, or no named vector.
    """
    if not collection.vectors:
        message = f"collection {collection.name!r} has no vectors; look for words with bm25, or list its objects"
        raise InvalidRequest([Violation("target_vectors", message, "UNKNOWN_VECTOR")])
    if default is None:
        rule = "has several named vectors and no default_vector; choose among"
        raise InvalidRequest([unknown_vector(collection, "target_vectors", rule)])
    return default


def targets_of_query(
    collection: Collection, near: Near, served: Sequence[str], default: NamedVector | None
) -> list[NamedVector]:
    """Return the named vectors that a query that names none may search, in order of preference.

    The default one comes first. While its embedders do not work, named vectors of other spaces take its place, if they
    are the only ones of their space.

    Args:
        collection: where to search.
        near: the query.
        served: the spaces of this server's embedders, in order of preference.
        default: the collection's default vector; None where it has none.

    Raises:
        InvalidRequest: it is not clear which of several named vectors is meant, or there is none.
    """
    counts = Counter(each.space_id for each in collection.vectors)
    alone = {space: each for each in collection.vectors if (space := each.space_id) and counts[space] == 1}
    if own := {part.content.space for part in near.parts if isinstance(part.content, OwnVector)}:
        return [default_target(collection, _target_of_own(collection, own, alone, default))]
    if default is None and len(alone) < len(collection.vectors):
        return [default_target(collection, default)]
    by_space = alone if default is None else alone | {default.space_id: default}
    first = [] if default is None else [default.space_id]
    targets = [by_space[each] for each in dict.fromkeys([*first, *served]) if each in served and each in by_space]
    return targets or [by_space[each] for each in first] or list(alone.values())


def _target_of_own(
    collection: Collection, own: Iterable[str], alone: Mapping[str, NamedVector], default: NamedVector | None
) -> NamedVector | None:
    """Return the named vector that the caller's vectors are for, by their spaces; an empty space is not stated."""
    known = {each.space_id for each in collection.vectors} - {"" if default is None else default.space_id}

    def target(space: str) -> NamedVector | None:
        # One of a space that no named vector has is for the default one, which refuses it.
        if default is not None and (space not in known if space else collection.default_vector):
            return default
        return alone.get(space)

    found = {None if each is None else each.name: each for each in map(target, own)}
    return found.popitem()[1] if len(found) == 1 else None
