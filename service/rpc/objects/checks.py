"""What can be said of a request to ObjectService by itself, and page tokens."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID

from service.core.objects.objects import Listing
from service.core.objects.updating import MaskPath
from service.domain import Filter, SortBy
from service.errors import InvalidRequest, Violation, Violations, noting
from service.rpc.shared.filters import parse_filter
from service.rpc.shared.scope import check_scope
from service.rpc.shared.violations import RequestLimits, check_count, check_id
from vecgate.v1 import object_service_pb2 as object_pb

DEFAULT_PAGE_SIZE = 100
SEAL_BYTES = 6
ID_BYTES = 16
OFFSET_BYTES = 4
MASKED = ("properties", "images", "vectors")
PagedRequest = object_pb.ListObjectsRequest | object_pb.BackfillVectorsRequest


def check_import_objects(request: object_pb.ImportObjectsRequest, limits: RequestLimits) -> None:
    """Check an ImportObjectsRequest, but for its objects, which fail alone.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    check_count(violations, len(request.objects), limits.max_objects, "objects", "objects")
    violations.raise_if_any()


def check_get_object(request: object_pb.GetObjectRequest) -> None:
    """Check a GetObjectRequest, but for its id, which is checked with the names that need the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    violations.require(request.id, "id", "is required; give the object's UUID")
    violations.raise_if_any()


def check_delete_object(request: object_pb.DeleteObjectRequest) -> None:
    """Check a DeleteObjectRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    check_id(violations, request.id, "id")
    violations.raise_if_any()


def parse_listing(request: object_pb.ListObjectsRequest, limits: RequestLimits) -> Listing:
    """Return what to list.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    fits = 0 <= request.page_size <= limits.max_hits
    violations.require(fits, "page_size", f"is {request.page_size}; give 0 (for 100) to {limits.max_hits}")
    filters = None
    if filtered := request.HasField("filters"):
        filters = parse_filter(request.filters, "filters", limits, violations)
    for index, each in enumerate(request.sort):
        violations.require(each.property, f"sort[{index}].property", "is required; name a property")
    position: UUID | int = 0
    with noting(violations):
        position = parse_page_token(request, by_id=not filtered and not request.sort)
    violations.raise_if_any()
    sort = tuple(SortBy(each.property, each.descending) for each in request.sort)
    return Listing(request.page_size or DEFAULT_PAGE_SIZE, filters, sort, position)


def parse_delete_objects(request: object_pb.DeleteObjectsRequest, limits: RequestLimits) -> Filter:
    """Return which objects a DeleteObjectsRequest is about, not checked against the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    filters = None
    if request.HasField("filters"):
        filters = parse_filter(request.filters, "filters", limits, violations)
    else:
        violations.add("filters", "is required; say which objects to delete, or delete the collection")
    violations.raise_if_any()
    assert filters is not None, "a filter without violations is whole"
    return filters


def parse_update_mask(request: object_pb.UpdateObjectRequest) -> list[MaskPath]:
    """Check an UpdateObjectRequest, but for the object, and return its update mask.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    violations.require(request.object.id, "object.id", "is required; give the object's UUID")
    mask = []
    for index, text in enumerate(request.update_mask.paths):
        path = f"update_mask.paths[{index}]"
        part, _, name = text.partition(".")
        message = "must be properties.NAME, images.NAME or vectors.NAME; parts of objects change with their property"
        violations.require(part in MASKED and name and "." not in name, path, message)
        mask.append(MaskPath(path, part, name))
    violations.raise_if_any()
    return mask


def check_backfill_vectors(request: object_pb.BackfillVectorsRequest) -> None:
    """Check a BackfillVectorsRequest, but for the names, which need the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_scope(violations, request)
    with noting(violations):
        parse_page_token(request, by_id=True)
    violations.raise_if_any()


def page_token(request: PagedRequest, position: UUID | int) -> str:
    """Return the token of the page behind an object of an id, or behind so many objects."""
    place = position.bytes if isinstance(position, UUID) else position.to_bytes(OFFSET_BYTES, "big")
    return urlsafe_b64encode(_seal(request) + place).decode("ascii").rstrip("=")


def parse_page_token(request: PagedRequest, *, by_id: bool) -> UUID | int:
    """Return where the page of a request begins: behind the object of an id, or behind so many objects.

    Args:
        request: the request.
        by_id: whether its pages begin behind ids.

    Raises:
        InvalidRequest: the token is not one of this request's.
    """
    if not request.page_token:
        return 0
    try:
        token = urlsafe_b64decode(request.page_token + "=" * (-len(request.page_token) % 4))
    except ValueError:
        token = b""
    seal, place = token[:SEAL_BYTES], token[SEAL_BYTES:]
    if seal != _seal(request) or len(place) != (ID_BYTES if by_id else OFFSET_BYTES):
        message = (
            "is not a token of this request; send it with the collection, tenant, filters and sort of the request that "
            "returned it, or leave it empty to begin with the first object"
        )
        raise InvalidRequest([Violation("page_token", message)])
    return UUID(bytes=place) if by_id else int.from_bytes(place, "big")


def _seal(request: PagedRequest) -> bytes:
    """Return what a token is recognised by: a digest of what its request lists."""
    digest = hashlib.sha256(f"{request.DESCRIPTOR.name}\x00{request.collection}\x00{request.scope.tenant}".encode())
    if isinstance(request, object_pb.ListObjectsRequest):
        listed = object_pb.ListObjectsRequest(sort=request.sort)
        if request.HasField("filters"):
            listed.filters.CopyFrom(request.filters)
        digest.update(listed.SerializeToString(deterministic=True))
    return digest.digest()[:SEAL_BYTES]
