"""What can be said of a collection by itself."""

import base64
import binascii
import math
import re
from collections.abc import Iterable, Sequence

from service.errors import InvalidRequest, Violation, noting
from service.rpc.collections.parameter_checks import check_parameters
from service.rpc.collections.vector_index import check_index
from service.rpc.shared.violations import Violations
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import property_pb2 as property_pb

COLLECTION_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{0,254}")
VECTOR_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,229}")
RERANKER = re.compile(r"reranker-[a-z0-9-]+")
BASE_URL = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
UPDATABLE = (
    "description",
    "properties",
    "vectors",
    "multi_tenancy",
    "replication",
    "sharding",
    "inverted_index",
    "default_vector",
    "reranker",
)
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
    with noting(violations.found):
        decode_page_token(token, names)


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
        check_property(violations, each, f"collection.properties[{index}]", typed=True)
    violations.require_unique((each.name for each in collection.properties), "collection.properties")
    violations.require(collection.vectors, "collection.vectors", "is empty; give at least one named vector")
    types = {each.name: each.data_type for each in collection.properties}
    for index, vector in enumerate(collection.vectors):
        path = f"collection.vectors[{index}]"
        _check_vector(violations, vector, path, index_type="hnsw")
        _check_types(violations, vector.image_fields, types, (property_pb.DATA_TYPE_BLOB,), f"{path}.image_fields")
        _check_types(violations, vector.text_fields, types, TEXTS, f"{path}.text_fields")
        _check_native(violations, vector, path)
    violations.require_unique((each.name for each in collection.vectors), "collection.vectors")
    _check_settings(violations, collection)
    for name in ("auto_tenant_creation", "auto_tenant_activation"):
        good = collection.multi_tenancy.enabled or not getattr(collection.multi_tenancy, name)
        violations.require(
            good, f"collection.multi_tenancy.{name}", "is only for collections with tenants; set enabled too"
        )
    shards = collection.HasField("sharding") and collection.multi_tenancy.enabled
    violations.require(not shards, "collection.sharding", "is not for collections with tenants; leave it out")
    violations.raise_if_any()


def check_update_collection(request: collection_pb.UpdateCollectionRequest) -> None:
    """Check an UpdateCollectionRequest.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    collection = request.collection
    violations.require(collection.name, "collection.name", "is required; name a collection")
    for index, path in enumerate(request.update_mask.paths):
        message = f"{path!r} is no field to change; give {', '.join(UPDATABLE)} or *"
        violations.require(path in (*UPDATABLE, "*"), f"update_mask.paths[{index}]", message)
    for index, each in enumerate(collection.properties):
        check_property(violations, each, f"collection.properties[{index}]", typed=False)
    violations.require_unique((each.name for each in collection.properties), "collection.properties")
    for index, vector in enumerate(collection.vectors):
        _check_vector(violations, vector, f"collection.vectors[{index}]", index_type="")
    violations.require_unique((each.name for each in collection.vectors), "collection.vectors")
    _check_settings(violations, collection)
    violations.raise_if_any()


def _check_settings(violations: Violations, collection: collection_pb.Collection) -> None:
    if collection.HasField("reranker"):
        message = "must be the name of a reranker module of Weaviate's, such as reranker-nvidia"
        violations.require(RERANKER.fullmatch(collection.reranker.module), "collection.reranker.module", message)
    for name in ("replication", "sharding", "inverted_index"):
        check_parameters(violations, getattr(collection, name), f"collection.{name}")


def _check_vector(violations: Violations, vector: collection_pb.VectorConfig, path: str, *, index_type: str) -> None:
    violations.require(
        VECTOR_NAME.fullmatch(vector.name),
        f"{path}.name",
        "must be a letter or underscore, then up to 229 letters, digits or underscores, such as default",
    )
    _check_fields(violations, vector.image_fields, f"{path}.image_fields")
    _check_fields(violations, vector.text_fields, f"{path}.text_fields")
    url = vector.base_url
    good = not url or (BASE_URL.fullmatch(url) and not url.rstrip("/").endswith("/v1"))
    violations.require(good, f"{path}.base_url", "must be an address such as http://vecgate:8070, without /v1")
    check_index(violations, vector.index, f"{path}.index", index_type)


def _check_native(violations: Violations, vector: collection_pb.VectorConfig, path: str) -> None:
    if not vector.native:
        violations.require(not vector.base_url, f"{path}.base_url", "is for native vectors only; set native too")
        return
    message = "is required of native vectors: where Weaviate reaches Vecgate's HTTP endpoint"
    violations.require(vector.base_url, f"{path}.base_url", message)
    fields = len(vector.image_fields) + len(vector.text_fields)
    violations.require(fields, f"{path}.native", "Weaviate's module needs image_fields or text_fields")


def _check_fields(violations: Violations, fields: Sequence[collection_pb.WeightedField], path: str) -> None:
    for index, each in enumerate(fields):
        good = not each.HasField("weight") or (math.isfinite(each.weight) and each.weight > 0)
        violations.require(
            good, f"{path}[{index}].weight", f"is {each.weight}; give a finite number over 0, or leave it out"
        )
    violations.require_unique((each.name for each in fields), path)


def _check_types(
    violations: Violations,
    fields: Sequence[collection_pb.WeightedField],
    types: dict[str, "property_pb.DataType.ValueType"],
    allowed: Sequence["property_pb.DataType.ValueType"],
    path: str,
) -> None:
    words = " or ".join(property_pb.DataType.Name(each) for each in allowed)
    for index, each in enumerate(fields):
        fits = types.get(each.name) in allowed
        violations.require(
            fits, f"{path}[{index}].name", f"{each.name!r} is no property of type {words} of this collection"
        )


PROPERTY_NAME = re.compile(r"[_a-z][_0-9A-Za-z]{0,230}")
NESTED_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,230}")
RESERVED_NAMES = frozenset({"id", "_id", "_additional", "vector"})
MAX_DEPTH = 10

TEXTS = (property_pb.DATA_TYPE_TEXT, property_pb.DATA_TYPE_TEXT_ARRAY)
OBJECTS = (property_pb.DATA_TYPE_OBJECT, property_pb.DATA_TYPE_OBJECT_ARRAY)
RANGES = (property_pb.DATA_TYPE_INT, property_pb.DATA_TYPE_NUMBER, property_pb.DATA_TYPE_DATE)
NOT_NESTED = (property_pb.DATA_TYPE_BLOB, property_pb.DATA_TYPE_GEO_COORDINATES)
# Each call of values() makes a list.
DATA_TYPES = frozenset(property_pb.DataType.values())
TOKENIZATIONS = frozenset(property_pb.Tokenization.values())
NAME_RULE = (
    "must be a small letter or underscore, then up to 230 letters, digits or underscores, and not one of "
    f"Weaviate's own: {', '.join(sorted(RESERVED_NAMES))}"
)
NESTED_NAME_RULE = "must be a letter or underscore, then up to 230 letters, digits or underscores"


def check_property(
    violations: Violations, each: property_pb.Property, path: str, *, typed: bool, depth: int = 0
) -> None:
    """Note what a property cannot be.

    Args:
        violations: where to.
        each: the property.
        path: where it stands in the request.
        typed: whether it must have a type; one that is there already has one.
        depth: how many objects it is within.
    """
    if depth:
        good, message = NESTED_NAME.fullmatch(each.name) is not None, NESTED_NAME_RULE
    else:
        good = PROPERTY_NAME.fullmatch(each.name) is not None and each.name not in RESERVED_NAMES
        message = NAME_RULE
    violations.require(good, f"{path}.name", message)
    known = each.data_type in DATA_TYPES
    said = each.data_type != property_pb.DATA_TYPE_UNSPECIFIED
    message = "is required; give one of the DataType values, such as DATA_TYPE_TEXT"
    violations.require(known and (said or not typed), f"{path}.data_type", message)
    if depth:
        fits = each.data_type not in NOT_NESTED
        violations.require(fits, f"{path}.data_type", "objects hold no blobs and no places")
    if known and said:
        _check_indexing(violations, each, path)
    _check_nested(violations, each, path, typed=typed, depth=depth)


def _check_indexing(violations: Violations, each: property_pb.Property, path: str) -> None:
    known = each.tokenization in TOKENIZATIONS
    violations.require(known, f"{path}.tokenization", f"{each.tokenization} is no Tokenization that this server knows")
    if each.data_type not in TEXTS:
        cut = each.tokenization != property_pb.TOKENIZATION_UNSPECIFIED
        violations.require(not cut, f"{path}.tokenization", "is for texts only; leave it out")
        violations.require(not each.index_searchable, f"{path}.index_searchable", "is for texts only; leave it out")
    ranges = each.data_type in RANGES or not each.index_range_filters
    violations.require(ranges, f"{path}.index_range_filters", "is for int, number and date only; leave it out")


def _check_nested(violations: Violations, each: property_pb.Property, path: str, *, typed: bool, depth: int) -> None:
    where = f"{path}.nested_properties"
    if each.data_type not in OBJECTS:
        stray = each.nested_properties and (typed or each.data_type != property_pb.DATA_TYPE_UNSPECIFIED)
        violations.require(not stray, where, "is for objects and object arrays only; leave it out")
        if stray:
            return
    elif not each.nested_properties:
        violations.add(where, "is empty; an object has at least one property")
    if depth == MAX_DEPTH:
        violations.require(not each.nested_properties, where, f"is more than {MAX_DEPTH} levels deep")
        return
    for index, inner in enumerate(each.nested_properties):
        check_property(violations, inner, f"{where}[{index}]", typed=typed, depth=depth + 1)
    violations.require_unique(_names(each.nested_properties), where)


def _names(properties: Iterable[property_pb.Property]) -> list[str]:
    return [each.name for each in properties]
