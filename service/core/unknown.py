"""What is said of names that a collection does not have."""

from collections.abc import Iterable

from service.domain import Collection
from service.errors import Violation

__all__ = ["unknown_property", "unknown_vector"]

NO_SUCH_VECTOR = "has no such named vector; it has"


def unknown_property(collection: Collection, path: str, names: Iterable[str], kind: str = "property") -> Violation:
    """Return that a collection has no such property, and which ones there are to choose from."""
    message = f"collection {collection.name!r} has no such {kind}; it has: {', '.join(names) or 'none'}"
    return Violation(path, message, "UNKNOWN_PROPERTY")


def unknown_vector(collection: Collection, path: str, rule: str = NO_SUCH_VECTOR) -> Violation:
    """Return that a collection has no such named vector, or breaks another rule about them, and which there are."""
    names = ", ".join(each.name for each in collection.vectors) or "none"
    return Violation(path, f"collection {collection.name!r} {rule}: {names}", "UNKNOWN_VECTOR")
