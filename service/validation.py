"""What can be said of a request without asking anybody: required fields, patterns, bounds and known enum numbers."""

import base64
import binascii
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from service.errors import InvalidRequest, Violation
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb

__all__ = [
    "RequestLimits",
    "check_create_collection",
    "check_embed_inputs",
    "check_get_object",
    "check_import_objects",
    "check_list_collections",
    "check_name",
    "check_search_objects",
    "decode_page_token",
    "encode_page_token",
]

COLLECTION_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{0,254}")
PROPERTY_NAME = re.compile(r"[_a-z][_0-9A-Za-z]{0,230}")
VECTOR_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,229}")
RESERVED_NAMES = frozenset({"id", "_id", "_additional", "vector"})
MAX_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds on one call; see the settings of the same names."""

    max_inputs: int
    max_objects: int
    max_hits: int


@dataclass(slots=True)
class _Violations:
    """Collects violations, so that a caller learns of all at once."""

    found: list[Violation] = field(default_factory=list)

    def add(self, path: str, description: str, reason: str = "INVALID_INPUT") -> None:
        self.found.append(Violation(path, description, reason))

    def require(self, condition: object, path: str, description: str) -> None:
        if not condition:
            self.add(path, description)

    def require_unique(self, names: Iterable[str], path: str) -> None:
        seen: set[str] = set()
        for index, name in enumerate(names):
            self.require(
                name not in seen, f"{path}[{index}].name", f"{name!r} stands here twice; give each its own name"
            )
            seen.add(name)

    def raise_if_any(self) -> None:
        if self.found:
            raise InvalidRequest(self.found)


def check_name(name: str, path: str) -> None:
    """Check that a collection is named.

    Raises:
        InvalidRequest: it is not.
    """
    violations = _Violations()
    violations.require(name, path, "is required; name a collection")
    violations.raise_if_any()


def check_embed_inputs(request: embedding_pb.EmbedInputsRequest, limits: RequestLimits) -> None:
    """Check an EmbedInputsRequest, but for its inputs, which fail alone.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = _Violations()
    _check_count(violations, len(request.inputs), limits.max_inputs, "inputs", "inputs")
    known = request.purpose in embedding_pb.Purpose.values()
    violations.require(known, "purpose", f"{request.purpose} is no Purpose that this server knows")
    known = request.priority in embedding_pb.Priority.values()
    violations.require(known, "priority", f"{request.priority} is no Priority that this server knows")
    violations.raise_if_any()


def check_import_objects(request: object_pb.ImportObjectsRequest, limits: RequestLimits) -> None:
    """Check an ImportObjectsRequest, but for its objects, which fail alone.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = _Violations()
    violations.require(request.collection, "collection", "is required; name a collection")
    _check_count(violations, len(request.objects), limits.max_objects, "objects", "objects")
    violations.raise_if_any()


def check_get_object(request: object_pb.GetObjectRequest) -> None:
    """Check a GetObjectRequest, but for its id.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = _Violations()
    violations.require(request.collection, "collection", "is required; name a collection")
    violations.require(request.id, "id", "is required; give the object's UUID")
    violations.raise_if_any()


def check_search_objects(request: search_pb.SearchObjectsRequest, limits: RequestLimits) -> None:
    """Check a SearchObjectsRequest, but for names, which need the collection, and inputs, which need the embedder.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = _Violations()
    violations.require(request.collection, "collection", "is required; name a collection")
    violations.require(request.limit >= 0, "limit", f"is {request.limit}; give 0 (for 10) to {limits.max_hits}")
    violations.require(request.offset >= 0, "offset", f"is {request.offset}; give 0 or more")
    reach = request.limit + request.offset
    violations.require(
        reach <= limits.max_hits,
        "limit",
        f"with offset is {reach}, this server returns the first {limits.max_hits} hits",
    )
    targets = len(request.target_vectors)
    violations.require(targets <= 1, "target_vectors", f"has {targets} names; a search uses one named vector")
    match request.WhichOneof("query"):
        case "near_text":
            count = len(request.near_text.concepts)
            _check_count(violations, count, limits.max_inputs, "near_text.concepts", "texts")
        case "near_image":
            violations.require(request.near_image.HasField("image"), "near_image.image", "is required")
        case "near_vector":
            violations.require(request.near_vector.HasField("vector"), "near_vector.vector", "is required")
    violations.raise_if_any()


def check_list_collections(request: collection_pb.ListCollectionsRequest) -> None:
    """Check a ListCollectionsRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = _Violations()
    good = 0 <= request.page_size <= MAX_PAGE_SIZE
    violations.require(good, "page_size", f"is {request.page_size}; give 0 (for 100) to {MAX_PAGE_SIZE}")
    violations.raise_if_any()
    decode_page_token(request.page_token)


def encode_page_token(last_name: str) -> str:
    """Return the token of the page after a collection."""
    return base64.urlsafe_b64encode(last_name.encode()).decode()


def decode_page_token(token: str) -> str:
    """Return the collection that a token's page follows; empty for the first page.

    Raises:
        InvalidRequest: it is no token of this server.
    """
    try:
        name = base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError):
        name = ""
    if token and not COLLECTION_NAME.fullmatch(name):
        message = "is no next_page_token of this server; leave it empty for the first page"
        raise InvalidRequest([Violation("page_token", message)])
    return name


def check_create_collection(request: collection_pb.CreateCollectionRequest) -> None:
    """Check a CreateCollectionRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = _Violations()
    collection = request.collection
    violations.require(
        COLLECTION_NAME.fullmatch(collection.name),
        "collection.name",
        "must be a capital letter, then up to 254 letters, digits or underscores, such as Pictures",
    )
    for index, each in enumerate(collection.properties):
        _check_property(violations, each, f"collection.properties[{index}]")
    violations.require_unique((each.name for each in collection.properties), "collection.properties")
    violations.require(collection.vectors, "collection.vectors", "is empty; give at least one named vector")
    types = {each.name: each.data_type for each in collection.properties}
    for index, vector in enumerate(collection.vectors):
        _check_vector(violations, vector, types, f"collection.vectors[{index}]")
    violations.require_unique((each.name for each in collection.vectors), "collection.vectors")
    violations.raise_if_any()


def _check_property(violations: _Violations, each: collection_pb.Property, path: str) -> None:
    good = PROPERTY_NAME.fullmatch(each.name) and each.name not in RESERVED_NAMES
    message = (
        "must be a small letter or underscore, then up to 230 letters, digits or underscores, and not one of "
        f"Weaviate's own: {', '.join(sorted(RESERVED_NAMES))}"
    )
    violations.require(good, f"{path}.name", message)
    known = each.data_type in collection_pb.DataType.values() and each.data_type != collection_pb.DATA_TYPE_UNSPECIFIED
    violations.require(
        known, f"{path}.data_type", "is required; give one of the DataType values, such as DATA_TYPE_TEXT"
    )


def _check_vector(
    violations: _Violations,
    vector: collection_pb.VectorConfig,
    types: dict[str, "collection_pb.DataType.ValueType"],
    path: str,
) -> None:
    violations.require(
        VECTOR_NAME.fullmatch(vector.name),
        f"{path}.name",
        "must be a letter or underscore, then up to 229 letters, digits or underscores, such as default",
    )
    known = vector.distance in collection_pb.Distance.values()
    violations.require(known, f"{path}.distance", f"{vector.distance} is no Distance that this server knows")
    texts = (collection_pb.DATA_TYPE_TEXT, collection_pb.DATA_TYPE_TEXT_ARRAY)
    _check_fields(violations, vector.image_fields, types, (collection_pb.DATA_TYPE_BLOB,), f"{path}.image_fields")
    _check_fields(violations, vector.text_fields, types, texts, f"{path}.text_fields")


def _check_fields(
    violations: _Violations,
    fields: Sequence[collection_pb.WeightedField],
    types: dict[str, "collection_pb.DataType.ValueType"],
    allowed: Sequence["collection_pb.DataType.ValueType"],
    path: str,
) -> None:
    words = " or ".join(collection_pb.DataType.Name(each) for each in allowed)
    for index, each in enumerate(fields):
        fits = types.get(each.name) in allowed
        violations.require(
            fits, f"{path}[{index}].name", f"{each.name!r} is no property of type {words} of this collection"
        )
        good = not each.HasField("weight") or (math.isfinite(each.weight) and each.weight > 0)
        violations.require(
            good, f"{path}[{index}].weight", f"is {each.weight}; give a finite number over 0, or leave it out"
        )
    violations.require_unique((each.name for each in fields), path)


def _check_count(violations: _Violations, count: int, most: int, path: str, what: str) -> None:
    violations.require(count, path, f"is empty; give 1 to {most} {what}")
    if count > most:
        message = f"has {count} {what}, this server takes {most} in one call; split the call"
        violations.add(path, message, "BATCH_TOO_LARGE")
