"""ObjectService's messages: requests are checked as they are parsed."""

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import struct_pb2

from service.core.objects.checks import DraftObject
from service.core.objects.duplicates import Duplicate, DuplicateAction, DuplicateCheck
from service.core.objects.importing import ImportOutcome
from service.core.objects.objects import Listing
from service.core.objects.updating import MaskPath
from service.core.objects.vectorizing import VectorOrigin, VectorReport
from service.domain import Filter, Scope, SortBy, StoredObject
from service.error_table import to_status
from service.errors import Violation, Violations, collecting
from service.rpc.embedding import vector_to_pb
from service.rpc.shared.bounds import (
    MAX_OBJECT_IMAGES,
    MAX_OBJECT_VALUES,
    MAX_OBJECT_VECTORS,
    MAX_PROPERTIES_BYTES,
    RequestLimits,
)
from service.rpc.shared.filters import parse_filter
from service.rpc.shared.images import both
from service.rpc.shared.pages import parse_page_token
from service.rpc.shared.requests import output_from_pb, parse_scope
from vecgate.v1 import object_service_pb2 as object_pb

DEFAULT_PAGE_SIZE = 100
MAX_ID_CHARS = 64
ACTIONS = {object_pb.DuplicateAction.Value(f"DUPLICATE_ACTION_{each.name}"): each for each in DuplicateAction}
MASKED = ("properties", "images", "vectors")
ORIGINS = {origin: object_pb.VectorOrigin.Value(f"VECTOR_ORIGIN_{origin.name}") for origin in VectorOrigin}
SCALARS: dict[type, str] = {str: "string_value", float: "number_value", int: "number_value", bool: "bool_value"}
"""The field of a Struct's value that holds a Python value; other values are lists and objects."""


def parse_listing(request: object_pb.ListObjectsRequest, limits: RequestLimits) -> Listing:
    """Return what to list; names are not checked, which needs the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    filters = None
    with collecting() as violations:
        scope = parse_scope(violations, request)
        fits = 0 <= request.page_size <= limits.max_hits
        violations.require(fits, "page_size", f"is {request.page_size}; give 0 (for 100) to {limits.max_hits}")
        if filtered := request.HasField("filters"):
            filters = parse_filter(request.filters, limits, violations)
        for index, each in enumerate(request.sort):
            violations.require(each.property, f"sort[{index}].property", "is required; name a property")
        position = parse_page_token(violations, request, by_id=not filtered and not request.sort)
    sort = tuple(SortBy(each.property, each.descending) for each in request.sort)
    size, returned = request.page_size or DEFAULT_PAGE_SIZE, output_from_pb(request.output)
    return Listing(request.collection, size, filters, sort, position, returned, scope)


def parse_duplicates(violations: Violations, request: object_pb.ImportObjectsRequest) -> DuplicateCheck | None:
    """Return what an import does with duplicates; names are not checked, which needs the collection."""
    if not request.HasField("duplicates"):
        return None
    check, path = request.duplicates, "duplicates"
    action = ACTIONS.get(check.action)
    violations.require(action, f"{path}.action", "is required; give DUPLICATE_ACTION_REPORT or DUPLICATE_ACTION_SKIP")
    message = f"is {check.min_cosine:g}; give more than 0 and at most 1, or 0 to find only the same texts and images"
    violations.require(0 <= check.min_cosine <= 1, f"{path}.min_cosine", message)
    return None if action is None else DuplicateCheck(action, check.min_cosine, check.target_vector)


def parse_update_mask(violations: Violations, paths: Iterable[str]) -> list[MaskPath]:
    """Return an update mask; names are not checked, which needs the collection."""
    mask = []
    for index, text in enumerate(paths):
        path = f"update_mask.paths[{index}]"
        part, _, name = text.partition(".")
        message = "must be properties.NAME, images.NAME or vectors.NAME; a part of an object changes with its property"
        violations.require(part in MASKED and name and "." not in name, path, message)
        mask.append(MaskPath(path, part, name))
    return mask


def parse_deletion(request: object_pb.DeleteObjectsRequest, limits: RequestLimits) -> tuple[Filter, Scope]:
    """Return which objects to delete, and whose; names are not checked, which needs the collection.

    Raises:
        InvalidRequest: with all violations.
    """
    filters = None
    with collecting() as violations:
        scope = parse_scope(violations, request)
        if request.HasField("filters"):
            filters = parse_filter(request.filters, limits, violations)
        else:
            violations.add("filters", "is required; say which objects to delete, or delete the collection")
    assert filters is not None, "a filter without violations is parsed"
    return filters, scope


class _TooMany(Exception):
    """An object has more values than it may have."""


def parse_object(message: object_pb.DataObject, path: str) -> DraftObject:
    """Return an object; names, types and the id are not checked, which needs the collection.

    Properties, images or vectors of which there are too many are left out, and named in its faults.
    """
    size, properties, images, vectors = message.properties.ByteSize(), {}, {}, {}
    references: dict[str, str] = {}
    values, faults = _Values(), []
    if size > MAX_PROPERTIES_BYTES:
        fault = f"have {size} bytes, an object takes {MAX_PROPERTIES_BYTES}; split long texts into several objects"
        faults.append(Violation(f"{path}.properties", fault, "INVALID_PROPERTY"))
    else:
        try:
            properties = values.of_struct(message.properties)
        except _TooMany:
            fault = f"have more than {MAX_OBJECT_VALUES} values, with those in lists and objects; use several objects"
            faults.append(Violation(f"{path}.properties", fault, "INVALID_PROPERTY"))
    if (count := len(message.images)) > MAX_OBJECT_IMAGES:
        fault = f"has {count} images; an object has at most {MAX_OBJECT_IMAGES}"
        faults.append(Violation(f"{path}.images", fault, "INVALID_PROPERTY"))
    else:
        references = {name: image.uri for name, image in message.images.items() if image.uri}
        images = {name: image.content for name, image in message.images.items() if name not in references}
        faults += [both(f'{path}.images["{name}"]') for name in references if message.images[name].content]
    if (count := len(message.vectors)) > MAX_OBJECT_VECTORS:
        fault = f"has {count} vectors; an object has at most {MAX_OBJECT_VECTORS}"
        faults.append(Violation(f"{path}.vectors", fault, "INVALID_VECTOR"))
    else:
        vectors = {name: vector.data for name, vector in message.vectors.items()}
    return DraftObject(path, message.id, properties, images, vectors, values.count, faults, references)


class _Values:
    """Reads the values of an object as JSON has them.

    json_format refuses NaN, which the check of properties names.

    Attributes:
        count: how many were read.
    """

    def __init__(self) -> None:
        self.count = 0

    def of_struct(self, struct: struct_pb2.Struct) -> dict[str, Any]:
        """Return an object.

        Raises:
            _TooMany: there are more values than an object may have.
        """
        self._take(len(struct.fields))
        return {name: self._of_value(each) for name, each in struct.fields.items()}

    def _of_value(self, value: struct_pb2.Value) -> Any:
        match value.WhichOneof("kind"):
            case "struct_value":
                return self.of_struct(value.struct_value)
            case "list_value":
                self._take(len(value.list_value.values))
                return [self._of_value(each) for each in value.list_value.values]
            case None | "null_value":
                return None
            case kind:
                return getattr(value, kind)

    def _take(self, count: int) -> None:
        self.count += count
        if self.count > MAX_OBJECT_VALUES:
            raise _TooMany


def object_to_pb(each: StoredObject, message: object_pb.DataObject | None = None) -> object_pb.DataObject:
    """Return an object as a new message, or as one that is already part of another."""
    message = object_pb.DataObject() if message is None else message
    message.id = str(each.id)
    values = message.properties.fields
    for name, value in each.properties.items():
        if (kind := SCALARS.get(type(value))) is not None:
            # Struct.update does the same, in Python and in four times the time.
            setattr(values[name], kind, value)
        elif value is not None:
            message.properties.update({name: value})
    if each.images:
        for name, content in each.images.items():
            message.images[name].content = content
    if each.vectors:
        for name, vector in each.vectors.items():
            message.vectors[name].CopyFrom(vector_to_pb(vector))
    return message


def outcome_to_pb(outcome: ImportOutcome) -> object_pb.ImportResult:
    """Return the result of one object of an import."""
    if outcome.error is not None:
        # An invalid id can be of any length.
        return object_pb.ImportResult(id=outcome.id[:MAX_ID_CHARS], error=to_status(outcome.error, ""))
    of = None if outcome.duplicate is None else _duplicate_to_pb(outcome.duplicate)
    if outcome.skipped:
        return object_pb.ImportResult(id=outcome.id, skipped=of)
    result = object_pb.ImportResult(id=outcome.id, stored=stored_to_pb(outcome.vectors))
    if of is not None:
        result.stored.duplicate_of.CopyFrom(of)
    return result


def _duplicate_to_pb(duplicate: Duplicate) -> object_pb.Duplicate:
    return object_pb.Duplicate(id=str(duplicate.id), cosine=duplicate.cosine, same_content=duplicate.same_content)


def stored_to_pb(reports: Sequence[VectorReport]) -> object_pb.StoredObject:
    """Return where the named vectors of an object came from."""
    stored = object_pb.StoredObject()
    for each in reports:
        stored.vectors.add(
            name=each.name,
            origin=ORIGINS[each.origin],
            embedder=each.embedder,
            truncated=each.truncated,
            error=None if each.error is None else to_status(each.error, ""),
        )
    return stored
