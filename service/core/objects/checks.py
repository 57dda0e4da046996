"""Whether objects fit their collection: names, types, ids and vectors, before anything is embedded or stored."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from embedders.contract import Vector
from service.domain import (
    BLOBS,
    MAX_SAFE_INT,
    Collection,
    DataType,
    ObjectValue,
    Property,
    PropertyValue,
    ReturnFields,
    ReturnNames,
    StoredObject,
    hash_image,
    some_of,
    unknown_property,
    unknown_vector,
)
from service.errors import InvalidRequest, ServiceError, Violation, Violations, noting

NAMESPACE = UUID("6f0bd1d1-3d3f-5c55-9a44-6c0cf5a3f1de")
"""The namespace of derived ids. If it changed, a repeated import would store all objects without ids twice."""

CHECK_IN_THREAD_BYTES = 256 * 1024
"""Larger objects are checked in a thread, because hashing megabytes takes long."""

TINY, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""The smallest normal float32, and the largest. Weaviate computes the length of a vector in float32."""
ITEMS = {each: DataType(each.value.removesuffix("[]")) for each in DataType if each.value.endswith("[]")}
"""The types of the items of lists."""
EXPECTED: Mapping[DataType, type] = {DataType.BOOLEAN: bool, DataType.INT: float, DataType.NUMBER: float}
"""The types that values have in JSON; those of all others are strings."""
_to_json = json.JSONEncoder(sort_keys=True).encode
GEO_BOUNDS = {"latitude": 90, "longitude": 180}
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class DraftObject:
    """An object as a caller sent it, not checked against its collection.

    Attributes:
        path: where it is in the request; no other object of the request has the same.
        id: a UUID in text form, or empty.
        properties: values as JSON has them: None, bool, float, str, list or dict.
        images: encoded images by blob property.
        vectors: little-endian float32 bytes by named vector.
        values: how many values the properties hold, with those in lists and objects.
        faults: why properties, images or vectors are left out.
        references: URIs by blob property of images that are to be fetched.
        fetched: how many bytes of the images were fetched.
        error: why images were not fetched that might be another time.
    """

    path: str
    id: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)
    vectors: Mapping[str, bytes] = field(default_factory=dict)
    values: int = 0
    faults: Sequence[Violation] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    fetched: int = 0
    error: ServiceError | None = None

    def size(self) -> int:
        """Return approximately how many bytes the object has in a write."""
        texts = sum(len(str(value)) for value in self.properties.values())
        return texts + sum(map(len, self.images.values())) * 4 // 3 + sum(map(len, self.vectors.values()))


def check_object(collection: Collection, draft: DraftObject, tenant: str = "") -> StoredObject:
    """Return a draft as an object that fits its collection, with an id.

    Args:
        collection: what it must fit.
        draft: the object.
        tenant: whose it is; part of a derived id.

    Raises:
        InvalidRequest: it does not fit; all violations are listed.
        ServiceError: its images could not be fetched.
    """
    if draft.error is not None:
        raise draft.error
    path, violations = draft.path, Violations(draft.faults)
    properties = _check_properties(collection, draft, violations)
    for name, content in draft.images.items():
        blob = collection.find_property(name)
        where = f'{path}.images["{name}"]'
        if not content:
            violations.append(Violation(f"{where}.content", "is empty; send the bytes of an image", "IMAGE_EMPTY"))
        if blob is None:
            violations.append(_unknown_property(collection, where, blobs=True))
        elif blob.data_type not in BLOBS:
            message = f"the property has type {_type_name(blob.data_type)}, not blob; send it in properties"
            violations.append(Violation(where, message, "INVALID_PROPERTY"))
    vectors = _check_vectors(collection, draft, violations)
    if draft.id:
        with noting(violations):
            id_ = parse_id(draft.id, f"{path}.id")
    violations.raise_if_any()
    if not draft.id:
        id_ = content_id(collection.name, draft, tenant)
    hashes = {name: hash_image(content) for name, content in draft.images.items() if name in collection.hashes}
    return StoredObject(id_, properties, dict(draft.images), vectors, hashes)


def parse_id(text: str, path: str) -> UUID:
    """Return an id as a UUID.

    Raises:
        InvalidRequest: it is not a UUID.
    """
    try:
        return UUID(text)
    except ValueError:
        message = "must be a UUID such as 3fa85f64-5717-4562-b3fc-2c963f66afa6"
        raise InvalidRequest([Violation(path, message, "INVALID_ID")]) from None


def content_id(collection: str, draft: DraftObject, tenant: str = "") -> UUID:
    """Return the version 5 UUID of an object's content, which is always the same for the same content."""
    content = _to_json(
        [
            *([tenant] if tenant else ()),
            collection,
            {name: value for name, value in draft.properties.items() if value is not None},
            {name: hashlib.sha256(image).hexdigest() for name, image in draft.images.items()},
            {name: hashlib.sha256(vector).hexdigest() for name, vector in draft.vectors.items()},
        ]
    )
    return uuid5(NAMESPACE, content)


def parse_vector(data: bytes, dimension: int | None, path: str) -> Vector:
    """Return little-endian float32 bytes as a vector, float32 of shape (dimension,).

    Args:
        data: the bytes.
        dimension: how many values the named vector has; None if unknown.
        path: where it is in the request.

    Raises:
        InvalidRequest: wrong length, NaN, infinity, only zeros, or values whose squares float32 cannot hold.
    """
    if not data or len(data) % 4:
        fault = f"has {len(data)} bytes, but needs 4 for each float32 value; send 4 x dimension bytes"
    elif dimension is not None and len(data) != 4 * dimension:
        fault = f"has {len(data) // 4} values, but the named vector has {dimension}; send a vector of its space"
    else:
        vector: Vector = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
        if not (fault := _find_fault(vector)):
            return vector
    raise InvalidRequest([Violation(path, fault, "INVALID_VECTOR")])


def _find_fault(vector: Vector) -> str:
    """Return what is wrong with the values of a vector; nothing if its length in float32 is neither 0 nor infinite."""
    with np.errstate(invalid="ignore"):  # one kind of NaN would make numpy write a warning to the log
        wide = vector.astype(np.float64)
    # Doubles hold the squares of all finite float32: the sum says at once whether there is anything to look for.
    squares = float(wide @ wide)
    if 2 * vector.size * TINY <= squares <= LARGEST:
        return ""  # the largest square is at least the mean, and so no less than TINY
    if not math.isfinite(squares):
        return "contains NaN or infinity; all values must be finite"
    if not squares:
        return "contains only zeros, so it has no direction; leave it out"
    if squares > LARGEST or np.square(wide).max() < TINY:
        return "has values so large or so small that float32 cannot hold their squares; scale it"
    return ""


def check_return_fields(collection: Collection, returned: ReturnNames, violations: Violations) -> ReturnFields:
    """Return which fields to return: all but blobs if no property is named, and a part of an object for `home.city`.

    The hash of a blob is returned if it is named.

    A field that is named twice is returned once. Unknown properties, blobs and named vectors are noted.
    """
    if not (returned.properties or returned.images or returned.vectors):
        return collection.once(_all_fields)
    return _find_fields(collection, returned, violations)


def _all_fields(collection: Collection) -> ReturnFields:
    return _find_fields(collection, ReturnNames(), Violations())


def _find_fields(collection: Collection, returned: ReturnNames, violations: Violations) -> ReturnFields:
    parts = collection.once(_parts)
    properties, images, vectors = map(_firsts, (returned.properties, returned.images, returned.vectors))
    paths = [tuple(name.split(".")) for name in properties]
    paths = paths or [(name,) for name in parts[()] if name not in collection.hashes]
    for index, names in zip(properties.values(), paths, strict=False):
        _check_path(collection, parts, names, f"output.properties[{index}]", violations)
    for name, index in images.items():
        found = collection.find_property(name)
        if name in collection.hashes:
            message = "Weaviate keeps only the hash of this image; name it in output.properties to get the hash"
            violations.append(Violation(f"output.images[{index}]", message, "INVALID_PROPERTY"))
        elif found is None or found.data_type is not DataType.BLOB:
            violations.append(_unknown_property(collection, f"output.images[{index}]", blobs=True))
    for name, index in vectors.items():
        if (vector := collection.find_vector(name)) is None:
            violations.append(unknown_vector(collection, f"output.vectors[{index}]"))
        elif vector.multi:
            message = f"{name!r} has several vectors for an object, which this version does not return; leave it out"
            violations.append(Violation(f"output.vectors[{index}]", message))
    picked = _pick(parts[()].values(), paths)
    nested = {each.name: each.nested for each in picked if each.nested}
    return ReturnFields([each.name for each in picked], list(images), list(vectors), nested)


def _parts(collection: Collection) -> Mapping[tuple[str, ...], Mapping[str, Property]]:
    """Return the properties of a collection at `()`, and the parts of its objects at the names that lead to them."""
    found: dict[tuple[str, ...], Mapping[str, Property]] = {}
    waiting: list[tuple[tuple[str, ...], Iterable[Property]]] = [((), collection.properties)]
    while waiting:
        path, properties = waiting.pop()
        found[path] = _without_blobs(properties)
        waiting += [((*path, name), each.nested) for name, each in found[path].items() if each.nested]
    return found


def _firsts(names: Sequence[str]) -> dict[str, int]:
    """Return each name once, with its first index. Weaviate would send a field as often as it is named."""
    firsts: dict[str, int] = {}
    for index, name in enumerate(names):
        firsts.setdefault(name, index)
    return firsts


def _without_blobs(properties: Iterable[Property]) -> dict[str, Property]:
    return {each.name: each for each in properties if each.data_type not in (None, DataType.BLOB)}


def _check_path(
    collection: Collection,
    parts: Mapping[tuple[str, ...], Mapping[str, Property]],
    path: tuple[str, ...],
    where: str,
    violations: Violations,
) -> None:
    for depth, name in enumerate(path):
        there = parts.get(path[:depth], {})
        if name in there:
            continue
        if depth:
            message = f"property {'.'.join(path[:depth])!r} has no such part; it has: {some_of(there)}"
            violations.append(Violation(where, message, "UNKNOWN_PROPERTY"))
        else:
            violations.append(_unknown_property(collection, where, blobs=False))
        return


def _pick(properties: Iterable[Property], paths: Iterable[Sequence[str]]) -> tuple[Property, ...]:
    """Return the properties that paths name: objects with only the named parts, or whole if named themselves."""
    rests: dict[str, list[Sequence[str]]] = {}
    for path in paths:
        rests.setdefault(path[0], []).append(path[1:])
    return tuple(
        replace(each, nested=_pick(each.nested, rests[each.name])) if all(rests[each.name]) else each
        for each in properties
        if each.name in rests
    )


def _check_properties(collection: Collection, draft: DraftObject, violations: Violations) -> dict[str, PropertyValue]:
    checked: dict[str, PropertyValue] = {}
    for name, value in draft.properties.items():
        where = f'{draft.path}.properties["{name}"]'
        declared = collection.find_property(name)
        if declared is None:
            violations.append(_unknown_property(collection, where, blobs=False))
        elif declared.data_type in BLOBS:
            message = "the property is a blob; send its bytes in images"
            violations.append(Violation(where, message, "INVALID_PROPERTY"))
        elif declared.data_type is None:
            message = "this version does not handle the property's type; leave it out"
            violations.append(Violation(where, message, "INVALID_PROPERTY"))
        elif value is not None:
            checked[name] = _check_value(declared, value, where, violations)
    return checked


def _check_vectors(collection: Collection, draft: DraftObject, violations: Violations) -> dict[str, Vector]:
    checked: dict[str, Vector] = {}
    for name, data in draft.vectors.items():
        where = f'{draft.path}.vectors["{name}"]'
        target = collection.find_vector(name)
        if target is None:
            violations.append(unknown_vector(collection, where))
            continue
        try:
            checked[name] = parse_vector(data, (target.space.dimension or None) if target.space else None, where)
        except InvalidRequest as error:
            violations.extend(error.violations)
    return checked


def _check_value(declared: Property, value: Any, path: str, violations: Violations) -> PropertyValue:
    """Return a value in the form of its type, and note violations, which do not repeat the value."""
    data_type = declared.data_type
    assert data_type is not None, "other types are refused before"
    if data_type is DataType.TEXT and isinstance(value, str):
        return value
    if data_type in ITEMS:
        return _check_items(declared, ITEMS[data_type], value, path, violations)
    if data_type is DataType.GEO_COORDINATES:
        return _check_place(value, path, violations)
    if data_type is DataType.OBJECT:
        return _check_nested(declared, value, path, violations)
    expected = EXPECTED.get(data_type, str)
    try:
        if isinstance(value, expected):
            return _check_scalar(data_type, value)
        message = f"is {_json_name(value)}, but the property takes {_json_name(expected())} ({data_type.value})"
    except ValueError as error:
        message = str(error)
    violations.append(Violation(path, message, "INVALID_PROPERTY"))
    return None


def _check_items(
    declared: Property, item_type: DataType, value: Any, path: str, violations: Violations
) -> PropertyValue:
    if not isinstance(value, list):
        message = f"is {_json_name(value)}, but the property takes a list ({_type_name(declared.data_type)})"
        violations.append(Violation(path, message, "INVALID_PROPERTY"))
        return None
    item = replace(declared, data_type=item_type)
    items: Any = [_check_value(item, each, f"{path}[{index}]", violations) for index, each in enumerate(value)]
    return items  # type: ignore[no-any-return]  # a list of one type, as the property says


def _check_nested(declared: Property, value: Any, path: str, violations: Violations) -> PropertyValue:
    if not isinstance(value, dict):
        message = f"is {_json_name(value)}, but the property takes an object"
        violations.append(Violation(path, message, "INVALID_PROPERTY"))
        return None
    parts = {each.name: each for each in declared.nested}
    checked = ObjectValue()
    for name, part in value.items():
        where, inner = f'{path}["{name}"]', parts.get(name)
        if inner is None:
            message = f"the object has no such property; it has: {some_of(parts)}"
            violations.append(Violation(where, message, "INVALID_PROPERTY"))
        elif inner.data_type is None:
            message = "this version does not handle the property's type; leave it out"
            violations.append(Violation(where, message, "INVALID_PROPERTY"))
        elif part is not None:
            checked[name] = _check_value(inner, part, where, violations)
    if unhandled := [each.name for each in declared.nested if not each.handled]:
        message = f"is stored as a whole, but this version does not handle its part {unhandled[0]!r}; leave it out"
        violations.append(Violation(path, message, "INVALID_PROPERTY"))
    return checked


def _check_place(value: Any, path: str, violations: Violations) -> PropertyValue:
    if not isinstance(value, dict):
        message = (
            f'is {_json_name(value)}, but the property takes an object such as {{"latitude": 52.5, "longitude": 13.4}}'
        )
        violations.append(Violation(path, message, "INVALID_PROPERTY"))
        return None
    for name in sorted(value.keys() - GEO_BOUNDS.keys()):
        message = "is not a part of a place; give latitude and longitude"
        violations.append(Violation(f'{path}["{name}"]', message, "INVALID_PROPERTY"))
    for name, bound in GEO_BOUNDS.items():
        degrees = value.get(name)
        # NaN is not within the bound either.
        if not isinstance(degrees, float) or not abs(degrees) <= bound:
            message = f"must be a number of degrees from -{bound} to {bound}"
            violations.append(Violation(f"{path}.{name}", message, "INVALID_PROPERTY"))
    return dict(value)


def _check_scalar(data_type: DataType, value: Any) -> PropertyValue:
    """Return a value in the form of its type.

    Raises:
        ValueError: the value does not fit; the message does not repeat it.
    """
    match data_type:
        case DataType.INT:
            if not value.is_integer() or abs(value) > MAX_SAFE_INT:
                raise ValueError("must be a whole number from -2^53 to 2^53")
            return int(value)
        case DataType.NUMBER if not math.isfinite(value):
            raise ValueError("must be finite")
        case DataType.DATE if not is_date(value):
            raise ValueError('must be an RFC 3339 date with time and zone, such as "2026-01-31T08:00:00Z"')
        case DataType.UUID:
            try:
                return str(UUID(value))
            except ValueError:
                raise ValueError("must be a UUID") from None
    return value  # type: ignore[no-any-return]  # checked to be bool, float or str


def is_date(text: str) -> bool:
    """Return whether a text is an RFC 3339 date with time and zone."""
    if not RFC_3339.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _json_name(value: Any) -> str:
    names = {
        bool: "a boolean",
        float: "a number",
        int: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")


def _type_name(data_type: DataType | None) -> str:
    return data_type.value if data_type else "unknown"


def _unknown_property(collection: Collection, where: str, *, blobs: bool) -> Violation:
    if blobs:
        return unknown_property(collection, where, collection.blobs, "blob property")
    names = (each.name for each in collection.properties if each.data_type not in BLOBS)
    return unknown_property(collection, where, names)
