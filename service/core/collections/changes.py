"""Changes of a collection: applies what Weaviate can change, and names every field that it cannot."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from service.domain import (
    BLOBS,
    RANGES,
    TEXTS,
    Collection,
    DataType,
    MultiTenancy,
    NamedVector,
    Parameters,
    Property,
    Quantizer,
    Reranker,
    VectorIndex,
    some_of,
    unknown_vector,
)
from service.errors import Violation, Violations

MUTABLE_PARAMETERS = {
    "hnsw": frozenset(
        (
            "ef",
            "dynamicEfMin",
            "dynamicEfMax",
            "dynamicEfFactor",
            "vectorCacheMaxObjects",
            "flatSearchCutoff",
            "filterStrategy",
        )
    ),
    "flat": frozenset(("vectorCacheMaxObjects",)),
    "dynamic": frozenset(("threshold",)),
    "hfresh": frozenset(("maxPostingSizeKB", "searchProbe")),
}
"""The parameters of each index that Weaviate changes later; measured on 1.39."""

TIMES = ("_creationTimeUnix", "_lastUpdateTimeUnix")
"""What an object's time-to-live may count from instead of a property."""

MUTABLE_OF_QUANTIZERS = frozenset(("rescoreLimit", "cache"))
MUTABLE_OF_INVERTED_INDEX = frozenset(("bm25", "stopwords", "cleanupIntervalSeconds"))


@dataclass(frozen=True, slots=True)
class VectorDraft:
    """A named vector that a caller requests.

    Attributes:
        vector: the named vector, without a space.
        embedder: the embedder whose space to bind; empty means the default one, or no change for an existing vector.
        model: the model that the embedder must have; empty for any model.
        joint: whether the fields are to be one input; None for the default, or no change for an existing vector.
    """

    vector: NamedVector
    embedder: str = ""
    model: str = ""
    joint: bool | None = None


@dataclass(frozen=True, slots=True)
class CollectionChange:
    """Requested changes of a collection; empty fields stay unchanged.

    Attributes:
        description: None for no change.
        properties: properties to add or, by their names, to change.
        vectors: named vectors to add, with their spaces, or, by their names, to change.
        multi_tenancy: enabled, autoTenantCreation, autoTenantActivation.
        default_vector: None for no change; empty lets the server choose.
        reranker: None for no change.
        object_ttl: enabled, deleteOn and defaultTtl.
        removed_vectors: the names of named vectors to remove.
    """

    description: str | None = None
    properties: tuple[Property, ...] = ()
    vectors: tuple[VectorDraft, ...] = ()
    multi_tenancy: Parameters = field(default_factory=dict)
    replication: Parameters = field(default_factory=dict)
    sharding: Parameters = field(default_factory=dict)
    inverted_index: Parameters = field(default_factory=dict)
    default_vector: str | None = None
    reranker: Reranker | None = None
    object_ttl: Parameters = field(default_factory=dict)
    removed_vectors: tuple[str, ...] = ()


def apply_change(collection: Collection, change: CollectionChange) -> Collection:
    """Return a collection with changes, and with the named vectors that are to be removed.

    Raises:
        InvalidRequest: with every field that cannot be changed.
    """
    violations = Violations()
    violations += _removal_faults(collection, change)
    properties = _changed_properties(collection, change, violations)
    vectors = _changed_vectors(replace(collection, properties=properties), change, violations)
    changed = replace(
        collection,
        description=collection.description if change.description is None else change.description,
        properties=properties,
        vectors=vectors,
        multi_tenancy=_changed_tenancy(collection.multi_tenancy, change.multi_tenancy, violations),
        replication={**collection.replication, **change.replication},
        inverted_index=_merged(collection.inverted_index, change.inverted_index),
        object_ttl={**collection.object_ttl, **change.object_ttl},
        default_vector=collection.default_vector if change.default_vector is None else change.default_vector,
        reranker=change.reranker or collection.reranker,
    )
    if change.default_vector is not None:
        # A default vector that another client wrote into the schema is not this change's fault.
        left = tuple(each for each in changed.vectors if each.name not in change.removed_vectors)
        violations += default_vector_faults(replace(changed, vectors=left))
    if change.object_ttl or change.properties:
        violations += ttl_faults(changed, change.object_ttl)
    violations += _immutable_in(collection.sharding, change.sharding, (), "collection.sharding")
    inverted = MUTABLE_OF_INVERTED_INDEX
    violations += _immutable_in(collection.inverted_index, change.inverted_index, inverted, "collection.inverted_index")
    violations.raise_if_any()
    return changed


def default_vector_faults(collection: Collection) -> Iterator[Violation]:
    """Yield the violation of a default vector that the collection does not have."""
    name = collection.default_vector
    if name and collection.find_vector(name) is None:
        names = some_of(each.name for each in collection.vectors)
        message = f"collection {collection.name!r} has no named vector {name!r}; it has: {names}"
        yield Violation("collection.default_vector", message, "UNKNOWN_VECTOR")


def ttl_faults(collection: Collection, given: Parameters) -> Iterator[Violation]:
    """Yield why the objects of a collection cannot expire as its time-to-live says, or as the given part of it."""
    ttl, path = collection.object_ttl, "collection.object_ttl.delete_on"
    if not ttl.get("enabled"):
        if given and "enabled" not in given:
            message = "is required, because objects do not expire yet; set it to true"
            yield Violation("collection.object_ttl.enabled", message)
        return
    name = str(ttl.get("deleteOn") or "")
    if name in TIMES:
        if not collection.inverted_index.get("indexTimestamps", True):
            message = (
                f"{name} needs inverted_index.index_timestamps, which this collection does not have; name a property"
            )
            yield Violation(path, message)
        if not ttl.get("defaultTtl", 0) > 0:
            yield Violation("collection.object_ttl.default_ttl_seconds", f"is required with {name}, and over 0")
        return
    found = collection.find_property(name)
    if found is None or found.data_type is not DataType.DATE:
        fault = f"{name!r} is not a property of type date" if name else "is required"
        yield Violation(path, f"{fault}; name one, or {' or '.join(TIMES)}")
    elif not found.filterable:
        yield Violation(
            path, f"{name!r} needs index_filterable or index_range_filters, so that Weaviate finds old objects"
        )


def _changed_properties(
    collection: Collection, change: CollectionChange, violations: Violations
) -> tuple[Property, ...]:
    properties = {each.name: each for each in collection.properties}
    for index, wanted in enumerate(change.properties):
        present = properties.get(wanted.name)
        if present is None:
            path = f"collection.properties[{index}].data_type"
            if wanted.data_type is None:
                violations.append(
                    Violation(path, f"is required to add the property {wanted.name!r}, which does not exist")
                )
            properties[wanted.name] = wanted
            continue
        path = f"collection.properties[{index}]"
        violations += _property_faults(present, wanted, path)
        violations += _indexing_faults(present, wanted, path)
        properties[wanted.name] = replace(
            present,
            description=wanted.description or present.description,
            indexing={**present.indexing, **wanted.indexing},
        )
    return tuple(properties.values())


def _property_faults(present: Property, wanted: Property, path: str) -> Iterator[Violation]:
    if wanted.data_type not in (None, present.data_type):
        yield _immutable(f"{path}.data_type")
    there = {each.name: each for each in present.nested}
    for index, each in enumerate(wanted.nested):
        inner = f"{path}.nested_properties[{index}]"
        if each.name not in there:
            yield Violation(f"{inner}.name", f"{each.name!r} does not exist, and cannot be added to an object later")
        else:
            yield from _property_faults(there[each.name], each, inner)
            yield from _immutable_in(there[each.name].indexing, each.indexing, (), inner)


def _indexing_faults(present: Property, wanted: Property, path: str) -> Iterator[Violation]:
    differing = _differing(present.indexing, wanted.indexing)
    text = present.data_type in TEXTS
    if "tokenization" in differing:
        indexed = present.indexing.get("indexSearchable") or present.indexing.get("indexFilterable")
        if not text or not indexed:
            yield Violation(f"{path}.tokenization", "is only for texts that are searchable or filterable")
        elif len(differing) > 1:
            message = "cannot be changed together with index_searchable or index_filterable; change one, then the other"
            yield Violation(f"{path}.tokenization", message)
    if wanted.indexing.get("indexSearchable") and not text:
        yield Violation(f"{path}.index_searchable", "is for texts only")
    if wanted.indexing.get("indexRangeFilters") and present.data_type not in RANGES:
        yield Violation(f"{path}.index_range_filters", "is for int, number and date only")


def _changed_vectors(
    collection: Collection, change: CollectionChange, violations: Violations
) -> tuple[NamedVector, ...]:
    vectors = {each.name: each for each in collection.vectors}
    for number, draft in enumerate(change.vectors):
        wanted, path = draft.vector, f"collection.vectors[{number}]"
        present = vectors.get(wanted.name)
        if present is None:
            if wanted.name in collection.removed_vectors:
                message = "was removed, and Weaviate is still deleting its data; try again later, or take another name"
                violations.append(Violation(f"{path}.name", f"{wanted.name!r} {message}"))
            violations += _nameless_faults(collection, path)
            violations += field_faults(collection, wanted, path)
            violations += _native_faults(wanted, path)
            violations += joint_faults(wanted, path)
            violations += module_faults(collection, wanted, path)
            vectors[wanted.name] = wanted
        else:
            violations += _vector_faults(present, draft, path)
            vectors[wanted.name] = replace(present, index=_changed_index(present.index, wanted.index, path, violations))
    return tuple(vectors[name] for name in sorted(vectors))


def _removal_faults(collection: Collection, change: CollectionChange) -> Iterator[Violation]:
    wanted = {each.vector.name for each in change.vectors}
    for index, name in enumerate(change.removed_vectors):
        path = f"removed_vectors[{index}]"
        found = collection.find_vector(name)
        if found is None:
            # A repeated call may name one that is being removed already.
            if name not in collection.removed_vectors:
                yield unknown_vector(collection, path)
        elif found.nameless:
            yield Violation(path, f"{name!r} is the vector without a name, which Weaviate cannot remove; leave it out")
        elif name in wanted:
            yield Violation(path, f"{name!r} is among collection.vectors, too; leave it out of one of the two")
    if collection.vectors and {each.name for each in collection.vectors} <= set(change.removed_vectors):
        message = (
            f"name all named vectors of {collection.name!r}, which needs one; leave one out, or delete the collection"
        )
        yield Violation("removed_vectors", message)


def _nameless_faults(collection: Collection, path: str) -> Iterator[Violation]:
    if any(each.nameless for each in collection.vectors):
        message = (
            f"collection {collection.name!r} has a vector without a name, and other clients search it without naming "
            "one; a named vector would change their results; create another collection instead"
        )
        yield Violation(path, message)


def field_faults(collection: Collection, vector: NamedVector, path: str) -> Iterator[Violation]:
    """Yield the fields of a vector that the collection does not have, or has with another type."""
    # A text is the URI of an image, which Weaviate's own module would not fetch.
    pictures = BLOBS if vector.native else BLOBS | {DataType.TEXT}
    kinds = (("image_fields", vector.image_fields, pictures), ("text_fields", vector.text_fields, TEXTS))
    for kind, fields, types in kinds:
        for index, each in enumerate(fields):
            found = collection.find_property(each.name)
            if found is None or found.data_type not in types:
                words = " or ".join(sorted(type_.value for type_ in types))
                yield Violation(f"{path}.{kind}[{index}].name", f"{each.name!r} is not a property of type {words}")


def _native_faults(vector: NamedVector, path: str) -> Iterator[Violation]:
    if vector.native is not bool(vector.base_url):
        yield Violation(f"{path}.base_url", "and native require each other; set both or neither")
    if vector.native and not (vector.image_fields or vector.text_fields):
        yield Violation(f"{path}.native", "Weaviate's module needs image_fields or text_fields")


def joint_faults(vector: NamedVector, path: str) -> Iterator[Violation]:
    """Yield the violation of a vector of one joint input that has no texts."""
    if vector.joint and not vector.text_fields:
        message = "one joint input needs text_fields; name some, or leave it out to embed images alone"
        yield Violation(f"{path}.combination", message)


def module_faults(collection: Collection, vector: NamedVector, path: str) -> Iterator[Violation]:
    """Yield the fields of a native vector with which Weaviate's module does not work.

    These are text arrays in a vector with weights, and hashes of images in a vector with other fields: when those
    change, the module would embed the hash.
    """
    for index, each in enumerate(vector.image_fields if vector.native else ()):
        if each.name in collection.hashes and len(vector.image_fields) + len(vector.text_fields) > 1:
            message = (
                f"{each.name!r} is a blobHash, and a native vector that has one takes no other fields; give it a named "
                "vector of its own, or leave out native"
            )
            yield Violation(f"{path}.image_fields[{index}].name", message)
    for index, each in enumerate(vector.text_fields if vector.native and vector.weighted else ()):
        found = collection.find_property(each.name)
        if found is not None and found.data_type is DataType.TEXT_ARRAY:
            message = (
                f"{each.name!r} is a text array; with weights, Weaviate's module fails on objects that have more items "
                "than the vector has weights; leave out all weights, or this field"
            )
            yield Violation(f"{path}.text_fields[{index}].name", message)


def _vector_faults(present: NamedVector, draft: VectorDraft, path: str) -> Iterator[Violation]:
    wanted = draft.vector
    given = {
        "image_fields": wanted.image_fields and wanted.image_fields != present.image_fields,
        "text_fields": wanted.text_fields and wanted.text_fields != present.text_fields,
        "embedder": draft.embedder and wanted.space_id != present.space_id,
        "model": draft.model and (present.space is None or draft.model != present.space.model),
        "native": wanted.native and not present.native,
        "combination": draft.joint not in (None, present.joint),
        "base_url": wanted.base_url and wanted.base_url != present.base_url,
        "index.distance": wanted.distance is not None and wanted.distance is not present.distance,
    }
    for name, differs in given.items():
        if differs:
            yield _immutable(f"{path}.{name}", "add a named vector instead")


def _changed_index(present: VectorIndex, wanted: VectorIndex, path: str, violations: Violations) -> VectorIndex:
    if wanted.type and wanted.type != present.type:
        violations.append(_immutable(f"{path}.index.{wanted.type}", "add a named vector instead"))
        return present
    violations += _parameter_faults(present.type, present.parameters, wanted.parameters, f"{path}.index.{present.type}")
    kind = "hnsw" if present.type == "dynamic" else present.type
    flat_path = f"{path}.index.dynamic.flat_quantizer"
    return VectorIndex(
        present.type,
        _merged(present.parameters, wanted.parameters),
        _changed_quantizer(kind, present.quantizer, wanted.quantizer, f"{path}.index.quantizer", violations),
        _changed_quantizer("flat", present.flat_quantizer, wanted.flat_quantizer, flat_path, violations),
    )


def _parameter_faults(type_: str, present: Parameters, wanted: Parameters, path: str) -> Iterator[Violation]:
    for name in _differing(present, wanted):
        if isinstance(wanted[name], Mapping) and name in MUTABLE_PARAMETERS:
            yield from _parameter_faults(name, present.get(name, {}), wanted[name], f"{path}.{name}")
        elif name not in MUTABLE_PARAMETERS.get(type_, ()):
            yield _immutable(f"{path}.{_snake(name)}")


def _changed_quantizer(
    index: str, present: Quantizer | None, wanted: Quantizer | None, path: str, violations: Violations
) -> Quantizer | None:
    if wanted is None:
        return present
    if present is None or present.type == "none" != wanted.type:
        if index != "hnsw":
            violations.append(_immutable(f"{path}.{wanted.type}"))
        return wanted
    if present.type != wanted.type:
        violations.append(_immutable(f"{path}.{wanted.type}", f"the quantizer stays {present.type}"))
        return present
    path = f"{path}.{wanted.type}"
    violations += _immutable_in(present.parameters, wanted.parameters, MUTABLE_OF_QUANTIZERS, path)
    return replace(present, parameters=_merged(present.parameters, wanted.parameters))


def _changed_tenancy(present: MultiTenancy | None, wanted: Parameters, violations: Violations) -> MultiTenancy | None:
    path = "collection.multi_tenancy"
    if wanted.get("enabled", present is not None) != (present is not None):
        violations.append(_immutable(f"{path}.enabled"))
    if present is None:
        violations += [
            Violation(f"{path}.{_snake(name)}", "is only for collections with tenants")
            for name in ("autoTenantCreation", "autoTenantActivation")
            if wanted.get(name)
        ]
        return None
    return MultiTenancy(
        wanted.get("autoTenantCreation", present.auto_creation),
        wanted.get("autoTenantActivation", present.auto_activation),
    )


def _immutable_in(present: Parameters, wanted: Parameters, mutable: Container[str], path: str) -> Iterator[Violation]:
    for name in _differing(present, wanted):
        if name not in mutable:
            yield _immutable(f"{path}.{_snake(name)}")


def _differing(present: Parameters, wanted: Parameters) -> list[str]:
    return [name for name, value in wanted.items() if not _same(present.get(name), value)]


def _same(present: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(present, Mapping) and not _differing(present, wanted)
    return bool(present == wanted)


def _merged(present: Parameters, wanted: Parameters) -> Parameters:
    merged = dict(present)
    for name, value in wanted.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _snake(name: str) -> str:
    # maxPostingSizeKB is max_posting_size_kb.
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name).replace("_k_b", "_kb")


def _immutable(path: str, instead: str = "") -> Violation:
    return Violation(path, "cannot be changed" + (f"; {instead}" if instead else ""))
