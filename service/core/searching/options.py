"""Whether what narrows a search fits the collection."""

from collections.abc import Iterable
from dataclasses import replace

from service.core.filtering import check_filter
from service.domain import Collection, DataType, Distance, NamedVector, SearchOptions
from service.errors import InvalidRequest, Violation

__all__ = ["check_certainty", "check_options"]


def check_options(collection: Collection, options: SearchOptions) -> SearchOptions:
    """Return options whose filter has the types of the collection.

    Raises:
        InvalidRequest: the filter or the order does not fit; all violations are listed.
    """
    violations: list[Violation] = []
    for index, each in enumerate(options.sort):
        found = collection.find_property(each.property)
        if found is None:
            names = ", ".join(each.name for each in collection.properties)
            message = f"collection {collection.name!r} has no such property; it has: {names}"
            violations.append(Violation(f"sort[{index}].property", message, "UNKNOWN_PROPERTY"))
        elif found.data_type is DataType.BLOB:
            message = "the property is a blob, which has no order; choose another one"
            violations.append(Violation(f"sort[{index}].property", message, "INVALID_PROPERTY"))
    filters = options.filters
    if filters is not None:
        try:
            filters = check_filter(collection, filters, "filters")
        except InvalidRequest as error:
            violations += error.violations
    if violations:
        raise InvalidRequest(violations)
    return replace(options, filters=filters)


def check_certainty(targets: Iterable[NamedVector], options: SearchOptions) -> None:
    """Check that the searched vectors have certainties, where one is asked for.

    Raises:
        InvalidRequest: the distance of one is another one than cosine.
    """
    other = [each.name for each in targets if each.distance is not Distance.COSINE]
    if options.certainty is not None and other:
        message = f"named vector {other[0]!r} has no cosine distance, so there is no certainty; give distance"
        raise InvalidRequest([Violation("certainty", message)])
