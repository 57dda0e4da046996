"""What the service raises, beside the errors of the embedders.

ServiceError
  InvalidRequest                the caller's mistake: every violation is listed
  NotFound                      EmbedderNotFound, CollectionNotFound, TenantNotFound, ObjectNotFound
  CollectionAlreadyExists
  Unauthenticated               ApiKeyMissing, ApiKeyInvalid: nobody knows who calls
  AccessDenied                  PermissionDenied, CollectionDenied, TenantDenied: the client may not
  SpaceMismatch                 the embedder's space is not the named vector's
  CollectionNotBound            the named vector is bound to no space
  StoreRejected                 Weaviate refused what it was asked for
  StoreUnavailable              Weaviate does not answer: try again
"""

from collections.abc import Sequence
from dataclasses import dataclass

from embedders.errors import ImageEmpty, ImageTooLarge, ImageUndecodable, InputRejected, TextTooLong

__all__ = [
    "AccessDenied",
    "ApiKeyInvalid",
    "ApiKeyMissing",
    "CollectionAlreadyExists",
    "CollectionDenied",
    "CollectionNotBound",
    "CollectionNotFound",
    "EmbedderNotFound",
    "InvalidRequest",
    "NotFound",
    "ObjectNotFound",
    "PermissionDenied",
    "ServiceError",
    "SpaceMismatch",
    "StoreRejected",
    "StoreUnavailable",
    "TenantDenied",
    "TenantNotFound",
    "Unauthenticated",
    "Violation",
    "rejection",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule.

    Attributes:
        field: the path of the field in the request, such as 'objects[3].images["photo"].content'.
        description: the rule, the bound and the fix, without the content.
        reason: the name of an ErrorReason without its prefix.
    """

    field: str
    description: str
    reason: str = "INVALID_INPUT"


class ServiceError(Exception):
    """Parent of all. The message is for the caller: it holds no secret and no content of an input."""


class InvalidRequest(ServiceError):
    """The request breaks rules; all of them are listed."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{each.field}: {each.description}" for each in violations))
        self.violations = tuple(violations)


class NotFound(ServiceError):
    """What the request names is not there.

    Attributes:
        kind: what kind of thing.
        name: its name.
    """

    kind = "resource"

    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(f"there is no {self.kind} {name!r}" + (f"; {hint}" if hint else ""))
        self.name = name


class EmbedderNotFound(NotFound):
    """This server has no embedder of that name."""

    kind = "embedder"


class CollectionNotFound(NotFound):
    """There is no collection of that name."""

    kind = "collection"


class TenantNotFound(NotFound):
    """The collection has no tenant of that name."""

    kind = "tenant"


class ObjectNotFound(NotFound):
    """The collection has no object of that id."""

    kind = "object"


class CollectionAlreadyExists(ServiceError):
    """There is a collection of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a collection {name!r} already; delete it first or choose another name")
        self.name = name


class Unauthenticated(ServiceError):
    """Nobody knows who calls."""


class ApiKeyMissing(Unauthenticated):
    """The call brings no key."""

    def __init__(self) -> None:
        super().__init__("send a key of this server as authorization: Bearer KEY; its operator gives them")


class ApiKeyInvalid(Unauthenticated):
    """The call's key is no client's."""

    def __init__(self) -> None:
        super().__init__("the key is none of this server's; ask its operator for one")


class AccessDenied(ServiceError):
    """The client may not do what it asks for.

    Attributes:
        metadata: who may not do what.
    """

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.metadata = metadata


class PermissionDenied(AccessDenied):
    """The client has none of the permissions that the call takes."""

    def __init__(self, client: str, any_of: Sequence[str]) -> None:
        wanted = " or ".join(any_of)
        takes = f"takes the permission {wanted}, which client {client!r} has not" if wanted else "is open to no client"
        super().__init__(f"the call {takes}; ask the server's operator", client=client, permission=wanted)


class CollectionDenied(AccessDenied):
    """The client may not use the collection, whether there is one of that name or not."""

    def __init__(self, client: str, name: str) -> None:
        super().__init__(f"client {client!r} may not use collection {name!r}", client=client, collection=name)


class TenantDenied(AccessDenied):
    """The client may not use the tenant, or all of them at once."""

    def __init__(self, client: str, name: str) -> None:
        what = "all tenants of a collection at once" if name == "*" else f"tenant {name!r}"
        super().__init__(f"client {client!r} may not use {what}", client=client, tenant=name)


class SpaceMismatch(ServiceError):
    """A named vector is bound to another space than the embedder's or the supplied vector's."""

    def __init__(
        self, *, vector: str, bound: str, given: str, bound_dimension: int, given_dimension: int | None
    ) -> None:
        super().__init__(
            f"named vector {vector!r} is bound to space {bound!r}, but the vectors would come from space {given!r}; "
            "vectors of two spaces cannot be compared: use an embedder of the bound space, or a new collection"
        )
        self.metadata = {
            "vector": vector,
            "bound_space": bound,
            "given_space": given,
            "bound_dimension": str(bound_dimension),
            "given_dimension": "" if given_dimension is None else str(given_dimension),
        }


class CollectionNotBound(ServiceError):
    """Nothing says of which space a named vector is: neither Vecgate nor Weaviate's multi2vec-nvidia made it."""

    def __init__(self, collection: str, vector: str) -> None:
        super().__init__(
            f"named vector {vector!r} of collection {collection!r} is bound to no vector space: neither Vecgate nor "
            "Weaviate's multi2vec-nvidia made it; create a collection through CreateCollection and import into it"
        )
        self.collection = collection
        self.vector = vector


class StoreRejected(ServiceError):
    """Weaviate refused what it was asked for; the message says what it said."""


class StoreUnavailable(ServiceError):
    """Weaviate does not answer.

    Attributes:
        retry_after_s: when to try again, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


REASON_OF_REJECTION: dict[type[InputRejected], str] = {
    InputRejected: "INVALID_INPUT",
    TextTooLong: "TEXT_TOO_LONG",
    ImageEmpty: "IMAGE_EMPTY",
    ImageTooLarge: "IMAGE_TOO_LARGE",
    ImageUndecodable: "IMAGE_UNDECODABLE",
}


def rejection(error: InputRejected, field: str) -> InvalidRequest:
    """Return an embedder's refusal of an input as a violation of the request's field that held the input."""
    refusal = InvalidRequest([Violation(field, str(error), REASON_OF_REJECTION[type(error)])])
    refusal.__cause__ = error
    return refusal
