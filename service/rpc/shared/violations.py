"""The bounds on a call, and checks that several services share."""

from dataclasses import dataclass, fields
from typing import Self
from uuid import UUID

from service.core.objects.checks import parse_id
from service.errors import Violations, noting
from service.settings import LimitSettings


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds on one call; see the settings of the same names.

    Attributes:
        max_filter_depth: a filter is walked by recursion, and people write far flatter ones.
        max_filter_nodes: conditions, joins and listed values of a filter; Weaviate takes long for more.
    """

    max_inputs: int
    max_objects: int
    max_hits: int
    max_text_bytes: int
    max_image_bytes: int
    max_filter_depth: int = 16
    max_filter_nodes: int = 1000

    @classmethod
    def of(cls, settings: LimitSettings) -> Self:
        """Return the bounds that settings ask for."""
        return cls(**settings.model_dump(include={each.name for each in fields(cls)}))


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
