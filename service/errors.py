"""What the service raises, beside the errors of the embedders.

ServiceError
  InvalidRequest                the caller's mistake: every violation is listed
  NotFound                      EmbedderNotFound, RerankerNotFound, CollectionNotFound, TenantNotFound, ObjectNotFound
  CollectionAlreadyExists
  SpaceMismatch                 the embedder's space is not the named vector's: SpaceAmbiguous
  CollectionNotBound            the named vector is bound to no space
  BindingUnproven               stored vectors do not prove to which space they belong
  PackageMissing                an optional package is not installed
  ImageUriNotAllowed            a picture's URI is not of a listed origin
  ImageNotServed                the origin answers, but not with the picture
  ImageUnreachable              the origin does not answer: try again
  CredentialsMissing            nothing says who calls
  CredentialsInvalid            what says it is not valid here
  PermissionDenied              the client may not do this
  QuotaExceeded                 the client has used up what it may: try again later
  StoreRejected                 Weaviate refused what it was asked for: TenantInactive, VectorRemoved
  Overloaded                    as many calls as there may be: try again
  MessageTooLarge               the request or the answer is longer than a message may be
  StoreUnavailable              Weaviate does not answer: try again
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from embedders.errors import ImageEmpty, ImageTooLarge, ImageUndecodable, InputRejected, TextTooLong

MAX_VIOLATIONS = 100
"""Those that an error names."""


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

    def __str__(self) -> str:
        # What is wrong with a request as a whole has no path.
        return f"{self.field}: {self.description}" if self.field else self.description


class ServiceError(Exception):
    """Parent of all. The message is for the caller: it holds no secret and no content of an input."""


class InvalidRequest(ServiceError):
    """The request breaks rules; the first ones are listed.

    Attributes:
        violations: which, as far as they are listed.
        more: how many others there are.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations[:MAX_VIOLATIONS])
        self.more = len(violations) - len(self.violations) + getattr(violations, "more", 0)
        super().__init__("; ".join([*map(str, self.violations), *([f"and {self.more} more"] if self.more else [])]))


class Violations(list[Violation]):
    """All violations of a request: keeps the first ones, and counts the others.

    Attributes:
        more: how many others there are.
    """

    def __init__(self, violations: Iterable[Violation] = ()) -> None:
        super().__init__()
        self.more = 0
        self.extend(violations)

    def append(self, violation: Violation) -> None:
        """Note a violation."""
        if len(self) < MAX_VIOLATIONS:
            super().append(violation)
        else:
            self.more += 1

    def extend(self, violations: Iterable[Violation]) -> None:
        """Note several violations."""
        for each in violations:
            self.append(each)

    def __iadd__(self, violations: Iterable[Violation]) -> Self:  # type: ignore[override,misc]  # takes what list takes
        self.extend(violations)
        return self

    def add(self, path: str, description: str, reason: str = "INVALID_INPUT") -> None:
        """Note a broken rule."""
        self.append(Violation(path, description, reason))

    def require(self, condition: object, path: str, description: str) -> None:
        """Note a broken rule unless `condition` holds."""
        if not condition:
            self.add(path, description)

    def require_unique(self, names: Iterable[str], path: str) -> None:
        """Note each name of the list `path` that occurred before."""
        seen: set[str] = set()
        for index, name in enumerate(names):
            self.require(name not in seen, f"{path}[{index}].name", f"{name!r} occurs twice; give each name once")
            seen.add(name)

    def require_count(self, count: int, most: int, path: str, what: str) -> None:
        """Note a list `path` that is empty or has more than `most` items."""
        self.require(count, path, f"is empty; give 1 to {most} {what}")
        if count > most:
            message = f"has {count} {what}, the most in one call is {most}; split the call"
            self.add(path, message, "BATCH_TOO_LARGE")

    def raise_if_any(self) -> None:
        """Raise what was noted.

        Raises:
            InvalidRequest: with all violations, if there are any.
        """
        if self:
            raise InvalidRequest(self)


@contextmanager
def collecting() -> Iterator[Violations]:
    """Give what collects the violations of several steps.

    Raises:
        InvalidRequest: at the end, with all violations, if there are any.
    """
    violations = Violations()
    yield violations
    violations.raise_if_any()


@contextmanager
def noting(violations: Violations) -> Iterator[None]:
    """Note the violations that a step raises, and go on after it."""
    try:
        yield
    except InvalidRequest as error:
        violations += error.violations
        violations.more += error.more


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


LEADS_NOWHERE = "it is an alias, and its collection was deleted; switch it with UpdateAlias, or delete it"


class EmbedderNotFound(NotFound):
    """This server has no embedder of that name."""

    kind = "embedder"


class RerankerNotFound(NotFound):
    """This server has no reranker of that name."""

    kind = "reranker"


class CollectionNotFound(NotFound):
    """There is no collection of that name."""

    kind = "collection"


class AliasNotFound(NotFound):
    """There is no alias of that name."""

    kind = "alias"


class TenantNotFound(NotFound):
    """The collection has no tenant of that name."""

    kind = "tenant"


class ObjectNotFound(NotFound):
    """The collection has no object of that id."""

    kind = "object"


class CollectionAlreadyExists(ServiceError):
    """There is a collection or an alias of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a collection or an alias {name!r} already; choose another name, or delete it first")
        self.name = name


class SpaceMismatch(ServiceError):
    """A named vector is bound to another space than the embedder's or the supplied vector's."""

    def __init__(
        self,
        *,
        vector: str,
        bound: str,
        given: str,
        bound_dimension: int,
        given_dimension: int | None,
        message: str = "",
    ) -> None:
        super().__init__(
            message
            or f"named vector {vector!r} is bound to space {bound!r}, but the vectors would come from space {given!r}; "
            "vectors of two spaces cannot be compared: use an embedder of the bound space, or a new collection"
        )
        self.metadata = {
            "vector": vector,
            "bound_space": bound,
            "given_space": given,
            "bound_dimension": str(bound_dimension),
            "given_dimension": "" if given_dimension is None else str(given_dimension),
        }


class SpaceAmbiguous(SpaceMismatch):
    """An adopted vector names its model only, and this server has several spaces of that model."""

    def __init__(self, *, vector: str, model: str, spaces: Sequence[str]) -> None:
        listed = ", ".join(spaces)
        message = (
            f"Weaviate's schema says of vector {vector!r} that its model is {model!r}, and this server has several "
            f"vector spaces of that model: {listed}; which of them its vectors belong to is not known. Leave only that "
            "embedder on this server, or create a new collection with the id of a space as the module's model "
            "(`vecgate weaviate-config`)"
        )
        super().__init__(
            vector=vector, bound=model, given=listed, bound_dimension=0, given_dimension=None, message=message
        )


class CollectionNotBound(ServiceError):
    """Nothing says of which space a named vector is: neither Vecgate nor Weaviate's multi2vec-nvidia made it."""

    def __init__(self, collection: str, vector: str) -> None:
        super().__init__(
            f"vector {vector!r} of collection {collection!r} is bound to no vector space: neither Vecgate nor "
            "Weaviate's multi2vec-nvidia made it, so Vecgate neither makes nor takes vectors for it. near_vector, "
            "near_object, bm25, listings, UpdateObject and deleting work; for more let an administrator bind it to the "
            "embedder that made its vectors (BindVector, `vecgate collections bind`), or import into a collection of "
            "CreateCollection"
        )
        self.collection = collection
        self.vector = vector


class ImageNotStored(ServiceError):
    """A vector is made of an image of which the store keeps only the hash, and the request does not have the image."""

    def __init__(self, vector: str, name: str) -> None:
        super().__init__(
            f"named vector {vector!r} is made of the image {name!r}, of which Weaviate keeps only the hash; send the "
            "image again, in an import or in UpdateObject"
        )
        self.metadata = {"vector": vector, "property": name}


class BindingUnproven(ServiceError):
    """Stored vectors do not prove that an embedder made them as a binding would.

    Attributes:
        metadata: how many were compared, and their cosines.
    """

    def __init__(self, message: str, metadata: dict[str, str]) -> None:
        super().__init__(message)
        self.metadata = metadata


class PackageMissing(ServiceError):
    """An optional package is not installed that the call needs."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs the package {package}, which this server lacks; install vecgate[{extra}] there")


class CollectionChanged(ServiceError):
    """A collection is not any more what a caller has seen."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"collection {name!r} has changed since its etag was read: look at it again; nothing is changed"
        )


class ImageUriNotAllowed(ServiceError):
    """A picture may not be fetched from where its URI, or a redirect, leads. The message does not repeat the URI."""


class ImageNotServed(ServiceError):
    """The origin of a picture answers, but not with the picture."""


class ImageUnreachable(ServiceError):
    """The origin of a picture does not answer, or says that it cannot now.

    Attributes:
        retry_after_s: when to try again, in seconds.
        of_image: whether the origin answers, and may fail for this picture alone.
    """

    retry_after_s = 1.0

    def __init__(self, message: str, *, of_image: bool = False) -> None:
        super().__init__(message)
        self.of_image = of_image


ImageFault = ImageUriNotAllowed | ImageNotServed | ImageUnreachable | ImageTooLarge
"""Why there is no picture behind a URI."""


class CredentialsMissing(ServiceError):
    """Nothing says who calls, and this server serves known clients only."""


class CredentialsInvalid(ServiceError):
    """What says who calls is not valid here."""


class PermissionDenied(ServiceError):
    """The client may not do this."""


class QuotaExceeded(ServiceError):
    """The client has used up what it may.

    Attributes:
        client: its name.
        quota: which of its bounds.
        retry_after_s: when to try again, in seconds.
    """

    def __init__(self, client: str, quota: str, bound: str, *, retry_after_s: float) -> None:
        super().__init__(f"client {client!r} has used up its {quota} of {bound}; try again later, or ask for more")
        self.client = client
        self.quota = quota
        self.retry_after_s = retry_after_s


class StoreRejected(ServiceError):
    """Weaviate refused what it was asked for; the message says what it said."""


class TenantInactive(StoreRejected):
    """The collection's tenant is inactive or offloaded."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"tenant {name!r} is not active; activate it with UpdateTenants, or let calls activate tenants with "
            "multi_tenancy.auto_tenant_activation"
        )


class VectorRemoved(StoreRejected):
    """A search is for a named vector that another call has removed meanwhile."""

    def __init__(self, name: str) -> None:
        super().__init__(f"named vector {name!r} was removed during the search; search another one")


class Overloaded(ServiceError):
    """The server has as many calls as it may have: try again."""


class MessageTooLarge(ServiceError):
    """The request or the answer is longer than a message may be."""


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


def rejection(error: InputRejected, field: str, *, text_field: str = "", image_field: str = "") -> InvalidRequest:
    """Return an embedder's refusal of an input as a violation of the request's field that held the input.

    Args:
        error: the refusal.
        field: the field.
        text_field: the field of the text alone, of a text and an image as one input.
        image_field: the field of the image alone, likewise.
    """
    match error:
        case TextTooLong():
            field = text_field or field
        case ImageEmpty() | ImageTooLarge() | ImageUndecodable():
            field = image_field or field
    refusal = InvalidRequest([Violation(field, str(error), REASON_OF_REJECTION[type(error)])])
    refusal.__cause__ = error
    return refusal


def pair_rejection(error: InputRejected, field: str) -> InvalidRequest:
    """Return an embedder's refusal of a TextImage as a violation of the part of it that is wrong, or of all of it."""
    return rejection(error, field, text_field=f"{field}.text", image_field=f"{field}.image.content")
