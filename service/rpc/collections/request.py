"""Requests about collections: one walk checks a request and makes the collection, or the change, of the domain."""

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import json_format

from service.core.collections.binding import BindingWish
from service.core.collections.changes import CollectionChange, VectorDraft
from service.domain import (
    BLOBS,
    OBJECTS,
    RANGES,
    TEXTS,
    Alias,
    Collection,
    DataType,
    MultiTenancy,
    NamedVector,
    Property,
    Reranker,
    WeightedField,
)
from service.errors import Violations
from service.rpc.collections.parameters import parse_parameters
from service.rpc.collections.vector_index import parse_index
from service.weaviate_names import INDEXING, parameters_from_pb
from vecgate.v1 import alias_pb2 as alias_pb
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import tenant_pb2 as tenant_pb

COLLECTION_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{0,254}")
VECTOR_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,229}")
PROPERTY_NAME = re.compile(r"(?!(?:id|_id|_additional|vector)$)[_a-z][_0-9A-Za-z]{0,230}")
NESTED_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,230}")
RERANKER = re.compile(r"reranker-[a-z0-9-]+")
BASE_URL = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")

COLLECTION_RULE = "must be a capital letter, then up to 254 letters, digits or underscores, e.g. Pictures"
VECTOR_RULE = "must be a letter or underscore, then up to 229 letters, digits or underscores, e.g. default"
PROPERTY_RULE = (
    "must be a small letter or underscore, then up to 230 letters, digits or underscores; Weaviate reserves id, _id, "
    "_additional and vector"
)
NESTED_RULE = "must be a letter or underscore, then up to 230 letters, digits or underscores"

NOT_BOUND = "is not a part of a binding; leave it out"
ONLY_VECTOR = "default"

DATA_TYPES = {data_type: property_pb.DataType.Value(f"DATA_TYPE_{data_type.name}") for data_type in DataType}
DATA_TYPES_FROM_PB = {number: data_type for data_type, number in DATA_TYPES.items()}
NOT_NESTED = (*BLOBS, DataType.GEO_COORDINATES)
BLOB_TYPES = (property_pb.DATA_TYPE_BLOB, property_pb.DATA_TYPE_BLOB_HASH)
IMAGE_TYPES = (*BLOB_TYPES, property_pb.DATA_TYPE_TEXT)
"""A text is the URI of an image, which Weaviate's own module would not fetch."""
TEXT_TYPES = (property_pb.DATA_TYPE_TEXT, property_pb.DATA_TYPE_TEXT_ARRAY)
COMBINATIONS = {
    pb.COMBINATION_UNSPECIFIED: None,
    pb.COMBINATION_WEIGHTED_MEAN: False,
    pb.COMBINATION_JOINT_INPUT: True,
}
"""Whether the fields are one input; None where the request does not say."""
MAX_DEPTH = 10
Types = Mapping[str, "property_pb.DataType.ValueType"]
"""The number of each property's DataType by its name."""

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
    "object_ttl",
)
OUTPUT_ONLY = ("asyncEnabled", "actualCount")
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of a list to return: up to `size` items with names after `after`."""

    after: str
    size: int


def parse_page(
    violations: Violations,
    request: pb.ListCollectionsRequest | alias_pb.ListAliasesRequest | tenant_pb.ListTenantsRequest,
    names: re.Pattern[str],
) -> Page:
    """Return which page a request asks for; `names` is what the names of the listed items look like."""
    size, token = request.page_size, request.page_token
    fits = 0 <= size <= MAX_PAGE_SIZE
    violations.require(fits, "page_size", f"is {size}; give 0 (for {DEFAULT_PAGE_SIZE}) to {MAX_PAGE_SIZE}")
    try:
        after = base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError):
        after = ""
    known = not token or names.fullmatch(after)
    violations.require(
        known, "page_token", "is not a next_page_token of this server; leave it empty for the first page"
    )
    return Page(after, size or DEFAULT_PAGE_SIZE)


def page_token(last_name: str) -> str:
    """Return the token of the page after the item of a name."""
    return base64.urlsafe_b64encode(last_name.encode()).decode()


def parse_list(request: pb.ListCollectionsRequest | alias_pb.ListAliasesRequest) -> Page:
    """Return which page of collections or aliases to list.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    page = parse_page(violations, request, COLLECTION_NAME)
    violations.raise_if_any()
    return page


def parse_alias(message: alias_pb.Alias, *, creating: bool) -> Alias:
    """Return an alias of a request.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    if creating:
        violations.require(COLLECTION_NAME.fullmatch(message.name), "alias.name", COLLECTION_RULE)
    else:
        violations.require(message.name, "alias.name", "is required; name an alias")
    violations.require(message.collection, "alias.collection", "is required; name a collection")
    violations.raise_if_any()
    return Alias(message.name, message.collection)


def parse_create_collection(request: pb.CreateCollectionRequest) -> tuple[Collection, list[VectorDraft]]:
    """Return the collection to create, without its named vectors, and these, which have no spaces yet.

    Raises:
        InvalidRequest: with all violations.
    """
    message, violations = request.collection, Violations()
    walk = _Walk(violations, message, creating=True)
    violations.require(COLLECTION_NAME.fullmatch(message.name), "collection.name", COLLECTION_RULE)
    properties = walk.properties()
    violations.require(message.vectors, "collection.vectors", "is empty; give at least one named vector")
    vectors = walk.vectors()
    walk.check_native()
    tenancy = message.multi_tenancy
    collection = Collection(
        message.name,
        properties,
        (),
        message.description,
        MultiTenancy(tenancy.auto_tenant_creation, tenancy.auto_tenant_activation) if tenancy.enabled else None,
        reranker=walk.reranker(),
        replication=walk.settings("replication"),
        sharding=walk.settings("sharding"),
        inverted_index=walk.settings("inverted_index"),
        object_ttl=walk.settings("object_ttl"),
        default_vector=message.default_vector,
    )
    for name in ("auto_tenant_creation", "auto_tenant_activation"):
        fits = tenancy.enabled or not getattr(tenancy, name)
        where = f"collection.multi_tenancy.{name}"
        violations.require(fits, where, "is only for collections with tenants; set enabled too")
    fits = not (message.HasField("sharding") and tenancy.enabled)
    violations.require(fits, "collection.sharding", "is not for collections with tenants; leave it out")
    violations.raise_if_any()
    return collection, vectors


def parse_update_collection(request: pb.UpdateCollectionRequest) -> CollectionChange:
    """Return the changes; a request without a mask changes all fields that are set.

    Raises:
        InvalidRequest: with all violations.
    """
    message, mask, violations = request.collection, request.update_mask.paths, Violations()
    walk = _Walk(violations, message, creating=False)
    violations.require(message.name, "collection.name", "is required; name a collection")
    for index, path in enumerate(mask):
        known = path == "*" or path in UPDATABLE
        rule = f"{path!r} cannot be changed; give {', '.join(UPDATABLE)} or *"
        violations.require(known, f"update_mask.paths[{index}]", rule)
    changes: dict[str, Any] = {
        "properties": walk.properties(),
        "vectors": tuple(walk.vectors()),
        "multi_tenancy": parameters_from_pb(message.multi_tenancy),
        "reranker": walk.reranker(),
        "replication": walk.settings("replication"),
        "sharding": walk.settings("sharding"),
        "inverted_index": walk.settings("inverted_index"),
        "object_ttl": walk.settings("object_ttl"),
    }
    for name in ("description", "default_vector"):
        text = getattr(message, name)
        changes[name] = text if text or mask else None
    removed = tuple(request.removed_vectors)
    for index, each in enumerate(removed):
        rule = f"{each!r} occurs twice; give each name once"
        violations.require(each not in removed[:index], f"removed_vectors[{index}]", rule)
    violations.raise_if_any()
    wanted = UPDATABLE if not mask or "*" in mask else mask
    return CollectionChange(
        **{name: change for name, change in changes.items() if name in wanted}, removed_vectors=removed
    )


def parse_bind_vector(request: pb.BindVectorRequest) -> BindingWish:
    """Return how a vector is to be bound.

    Raises:
        InvalidRequest: with all violations.
    """
    message, violations = request.vector, Violations()
    violations.require(request.collection, "collection", "is required; name a collection")
    violations.require(message.embedder, "vector.embedder", "is required; name the embedder that made the vectors")
    draft = _Walk(violations, pb.Collection(), creating=False).binding(message)
    violations.raise_if_any()
    return BindingWish(draft, trusted=request.without_proof, replace=request.replace)


@dataclass(frozen=True, slots=True)
class _Walk:
    """One walk through a collection. What it returns for a part with a violation is of no use.

    Attributes:
        creating: whether the collection is to be created. If not, its parts may be left out.
    """

    violations: Violations
    message: pb.Collection
    creating: bool

    def settings(self, name: str) -> dict[str, Any]:
        """Return the parameters in a field of the collection."""
        parameters = parse_parameters(self.violations, getattr(self.message, name), f"collection.{name}")
        return {each: value for each, value in parameters.items() if each not in OUTPUT_ONLY}

    def reranker(self) -> Reranker | None:
        """Return the reranker, or None."""
        if not self.message.HasField("reranker"):
            return None
        module = self.message.reranker.module
        rule = "must be the name of a reranker module of Weaviate, e.g. reranker-nvidia"
        self.violations.require(RERANKER.fullmatch(module), "collection.reranker.module", rule)
        options = {}
        for name, value in self.message.reranker.options.fields.items():
            try:
                options[name] = json_format.MessageToDict(value)
            except ValueError:  # NaN and the infinities are in no JSON
                path = f'collection.reranker.options["{name}"]'
                self.violations.add(path, "holds a number that is not finite; give finite numbers")
        return Reranker(module, options)

    def properties(self) -> tuple[Property, ...]:
        """Return the properties."""
        return self._properties(self.message.properties, "collection.properties", 0)

    def _properties(self, messages: Sequence[property_pb.Property], path: str, depth: int) -> tuple[Property, ...]:
        """Return properties that are within so many objects."""
        found = tuple(self._property(each, f"{path}[{index}]", depth) for index, each in enumerate(messages))
        self.violations.require_unique((each.name for each in messages), path)
        return found

    def _property(self, message: property_pb.Property, path: str, depth: int) -> Property:
        require, data_type = self.violations.require, DATA_TYPES_FROM_PB.get(message.data_type)
        pattern, rule = (NESTED_NAME, NESTED_RULE) if depth else (PROPERTY_NAME, PROPERTY_RULE)
        require(pattern.fullmatch(message.name), f"{path}.name", rule)
        # In a change, a property may leave out its type.
        given = data_type or (message.data_type == property_pb.DATA_TYPE_UNSPECIFIED and not self.creating)
        require(given, f"{path}.data_type", "is required; give one of the DataType values, e.g. DATA_TYPE_TEXT")
        if depth:
            fits = data_type not in NOT_NESTED
            require(fits, f"{path}.data_type", "an object can hold neither blobs nor geo coordinates")
        indexing = parse_parameters(self.violations, message, path, INDEXING)
        if data_type is not None:
            self._check_indexing(message, data_type, path)
        nested = self._nested(message, data_type, f"{path}.nested_properties", depth)
        return Property(message.name, data_type, message.description, indexing, nested)

    def _check_indexing(self, message: property_pb.Property, data_type: DataType, path: str) -> None:
        require = self.violations.require
        if data_type not in TEXTS:
            require(not message.tokenization, f"{path}.tokenization", "is for texts only; leave it out")
            require(not message.index_searchable, f"{path}.index_searchable", "is for texts only; leave it out")
        ranges = data_type in RANGES or not message.index_range_filters
        require(ranges, f"{path}.index_range_filters", "is for int, number and date only; leave it out")

    def _nested(
        self, message: property_pb.Property, data_type: DataType | None, path: str, depth: int
    ) -> tuple[Property, ...]:
        nested, require = message.nested_properties, self.violations.require
        if data_type in OBJECTS:
            require(nested, path, "is empty; an object has at least one property")
        elif nested and (self.creating or message.data_type != property_pb.DATA_TYPE_UNSPECIFIED):
            self.violations.add(path, "is for objects and object arrays only; leave it out")
            return ()
        if nested and depth == MAX_DEPTH:
            self.violations.add(path, f"is more than {MAX_DEPTH} levels deep")
            return ()
        return self._properties(nested, path, depth + 1)

    def vectors(self) -> list[VectorDraft]:
        """Return the named vectors."""
        types = {each.name: each.data_type for each in self.message.properties}
        found = [
            self._vector(each, f"collection.vectors[{index}]", types) for index, each in enumerate(self.message.vectors)
        ]
        self.violations.require_unique((each.name for each in self.message.vectors), "collection.vectors")
        return found

    def binding(self, message: pb.VectorConfig) -> VectorDraft:
        """Return the parts of a vector that a binding has; an empty name means the only vector."""
        for name, kept in (("native", False), ("base_url", ""), ("space", ""), ("dimension", 0)):
            self.violations.require(getattr(message, name) == kept, f"vector.{name}", NOT_BOUND)
        self.violations.require(not message.HasField("index"), "vector.index", NOT_BOUND)
        named = pb.VectorConfig()
        named.CopyFrom(message)
        named.name = message.name or ONLY_VECTOR
        draft = self._vector(named, "vector", {})
        return replace(draft, vector=replace(draft.vector, name=message.name))

    def _vector(self, message: pb.VectorConfig, path: str, types: Types) -> VectorDraft:
        require, url = self.violations.require, message.base_url
        require(VECTOR_NAME.fullmatch(message.name), f"{path}.name", VECTOR_RULE)
        image_types = BLOB_TYPES if message.native else IMAGE_TYPES
        image_fields = self._fields(message.image_fields, f"{path}.image_fields", types, image_types)
        text_fields = self._fields(message.text_fields, f"{path}.text_fields", types, TEXT_TYPES)
        self._check_apart(message, path)
        fits = not url or (BASE_URL.fullmatch(url) and not url.rstrip("/").endswith("/v1"))
        require(fits, f"{path}.base_url", "must be an address such as http://vecgate:8070, without /v1")
        default = "hnsw" if self.creating else ""
        index, distance = parse_index(self.violations, message.index, f"{path}.index", default)
        fields = (*message.image_fields, *message.text_fields)
        known = message.combination in COMBINATIONS
        require(known, f"{path}.combination", f"{message.combination} is not a Combination of this version")
        joint = COMBINATIONS.get(message.combination)
        if joint:
            self._check_joint(message, path)
        vector = NamedVector(
            message.name,
            space=None,
            image_fields=image_fields,
            text_fields=text_fields,
            distance=distance,
            index=index,
            native=message.native,
            base_url=url,
            # For Weaviate's module, no weights and equal weights are different things.
            weighted=not joint and (not message.native or any(each.HasField("weight") for each in fields)),
            joint=bool(joint),
        )
        return VectorDraft(vector, message.embedder, message.model, joint)

    def _check_apart(self, message: pb.VectorConfig, path: str) -> None:
        """Note texts that are to be embedded as what they are, and as the URI of an image too."""
        texts = {each.name for each in message.text_fields}
        for index, each in enumerate(message.image_fields):
            rule = f"{each.name!r} is in text_fields, too; leave out one of them"
            self.violations.require(each.name not in texts, f"{path}.image_fields[{index}].name", rule)

    def _check_joint(self, message: pb.VectorConfig, path: str) -> None:
        """Note what does not go with one joint input."""
        require = self.violations.require
        require(not message.native, f"{path}.combination", "one joint input does not go with native; leave one out")
        for index in range(1, len(message.image_fields)):
            rule = "one joint input takes one image field; leave the others out"
            self.violations.add(f"{path}.image_fields[{index}]", rule)
        for name in ("image_fields", "text_fields"):
            for index, each in enumerate(getattr(message, name)):
                free = not each.HasField("weight")
                require(free, f"{path}.{name}[{index}].weight", "does not go with one joint input; leave it out")

    def _fields(
        self,
        messages: Sequence[pb.WeightedField],
        path: str,
        types: Types,
        allowed: Sequence["property_pb.DataType.ValueType"],
    ) -> tuple[WeightedField, ...]:
        """Return the fields of a vector; a new collection must have them with one of the allowed types."""
        words = " or ".join(map(property_pb.DataType.Name, allowed))
        for index, each in enumerate(messages):
            good = not each.HasField("weight") or (math.isfinite(each.weight) and each.weight > 0)
            rule = f"is {each.weight}; give a finite number over 0, or leave it out"
            self.violations.require(good, f"{path}[{index}].weight", rule)
            fits = not self.creating or types.get(each.name) in allowed
            rule = f"{each.name!r} is not a property of type {words} of this collection"
            self.violations.require(fits, f"{path}[{index}].name", rule)
        self.violations.require_unique((each.name for each in messages), path)
        return tuple(WeightedField(each.name, each.weight if each.HasField("weight") else 1.0) for each in messages)

    def check_native(self) -> None:
        """Note named vectors that lack what Weaviate's own module needs."""
        require = self.violations.require
        for index, each in enumerate(self.message.vectors):
            path = f"collection.vectors[{index}]"
            if not each.native:
                require(not each.base_url, f"{path}.base_url", "is for native vectors only; set native too")
                continue
            rule = "is required for a native vector: the address at which Weaviate reaches Vecgate's HTTP endpoint"
            require(each.base_url, f"{path}.base_url", rule)
            fields = len(each.image_fields) + len(each.text_fields)
            require(fields, f"{path}.native", "Weaviate's module needs image_fields or text_fields")
