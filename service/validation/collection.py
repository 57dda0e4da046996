"""What can be said of a request to CollectionService by itself, and page tokens."""

import base64
import binascii
import math
import re
from collections.abc import Sequence

from service.errors import InvalidRequest, Violation
from service.validation.violations import Violations
from vecgate.v1 import collection_service_pb2 as collection_pb

__all__ = [
    "COLLECTION_NAME",
    "check_create_collection",
    "check_list_collections",
    "check_page",
    "decode_page_token",
    "encode_page_token",
]

COLLECTION_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{0,254}")
PROPERTY_NAME = re.compile(r"[_a-z][_0-9A-Za-z]{0,230}")
VECTOR_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,229}")
RESERVED_NAMES = frozenset({"id", "_id", "_additional", "vector"})
MAX_PAGE_SIZE = 1000


def check_list_collections(request: collection_pb.ListCollectionsRequest) -> None:
    """Check a ListCollectionsRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_page(violations, request.page_size, request.page_token, COLLECTION_NAME)
    violations.raise_if_any()


def check_page(violations: Violations, size: int, token: str, names: re.Pattern[str]) -> None:
    """Note a page size or token that cannot be; `names` is what the listed things are named like."""
    good = 0 <= size <= MAX_PAGE_SIZE
    violations.require(good, "page_size", f"is {size}; give 0 (for 100) to {MAX_PAGE_SIZE}")
    try:
        decode_page_token(token, names)
    except InvalidRequest as error:
        violations.found += error.violations


def encode_page_token(last_name: str) -> str:
    """Return the token of the page after the thing of that name."""
    return base64.urlsafe_b64encode(last_name.encode()).decode()


def decode_page_token(token: str, names: re.Pattern[str] = COLLECTION_NAME) -> str:
    """Return the name that a token's page follows; empty for the first page.

    Raises:
        InvalidRequest: it is no token of this server.
    """
    try:
        name = base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError):
        name = ""
    if token and not names.fullmatch(name):
        message = "is no next_page_token of this server; leave it empty for the first page"
        raise InvalidRequest([Violation("page_token", message)])
    return name


def check_create_collection(request: collection_pb.CreateCollectionRequest) -> None:
    """Check a CreateCollectionRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
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
    _check_tenancy(violations, collection.multi_tenancy)
    violations.raise_if_any()


def _check_tenancy(violations: Violations, tenancy: collection_pb.MultiTenancyConfig) -> None:
    for name in ("auto_tenant_creation", "auto_tenant_activation"):
        good = tenancy.enabled or not getattr(tenancy, name)
        violations.require(
            good, f"collection.multi_tenancy.{name}", "is only for collections with tenants; set enabled too"
        )


def _check_property(violations: Violations, each: collection_pb.Property, path: str) -> None:
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
    violations: Violations,
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
    violations: Violations,
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
