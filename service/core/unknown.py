"""What is said of names that a collection does not have."""

from collections.abc import Iterable
from itertools import islice

from service.domain import Collection
from service.errors import Violation

MAX_NAMES = 20
"""Names that a message lists."""
NO_SUCH_VECTOR = "has no such named vector; it has"


def unknown_property(collection: Collection, path: str, names: Iterable[str], kind: str = "property") -> Violation:
    """Return that a collection has no such property, and which ones there are to choose from."""
    message = f"collection {collection.name!r} has no such {kind}; it has: {some_of(names)}"
    return Violation(path, message, "UNKNOWN_PROPERTY")


def unknown_vector(collection: Collection, path: str, rule: str = NO_SUCH_VECTOR) -> Violation:
    """Return that a collection has no such named vector, or breaks another rule about them, and which there are."""
    names = some_of(each.name for each in collection.vectors)
    return Violation(path, f"collection {collection.name!r} {rule}: {names}", "UNKNOWN_VECTOR")


def some_of(names: Iterable[str]) -> str:
    """Return the first names of those that there are to choose from."""
    first = list(islice(names, MAX_NAMES + 1))
    return ", ".join([*first[:MAX_NAMES], *(["..."] if len(first) > MAX_NAMES else [])]) or "none"
