"""Every operator with every type on a real Weaviate, beside the same comparison in Python: right, or refused."""

from collections.abc import AsyncIterator, Sequence
from itertools import combinations
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from weaviate.classes.config import Configure, ReferenceProperty
from weaviate.classes.config import DataType as ClientType
from weaviate.classes.config import Property as ClientProperty
from weaviate.classes.data import GeoCoordinate, PhoneNumber

from service.core.searching.filter_checks import check_filter
from service.domain import (
    Collection,
    Condition,
    DataType,
    Filter,
    GeoRange,
    NamedVector,
    Not,
    Operator,
    Property,
    SearchOptions,
    SearchSpec,
    Space,
    StoredObject,
    Target,
)
from service.errors import InvalidRequest
from service.settings import WeaviateSettings
from service.store.weaviate import WeaviateStore
from tests.e2e.beside import direct_client
from tests.fakes.filtering import matches
from tests.service.store.filter_suite import where

VALUES: dict[DataType, list[Any]] = {
    DataType.TEXT: ["red car", "Red", "car-boat", "x_y", "café", "42", " spaced  out ", "日本", "boat"],
    DataType.INT: [0, 1, -1, 5, 2**53, -(2**53)],
    DataType.NUMBER: [0.0, -1.5, 5.25, 1e17, -1e17, 1e-300, 0.1],
    DataType.BOOLEAN: [True, False],
    DataType.DATE: [
        "2024-01-02T03:04:05Z",
        "2024-01-02T04:04:05+01:00",
        "1677-09-22T00:00:00Z",
        "2024-01-02T03:04:05.123456Z",
        "2262-04-11T00:00:00Z",
    ],
    DataType.UUID: [str(UUID(int=each)) for each in (0, 1, 7, 2**127, 2**128 - 1)],
}
NUMERIC = (DataType.INT, DataType.NUMBER, DataType.DATE)
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "_ranges": {"indexFilterable": False, "indexRangeFilters": True},
    "_both": {"indexFilterable": True, "indexRangeFilters": True},
    "_words": {"indexFilterable": False, "indexSearchable": True},
}
LISTS = (Operator.CONTAINS_ANY, Operator.CONTAINS_ALL, Operator.CONTAINS_NONE)
ORDERING = (Operator.GREATER, Operator.GREATER_OR_EQUAL, Operator.LESS, Operator.LESS_OR_EQUAL)
PATTERNS = ["re*", "*ar", "c?r", "*", "???"]


def _variants(data_type: DataType) -> list[tuple[Property, list[Any]]]:
    """Return properties of a type and of lists of it, indexed in every way that goes, with values to store."""
    values, list_type = VALUES[data_type], DataType(f"{data_type.value}[]")
    lists = [[], *([each] for each in values), values[:2], values]
    names = {"_ranges": NUMERIC, "_both": NUMERIC, "_words": (DataType.TEXT,)}
    found = []
    for suffix, indexing in VARIANTS.items():
        if not suffix or data_type in names[suffix]:
            found.append((Property(f"one{suffix}", data_type, "", indexing), values))
            if "indexRangeFilters" not in indexing:
                found.append((Property(f"many{suffix}", list_type, "", indexing), lists))
    return found


def _operands(operator: Operator, values: Sequence[Any]) -> list[Any]:
    if operator is Operator.IS_NULL:
        return [True, False]
    if operator in LISTS:
        return [*([each] for each in values), *map(list, combinations(values[:4], 2))]
    return PATTERNS if operator is Operator.LIKE else list(values)


@pytest.fixture
async def store(weaviate_settings: WeaviateSettings) -> AsyncIterator[WeaviateStore]:
    store = WeaviateStore(weaviate_settings)
    await store.start()
    yield store
    await store.close()


async def _found(store: WeaviateStore, name: str, filter_: Filter) -> set[int]:
    hits = await store.search(name, SearchSpec(limit=100, options=SearchOptions(filters=filter_)))
    return {hit.object.id.int for hit in hits}


@pytest.mark.parametrize("data_type", VALUES)
async def test_every_comparison_is_right_or_refused(store: WeaviateStore, data_type: DataType) -> None:
    name, variants = f"Truth{uuid4().hex}", _variants(data_type)
    vector = NamedVector("v", Space("s", 2, "m"))
    await store.create_collection(Collection(name, tuple(each for each, _ in variants), (vector,)))
    collection = await store.get_collection(name)
    objects = [
        StoredObject(
            UUID(int=number + 1),
            {each.name: values[number] for each, values in variants if number < len(values)},
            {},
            {"v": np.array([1, number], np.float32)},
        )
        for number in range(len(VALUES[data_type]) + 4)
    ]
    assert await store.put_objects(name, objects) == [None] * len(objects)
    wrong, refused = [], set()

    for property_, _ in variants:
        for operator in Operator:
            if operator is Operator.WITHIN_GEO_RANGE:
                continue
            for operand in _operands(operator, VALUES[data_type]):
                try:
                    checked = check_filter(collection, where(property_.name, operator, operand))
                except InvalidRequest:
                    refused.add(operator)
                    continue
                for filter_ in (checked, Not(checked)):
                    found = await _found(store, name, filter_)
                    if found != {each.id.int for each in objects if matches(each, filter_)}:
                        wrong.append((filter_, found))

    assert wrong == []
    text = {Operator.LIKE, *ORDERING}
    expected = {DataType.TEXT: set(ORDERING), DataType.BOOLEAN: text}
    assert refused == expected.get(data_type, {Operator.LIKE})
    await store.delete_collection(name)


async def test_texts_that_are_one_word_each_are_ordered(store: WeaviateStore) -> None:
    name, titles = f"Ordered{uuid4().hex}", ["Zebra", "apple pie", "a", "älter", "b c"]
    property_ = Property("title", DataType.TEXT, "", {"tokenization": "field"})
    await store.create_collection(Collection(name, (property_,), (NamedVector("v", Space("s", 2, "m")),)))
    objects = [StoredObject(UUID(int=number), {"title": title}) for number, title in enumerate(titles, 1)]
    await store.put_objects(name, objects)
    collection = await store.get_collection(name)

    for operator in ORDERING:
        for operand in titles:
            filter_ = check_filter(collection, where("title", operator, operand))
            expected = {each.id.int for each in objects if matches(each, filter_)}
            assert await _found(store, name, filter_) == expected, filter_
    await store.delete_collection(name)


async def test_what_has_no_null_state_is_refused_and_references_have_one(
    store: WeaviateStore, weaviate_settings: WeaviateSettings
) -> None:
    name = f"Null{uuid4().hex}"
    async with direct_client(weaviate_settings) as direct:
        own = Configure.Vectors.self_provided(name="v")
        other = await direct.collections.create(f"{name}Other", vector_config=own)
        made = await direct.collections.create(
            name,
            vector_config=own,
            inverted_index_config=Configure.inverted_index(index_null_state=True),
            properties=[
                ClientProperty(name="place", data_type=ClientType.GEO_COORDINATES),
                ClientProperty(name="phone", data_type=ClientType.PHONE_NUMBER),
                ClientProperty(name="hash", data_type=ClientType.BLOB_HASH),
            ],
            references=[ReferenceProperty(name="by", target_collection=f"{name}Other")],
        )
        place = GeoCoordinate(latitude=1, longitude=179.9)
        phone = PhoneNumber(number="+49 171 1234567")
        linked = await other.data.insert({}, vector={"v": [1, 0]})
        await made.data.insert(
            {"place": place, "phone": phone, "hash": "aGVsbG8="}, uuid=UUID(int=1), references={"by": linked}
        )
        await made.data.insert({}, uuid=UUID(int=2))
    collection = await store.get_collection(name)

    for property_ in ("place", "phone", "hash"):
        for operator in (Operator.IS_NULL, Operator.EQUAL, Operator.NOT_EQUAL, Operator.LIKE, Operator.CONTAINS_ANY):
            with pytest.raises(InvalidRequest):
                check_filter(collection, where(property_, operator, True))
    for null, number in ((True, 2), (False, 1)):
        assert await _found(store, name, where("by", Operator.IS_NULL, null)) == {number}
        assert await _found(store, name, Not(where("by", Operator.IS_NULL, null))) == {3 - number}
    # On both sides of the date line, and not at all.
    for longitude, number in ((-179.9, {1}), (170.0, set())):
        near = where("place", Operator.WITHIN_GEO_RANGE, GeoRange(1, longitude, 50_000))
        assert await _found(store, name, near) == number
        assert await _found(store, name, Not(near)) == {1, 2} - number
    await store.delete_collection(name)


async def test_words_that_weaviate_does_not_look_for_are_named(store: WeaviateStore) -> None:
    name = f"Stop{uuid4().hex}"
    vector = NamedVector("v", Space("s", 2, "m"))
    await store.create_collection(Collection(name, (Property("title", DataType.TEXT),), (vector,)))

    for operand in ("the", "", "--"):
        with pytest.raises(InvalidRequest) as caught:
            await _found(store, name, Condition(Target.PROPERTY, Operator.EQUAL, operand, "title"))
        assert [each.field for each in caught.value.violations] == ["filters"]
        assert "stopwords" in str(caught.value)
    await store.delete_collection(name)
