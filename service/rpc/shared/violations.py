"""Collecting violations, the bounds on calls, and checks that several services share."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Self
from uuid import UUID

from service.core.objects.checks import parse_id
from service.errors import InvalidRequest, Noted, Violation, noting
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


@dataclass(slots=True)
class Violations:
    """Collects violations, so that a caller learns of all at once."""

    found: Noted = field(default_factory=Noted)

    def add(self, path: str, description: str, reason: str = "INVALID_INPUT") -> None:
        """Note a broken rule."""
        self.found.append(Violation(path, description, reason))

    def require(self, condition: object, path: str, description: str) -> None:
        """Note a broken rule unless `condition` holds."""
        if not condition:
            self.add(path, description)

    def require_unique(self, names: Iterable[str], path: str) -> None:
        """Note each name of the list `path` that stood there before."""
        seen: set[str] = set()
        for index, name in enumerate(names):
            self.require(
                name not in seen, f"{path}[{index}].name", f"{name!r} stands here twice; give each its own name"
            )
            seen.add(name)

    def raise_if_any(self) -> None:
        """Raise what was noted.

        Raises:
            InvalidRequest: with all violations, if there are any.
        """
        if self.found:
            raise InvalidRequest(self.found)


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
    with noting(violations.found):
        if text:
            return parse_id(text, path)
    return UUID(int=0)
