"""Converts collections to and from Weaviate's schema."""

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

from service.domain import (
    BLOBS,
    OBJECTS,
    Collection,
    DataType,
    MultiTenancy,
    NamedVector,
    Parameters,
    Property,
    Reranker,
)
from service.store.weaviate.vector_schema import (
    NAMELESS,
    Schema,
    as_mapping,
    is_removed,
    latest_bindings,
    nameless_schema,
    patch_vector,
    property_name,
    vector_from_schema,
    vector_to_schema,
)
from service.weaviate_names import INDEXING

# Without these settings Weaviate refuses filters on null, length and time.
INVERTED_INDEX = {"indexNullState": True, "indexPropertyLength": True, "indexTimestamps": True}
# Weaviate omits values that are false.
SWITCHES = dict.fromkeys(INVERTED_INDEX, False)
REPLICATION = ("factor", "asyncEnabled", "deletionStrategy")
OBJECT_TTL = ("enabled", "deleteOn", "defaultTtl")
SHARDING = ("desiredCount", "virtualPerPhysical", "actualCount")
RERANKER = "reranker-"


def to_schema(collection: Collection) -> Schema:
    """Return the schema to create."""
    schema = {
        "class": collection.name,
        "description": _described(collection),
        "properties": [_property_to_schema(each) for each in collection.properties],
        "invertedIndexConfig": {**INVERTED_INDEX, **collection.inverted_index},
        "vectorConfig": {each.name: vector_to_schema(each) for each in collection.vectors},
        "multiTenancyConfig": _tenancy_to_schema(collection.multi_tenancy),
    }
    if collection.reranker is not None:
        schema["moduleConfig"] = {collection.reranker.module: dict(collection.reranker.options)}
    if collection.replication:
        schema["replicationConfig"] = _only(collection.replication, ("factor", "deletionStrategy"))
    if collection.object_ttl:
        schema["objectTtlConfig"] = dict(collection.object_ttl)
    if collection.sharding:
        schema["shardingConfig"] = _only(collection.sharding, ("desiredCount", "virtualPerPhysical"))
    return schema


def patch_schema(schema: Mapping[str, Any], collection: Collection) -> tuple[Schema, list[Schema]]:
    """Return the changed schema of a collection, made from the one in Weaviate, and the properties to add."""
    patched = deepcopy(dict(schema))
    patched["description"] = _described(collection)
    there = {str(each["name"]): each for each in patched.get("properties") or ()}
    new = [each for each in collection.properties if each.name not in there]
    for each in collection.properties:
        if each.name in there:
            there[each.name]["description"] = each.description
    vectors = patched.setdefault("vectorConfig", {})
    for vector in collection.vectors:
        if vector.nameless:
            patch_vector(patched, vector)
        elif vector.name in vectors:
            patch_vector(vectors[vector.name], vector)
        else:
            vectors[vector.name] = vector_to_schema(vector)
    if (reranker := collection.reranker) is not None:
        # Weaviate accepts at most one reranker.
        modules = as_mapping(schema.get("moduleConfig"))
        others = {name: value for name, value in modules.items() if not name.startswith(RERANKER)}
        patched["moduleConfig"] = {**others, reranker.module: dict(reranker.options)}
    if collection.multi_tenancy is not None:
        tenancy = as_mapping(schema.get("multiTenancyConfig"))
        patched["multiTenancyConfig"] = {**tenancy, **_tenancy_to_schema(collection.multi_tenancy)}
    patched["replicationConfig"] = {**as_mapping(schema.get("replicationConfig")), **collection.replication}
    if collection.object_ttl:
        patched["objectTtlConfig"] = {**as_mapping(schema.get("objectTtlConfig")), **collection.object_ttl}
    patched["invertedIndexConfig"] = {**as_mapping(schema.get("invertedIndexConfig")), **collection.inverted_index}
    return patched, [_property_to_schema(each) for each in new]


def from_schema(schema: Mapping[str, Any]) -> Collection:
    """Return a collection from Weaviate's schema, even if another program created it.

    What this version does not handle stays visible without its meaning: a property's type, a vector's distance is None
    then.
    """
    tenancy = _tenancy_from_schema(as_mapping(schema.get("multiTenancyConfig")))
    inverted = as_mapping(schema.get("invertedIndexConfig"))
    description, default_vector = without_default_vector(str(schema.get("description") or ""))
    named = as_mapping(schema.get("vectorConfig"))
    return Collection(
        name=str(schema["class"]),
        properties=tuple(_property_from_schema(as_mapping(each)) for each in schema.get("properties") or ()),
        vectors=tuple(sorted(_vectors_from_schema(schema), key=lambda each: each.name)),
        description=description,
        default_vector=default_vector,
        reranker=_reranker_from_schema(as_mapping(schema.get("moduleConfig"))),
        multi_tenancy=tenancy,
        replication=_only(as_mapping(schema.get("replicationConfig")), REPLICATION),
        # With tenants, each tenant is a shard, and Weaviate returns zeros only.
        sharding={} if tenancy else _only(as_mapping(schema.get("shardingConfig")), SHARDING),
        inverted_index={**SWITCHES, **inverted} if inverted else {},
        object_ttl=_only(as_mapping(schema.get("objectTtlConfig")), OBJECT_TTL),
        removed_vectors=tuple(sorted(name for name, each in named.items() if is_removed(as_mapping(each)))),
    )


def _vectors_from_schema(schema: Mapping[str, Any]) -> Iterator[NamedVector]:
    bindings = latest_bindings(schema)
    for name, each in as_mapping(schema.get("vectorConfig")).items():
        if not is_removed(as_mapping(each)):
            yield vector_from_schema(name, as_mapping(each), bindings.get(name))
    if (nameless := nameless_schema(schema)) is not None:
        yield replace(vector_from_schema(NAMELESS, nameless, bindings.get(NAMELESS)), nameless=True)


def _described(collection: Collection) -> str:
    # A single named vector is always the default one.
    name = collection.default_vector if len(collection.vectors) > 1 else ""
    return with_default_vector(collection.description, name)


def _reranker_from_schema(modules: Mapping[str, Any]) -> Reranker | None:
    found = (Reranker(name, as_mapping(modules[name])) for name in sorted(modules) if name.startswith(RERANKER))
    return next(found, None)


def _tenancy_to_schema(tenancy: MultiTenancy | None) -> Schema:
    if tenancy is None:
        return {"enabled": False}
    return {
        "enabled": True,
        "autoTenantCreation": tenancy.auto_creation,
        "autoTenantActivation": tenancy.auto_activation,
    }


def _tenancy_from_schema(schema: Mapping[str, Any]) -> MultiTenancy | None:
    if not schema.get("enabled"):
        return None
    return MultiTenancy(bool(schema.get("autoTenantCreation")), bool(schema.get("autoTenantActivation")))


def _property_to_schema(property_: Property) -> Schema:
    assert property_.data_type is not None, "a collection to create has known types only"
    schema: Schema = {
        "name": property_name(property_.name),
        "dataType": [property_.data_type.value],
        "description": property_.description,
    }
    if property_.data_type in BLOBS:
        schema |= {"indexFilterable": False, "indexSearchable": False}
    schema |= property_.indexing
    if property_.data_type in OBJECTS:
        schema["nestedProperties"] = [_property_to_schema(each) for each in property_.nested]
    return schema


def _property_from_schema(schema: Mapping[str, Any]) -> Property:
    types: Sequence[str] = schema.get("dataType") or ()
    known = {each.value: each for each in DataType}
    return Property(
        str(schema["name"]),
        known.get(types[0]) if len(types) == 1 else None,
        str(schema.get("description") or ""),
        _only(schema, INDEXING),
        tuple(_nested_from_schema(as_mapping(each)) for each in schema.get("nestedProperties") or ()),
        # Only collections have names that begin with a capital letter.
        tuple(each for each in types if each[:1].isupper()),
    )


def _nested_from_schema(schema: Mapping[str, Any]) -> Property:
    """Return a part of an object."""
    found = _property_from_schema(schema)
    # Weaviate hashes no image in an object, so that a write would store what it takes for a hash.
    return replace(found, data_type=None) if found.data_type is DataType.BLOB_HASH else found


def _only(parameters: Parameters, names: Sequence[str]) -> Schema:
    return {name: parameters[name] for name in names if parameters.get(name) is not None}


_LINE = re.compile(r"\[Vecgate: default_vector=(\w+)\]")


def with_default_vector(description: str, name: str) -> str:
    """Return a description with the name of the default vector, if there is one."""
    # Such a line from a caller must not count.
    description, _ = without_default_vector(description)
    line = f"[Vecgate: default_vector={name}]" if name else ""
    return "\n".join(filter(None, (description, line)))


def without_default_vector(description: str) -> tuple[str, str]:
    """Return a description as callers see it, and the name of the default vector, empty for none."""
    name, end = "", len(description.rstrip())
    # Line by line from the end, because one pattern for all lines would scan a long description many times.
    while found := _LINE.fullmatch(description, start := description.rfind("\n", 0, end) + 1, end):
        name, end = name or found[1], max(start - 1, 0)
    return (description[:end], name) if name else (description, "")


FLAGS = {"indexFilterable": "filterable", "indexSearchable": "searchable", "indexRangeFilters": "rangeFilters"}


@dataclass(frozen=True, slots=True)
class IndexChange:
    """A change of one index of a property.

    Attributes:
        method: "put" to build the index or to cut its texts otherwise, "delete" to delete it.
        index: Weaviate's name for it.
        tokenization: how to cut texts; empty for an index of other values, or one to delete.
        builds: whether there is no such index yet.
    """

    method: Literal["put", "delete"]
    property_: str
    index: str
    tokenization: str = ""
    builds: bool = False

    @property
    def path(self) -> str:
        """Of the request, relative to that of the collection."""
        return f"/properties/{self.property_}/index/{self.index}"

    @property
    def body(self) -> Parameters:
        """Of the request."""
        return {"tokenization": self.tokenization} if self.tokenization else {}

    @property
    def path_in_1_38(self) -> str:
        """Of the request that Weaviate 1.38 has instead of a "put"."""
        return f"/indexes/{self.property_}"

    @property
    def body_in_1_38(self) -> Parameters:
        """Of that request."""
        name = {"rangeFilters": "rangeable"}.get(self.index, self.index)
        return {name: {**self.body, **({"enabled": True} if self.builds else {})}}


def index_changes(schema: Mapping[str, Any], collection: Collection) -> Iterator[IndexChange]:
    """Yield what changes the properties' indexes in Weaviate into those of a collection."""
    there = {str(each["name"]): each for each in schema.get("properties") or ()}
    for wanted in collection.properties:
        present = there.get(wanted.name)
        if present is None:
            continue
        tokenization = str(wanted.indexing.get("tokenization") or "")
        for flag, index in FLAGS.items():
            on = wanted.indexing.get(flag)
            if on is None or on == bool(present.get(flag)):
                continue
            if on:
                yield IndexChange("put", wanted.name, index, tokenization if index == "searchable" else "", builds=True)
            else:
                yield IndexChange("delete", wanted.name, index)
        if tokenization != str(present.get("tokenization") or ""):
            index = "searchable" if present.get("indexSearchable") else "filterable"
            yield IndexChange("put", wanted.name, index, tokenization)
