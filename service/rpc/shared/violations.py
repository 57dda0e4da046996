"""Checks that several services share."""

from uuid import UUID

from service.core.objects.checks import parse_id
from service.errors import Violations, noting


def check_name(name: str, path: str) -> None:
    """Check that a collection is named.

    Raises:
        InvalidRequest: it is not.
    """
    violations = Violations()
    violations.require(name, path, "is required; name a collection")
    violations.raise_if_any()


def check_count(violations: Violations, count: int, most: int, path: str, what: str) -> None:
    """Note a list `path` that is empty or has more than `most` items."""
    violations.require(count, path, f"is empty; give 1 to {most} {what}")
    if count > most:
        message = f"has {count} {what}, this server takes {most} in one call; split the call"
        violations.add(path, message, "BATCH_TOO_LARGE")


def check_id(violations: Violations, text: str, path: str) -> UUID:
    """Return the id of an object; note one that is missing, or is not a UUID, and return the nil UUID for it."""
    violations.require(text, path, "is required; give an object's UUID")
    with noting(violations):
        if text:
            return parse_id(text, path)
    return UUID(int=0)
