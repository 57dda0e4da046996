"""What every store does; a test class for a store derives from StoreSuite and brings the fixture `store`."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from service.domain import (
    Collection,
    Condition,
    DataType,
    Distance,
    NamedVector,
    ObjectValue,
    Operator,
    Property,
    PropertyValue,
    ReturnFields,
    SearchSpec,
    Space,
    StoredObject,
    Target,
    TargetVectors,
    Tenant,
    WeightedField,
)
from service.errors import CollectionAlreadyExists, CollectionNotFound, ObjectNotFound, StoreRejected
from service.store.base import Store
from tests.service.store.people import OBJECTS, PERSON, bare

NOTHING = ReturnFields()
ALL_TYPES: dict[DataType, PropertyValue] = {
    DataType.TEXT: "Grüße 🎈",
    DataType.TEXT_ARRAY: ["a", ""],
    DataType.INT: -7,
    DataType.INT_ARRAY: [1, 2**40],
    DataType.NUMBER: 0.1,
    DataType.NUMBER_ARRAY: [1.0, 2.5],
    DataType.BOOLEAN: False,
    DataType.BOOLEAN_ARRAY: [True, False],
    DataType.DATE: "2024-01-02T03:04:05.123456789Z",
    DataType.DATE_ARRAY: ["2024-01-02T03:04:05.5Z", "1999-12-31T23:59:59+02:00"],
    DataType.UUID: "0a1b2c3d-0000-4000-8000-00000000000a",
    DataType.UUID_ARRAY: ["0a1b2c3d-0000-4000-8000-00000000000b"],
    DataType.GEO_COORDINATES: {"latitude": 52.52, "longitude": -13.405},
    DataType.OBJECT: ObjectValue(
        name="Ann", ages=[1, 2], born="2024-01-02T03:04:05Z", home=ObjectValue(city="Ulm", latitude=1.5, longitude=2.5)
    ),
    DataType.OBJECT_ARRAY: [ObjectValue(name="Ann", ages=[3]), ObjectValue(name="Ben", home=ObjectValue(city="Bonn"))],
}


def make_collection(name: str, *, distance: Distance = Distance.COSINE) -> Collection:
    """Return a collection with a property of every type and the named vectors "main" and "other"."""
    properties = tuple(
        Property(property_of(each), each, f"of type {each.value}", nested=PERSON if each in OBJECTS else ())
        for each in DataType
    )
    vectors = (
        NamedVector(
            "main",
            Space("space-1", 3, "model-1"),
            (WeightedField("blob", 0.75),),
            (WeightedField("text", 0.25), WeightedField("text_array", 2.0)),
            distance,
        ),
        NamedVector("other", Space("space-2", 2, "model-2"), (), (WeightedField("text"),), Distance.L2_SQUARED),
    )
    return Collection(name, properties, vectors, "Pictures of things")


def make_vector(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a float32 vector."""
    return np.array(values, np.float32)


def at(name: str, *values: float) -> TargetVectors:
    """Return a named vector to search and the vector to search it with."""
    return TargetVectors({name: make_vector(*values)})


def make_object(
    number: int = 0,
    /,
    *,
    vectors: dict[str, Any] | None = None,
    images: dict[str, bytes] | None = None,
    **properties: Any,
) -> StoredObject:
    """Return an object whose id is its number, with a vector unless others are given."""
    vectors = {"main": make_vector(1, 2, 3)} if vectors is None else vectors
    return StoredObject(UUID(int=number or uuid4().int), properties, images or {}, vectors)


def property_of(data_type: DataType) -> str:
    """Return the name of the property of a type."""
    return data_type.value.replace("[]", "_array")


BAD: dict[str, StoredObject] = {
    "unknown property": make_object(nope=1),
    "text that is none": make_object(text=5),
    "int with a fraction": make_object(int=1.5),
    "int beyond doubles": make_object(int=2**53 + 1),
    "date without a time": make_object(date="2024-01-02"),
    "id that is none": make_object(uuid="nope"),
    "vector of another length": make_object(vectors={"main": make_vector(1, 2)}),
    "unknown vector": make_object(vectors={"nope": make_vector(1)}),
    "NaN in a vector": make_object(vectors={"main": make_vector(1, np.nan, 3)}),
    "infinity in a vector": make_object(vectors={"main": make_vector(1, np.inf, 3)}),
    "vector of zeros": make_object(vectors={"main": make_vector(0, 0, 0)}),
    "vector of nothing": make_object(vectors={"main": make_vector()}),
}


CALLS: dict[str, Callable[[Store, str], Awaitable[object]]] = {
    "get_collection": lambda store, name: store.get_collection(name),
    "delete_collection": lambda store, name: store.delete_collection(name),
    "create_tenants": lambda store, name: store.create_tenants(name, [Tenant("a")]),
    "list_tenants": lambda store, name: store.list_tenants(name),
    "list_tenants by name": lambda store, name: store.list_tenants(name, ["a"]),
    "update_tenants": lambda store, name: store.update_tenants(name, [Tenant("a")]),
    "delete_tenants": lambda store, name: store.delete_tenants(name, ["a"]),
    "count_objects": lambda store, name: store.count_objects(name),
    "put_objects": lambda store, name: store.put_objects(name, [make_object()]),
    "get_object": lambda store, name: store.get_object(name, uuid4(), NOTHING),
    "search": lambda store, name: store.search(name, SearchSpec(at("main", 1))),
    "search without a query": lambda store, name: store.search(name, SearchSpec()),
    "get_objects": lambda store, name: store.get_objects(name, [uuid4()], NOTHING),
    "delete_objects": lambda store, name: store.delete_objects(
        name, Condition(Target.ID, Operator.EQUAL, str(uuid4()))
    ),
}


class StoreSuite:
    """The contract of service/store/base.py, as tests."""

    @pytest.fixture
    async def pictures(self, store: Store) -> str:
        """Return the name of a new, empty collection."""
        name = f"Pictures{uuid4().hex}"
        await store.create_collection(make_collection(name))
        return name

    async def test_is_available(self, store: Store) -> None:
        assert store.available

    async def test_tells_its_version_and_its_nodes(self, store: Store) -> None:
        state = await store.state()

        assert state.version[:1].isdigit()
        assert [(each.status, each.version) for each in state.nodes] == [("HEALTHY", state.version)]
        assert all(each.name for each in state.nodes)

    async def test_closes_twice(self, store: Store) -> None:
        await store.close()
        await store.close()

    async def test_reads_a_collection_as_it_was_created(self, store: Store, pictures: str) -> None:
        assert bare(await store.get_collection(pictures)) == make_collection(pictures)

    @pytest.mark.parametrize("distance", Distance)
    async def test_keeps_the_distance(self, store: Store, distance: Distance) -> None:
        name = f"D{uuid4().hex}"
        await store.create_collection(make_collection(name, distance=distance))
        vector = (await store.get_collection(name)).find_vector("main")
        assert vector is not None
        assert vector.distance is distance

    async def test_gives_collections_capital_and_properties_small_first_letters(self, store: Store) -> None:
        name = f"small{uuid4().hex}"
        vector = NamedVector("V", Space("s", 1, "m"), (WeightedField("Photo"),), (WeightedField("Title"),))
        properties = (Property("Photo", DataType.BLOB), Property("Title", DataType.TEXT))
        await store.create_collection(Collection(name, properties, (vector,)))
        found = await store.get_collection(name)
        assert found.name == name.capitalize()
        assert [each.name for each in found.properties] == ["photo", "title"]
        assert found.vectors[0].image_fields == (WeightedField("photo"),)
        assert found.vectors[0].text_fields == (WeightedField("title"),)
        await store.delete_collection(name)

    async def test_refuses_to_create_a_collection_twice(self, store: Store, pictures: str) -> None:
        with pytest.raises(CollectionAlreadyExists, match=pictures):
            await store.create_collection(make_collection(pictures))

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("name", ["Missing", "../meta", "", "no name", "Ünicode", "A?b", "x" * 300])
    async def test_says_that_a_collection_is_not_there(self, store: Store, name: str, call: str) -> None:
        with pytest.raises(CollectionNotFound):
            await CALLS[call](store, name)

    async def test_sees_its_own_changes_at_once(self, store: Store, pictures: str) -> None:
        assert bare(await store.get_collection(pictures, fresh=False)) == make_collection(pictures)
        await store.delete_collection(pictures)
        with pytest.raises(CollectionNotFound):
            await store.get_collection(pictures, fresh=False)
        await store.create_collection(make_collection(pictures, distance=Distance.DOT))
        found = await store.get_collection(pictures, fresh=False)
        assert bare(found) == make_collection(pictures, distance=Distance.DOT)
        await store.update_collection(replace(found, description="new"))
        assert (await store.get_collection(pictures, fresh=False)).description == "new"

    async def test_lists_collections_by_name(self, store: Store, pictures: str) -> None:
        await store.create_collection(make_collection(f"Another{uuid4().hex}"))
        found = await store.list_collections()
        names = [each.name for each in found]
        assert names == sorted(names)
        assert make_collection(pictures) in map(bare, found)

    async def test_deletes_a_collection_with_its_objects(self, store: Store, pictures: str) -> None:
        await store.put_objects(pictures, [make_object(1)])
        await store.delete_collection(pictures)
        with pytest.raises(CollectionNotFound):
            await store.get_collection(pictures)
        await store.create_collection(make_collection(pictures))
        assert await store.count_objects(pictures) == 0

    @pytest.mark.parametrize("data_type", ALL_TYPES)
    async def test_returns_a_value_of_every_type_as_it_came(
        self, store: Store, pictures: str, data_type: DataType
    ) -> None:
        name = property_of(data_type)
        value: Any = ALL_TYPES[data_type]
        assert await store.put_objects(pictures, [make_object(1, **{name: value})]) == [None]
        fields = ReturnFields(properties=[name], nested={name: PERSON} if data_type in OBJECTS else {})
        found = await store.get_object(pictures, UUID(int=1), fields)
        assert found.properties == {name: value}
        assert type(found.properties[name]) is type(value)

    @pytest.mark.parametrize(
        ("name", "value", "stored"),
        [
            ("int", 3.0, 3),
            ("number", 3, 3.0),
            ("number_array", [1, 2.5], [1.0, 2.5]),
            ("number_array", [1, 2], [1.0, 2.0]),
            ("int_array", [1.0, 2], [1, 2]),
            ("int_array", [], []),
            ("text", "", ""),
            ("uuid", "0A1B2C3D-0000-4000-8000-00000000000A", "0a1b2c3d-0000-4000-8000-00000000000a"),
        ],
    )
    async def test_gives_a_number_or_an_id_the_form_of_its_type(
        self, store: Store, pictures: str, name: str, value: Any, stored: Any
    ) -> None:
        assert await store.put_objects(pictures, [make_object(1, **{name: value})]) == [None]
        object_ = await store.get_object(pictures, UUID(int=1), ReturnFields(properties=[name]))
        found: Any = object_.properties[name]
        assert found == stored
        assert type(found) is type(stored)
        if isinstance(found, list):
            assert [type(each) for each in found] == [type(each) for each in stored]

    async def test_leaves_out_what_an_object_lacks(self, store: Store, pictures: str) -> None:
        await store.put_objects(pictures, [make_object(1, text=None)])
        fields = ReturnFields(properties=["text", "int"], images=["blob"], vectors=["main", "other"])
        found = await store.get_object(pictures, UUID(int=1), fields)
        assert (found.properties, found.images, list(found.vectors)) == ({}, {}, ["main"])

    async def test_returns_only_what_is_asked_for(self, store: Store, pictures: str) -> None:
        object_ = make_object(1, text="x", int=1, images={"blob": b"picture"})
        await store.put_objects(pictures, [object_])
        bare = await store.get_object(pictures, object_.id, NOTHING)
        assert (bare.id, bare.properties, bare.images, bare.vectors) == (object_.id, {}, {}, {})
        hits = await store.search(pictures, SearchSpec(fields=ReturnFields(properties=["int"])))
        assert (hits[0].object.properties, hits[0].object.images, hits[0].object.vectors) == ({"int": 1}, {}, {})

    async def test_returns_images_and_vectors_bit_by_bit(self, store: Store, pictures: str) -> None:
        rng = np.random.default_rng(1)
        objects = [
            make_object(
                number,
                images={"blob": rng.bytes(1000 + number)},
                vectors={"main": rng.standard_normal(3, np.float32), "other": rng.standard_normal(2, np.float32)},
            )
            for number in range(1, 101)
        ]
        assert await store.put_objects(pictures, objects) == [None] * 100
        fields = ReturnFields(images=["blob"], vectors=["main", "other"])
        hits = await store.search(pictures, SearchSpec(limit=100, fields=fields))
        for hit, object_ in zip(hits, objects, strict=True):
            assert hit.object.id == object_.id
            assert hit.object.images == object_.images
            for name, vector in object_.vectors.items():
                assert hit.object.vectors[name].dtype == np.float32
                assert hit.object.vectors[name].tobytes() == vector.tobytes()

    async def test_stores_vectors_of_one_value(self, store: Store) -> None:
        name = f"One{uuid4().hex}"
        await store.create_collection(Collection(name, (), (NamedVector("v", Space("s", 1, "m")),)))
        assert await store.put_objects(name, [make_object(1, vectors={"v": make_vector(0.5)})]) == [None]
        found = await store.get_object(name, UUID(int=1), ReturnFields(vectors=["v"]))
        assert found.vectors["v"].tolist() == [0.5]

    async def test_replaces_an_object_of_the_same_id(self, store: Store, pictures: str) -> None:
        await store.put_objects(pictures, [make_object(1, text="old", int=1, images={"blob": b"old"})])
        new = make_object(1, text="new", vectors={"other": make_vector(1, 2)})
        assert await store.put_objects(pictures, [new]) == [None]
        fields = ReturnFields(properties=["text", "int"], images=["blob"], vectors=["main", "other"])
        found = await store.get_object(pictures, UUID(int=1), fields)
        assert (found.properties, found.images, list(found.vectors)) == ({"text": "new"}, {}, ["other"])
        assert await store.count_objects(pictures) == 1

    async def test_counts_objects(self, store: Store, pictures: str) -> None:
        assert await store.count_objects(pictures) == 0
        await store.put_objects(pictures, [make_object() for _ in range(3)])
        assert await store.count_objects(pictures) == 3

    async def test_takes_no_objects_at_all(self, store: Store, pictures: str) -> None:
        assert await store.put_objects(pictures, []) == []

    @pytest.mark.parametrize("fault", BAD)
    async def test_a_bad_object_fails_alone(self, store: Store, pictures: str, fault: str) -> None:
        # Weaviate learns a vector's length from the first one that it stores.
        await store.put_objects(pictures, [make_object(3)])
        good = [make_object(1), make_object(2)]
        first, bad, last = await store.put_objects(pictures, [good[0], BAD[fault], good[1]])
        assert (first, last) == (None, None)
        assert isinstance(bad, StoreRejected)
        assert await store.count_objects(pictures) == 3

    async def test_says_of_each_why_when_all_objects_are_bad(self, store: Store, pictures: str) -> None:
        await store.put_objects(pictures, [make_object(1)])
        bad = [BAD[fault] for fault in ("unknown property", "text that is none", "unknown property")]
        outcomes = await store.put_objects(pictures, bad)
        assert ["nope" in str(each) for each in outcomes] == [True, False, True]
        assert ["'text'" in str(each) for each in outcomes] == [False, True, False]
        assert all(isinstance(each, StoreRejected) for each in outcomes)
        same = await store.put_objects(pictures, [bad[0], bad[2]])
        assert ["nope" in str(each) for each in same] == [True, True]

    async def test_says_that_an_object_is_not_there(self, store: Store, pictures: str) -> None:
        with pytest.raises(ObjectNotFound, match=str(UUID(int=9))):
            await store.get_object(pictures, UUID(int=9), NOTHING)

    @pytest.mark.parametrize(
        ("distance", "measured"),
        [
            (Distance.COSINE, [0.0, 1 - 1 / 2**0.5, 1.0]),
            (Distance.DOT, [-2.0, -1.0, 0.0]),
            (Distance.L2_SQUARED, [0.0, 1.0, 5.0]),
        ],
    )
    async def test_finds_the_nearest_first(self, store: Store, distance: Distance, measured: list[float]) -> None:
        name = f"S{uuid4().hex}"
        await store.create_collection(make_collection(name, distance=distance))
        vectors = {
            Distance.COSINE: [(2, 0, 0), (1, 1, 0), (0, 1, 0)],
            Distance.DOT: [(2, 0, 0), (1, 1, 0), (0, 1, 0)],
            Distance.L2_SQUARED: [(1, 0, 0), (1, 1, 0), (0, 2, 0)],
        }[distance]
        objects = [make_object(n, vectors={"main": make_vector(*each)}, int=n) for n, each in enumerate(vectors, 1)]
        assert await store.put_objects(name, objects[::-1]) == [None] * 3
        fields = ReturnFields(properties=["int"])
        hits = await store.search(name, SearchSpec(at("main", 1, 0, 0), fields=fields))
        assert [each.object.id.int for each in hits] == [1, 2, 3]
        assert [each.object.properties for each in hits] == [{"int": 1}, {"int": 2}, {"int": 3}]
        assert [each.distance for each in hits] == pytest.approx(measured, abs=1e-6)
        if distance is Distance.COSINE:
            assert [each.certainty for each in hits] == pytest.approx([1 - each / 2 for each in measured], abs=1e-6)
        else:
            assert [each.certainty for each in hits] == [None] * 3

    async def test_pages_through_hits(self, store: Store, pictures: str) -> None:
        objects = [make_object(n, vectors={"main": make_vector(1, n / 10, 0)}) for n in range(1, 8)]
        await store.put_objects(pictures, objects)
        found = []
        for offset in (0, 3, 6, 9):
            page = await store.search(pictures, SearchSpec(at("main", 1, 0, 0), 3, offset))
            found.append([each.object.id.int for each in page])
        assert found == [[1, 2, 3], [4, 5, 6], [7], []]

    async def test_finds_an_object_only_by_the_vectors_it_has(self, store: Store, pictures: str) -> None:
        await store.put_objects(pictures, [make_object(1, vectors={"main": make_vector(1, 0, 0)})])
        await store.put_objects(pictures, [make_object(2, vectors={"other": make_vector(1, 0)})])
        await store.put_objects(pictures, [make_object(3, vectors={})])
        hits = await store.search(pictures, SearchSpec(at("other", 1, 0)))
        assert [each.object.id.int for each in hits] == [2]
        await store.put_objects(pictures, [make_object(3, vectors={"other": make_vector(1, 1)})])
        hits = await store.search(pictures, SearchSpec(at("other", 1, 0)))
        assert [each.object.id.int for each in hits] == [2, 3]

    @pytest.mark.parametrize(("name", "vector"), [("main", make_vector(1, 2)), ("nope", make_vector(1, 2, 3))])
    async def test_refuses_a_search_that_fits_no_index(
        self, store: Store, pictures: str, name: str, vector: Any
    ) -> None:
        await store.put_objects(pictures, [make_object(1)])
        with pytest.raises(StoreRejected):
            await store.search(pictures, SearchSpec(TargetVectors({name: vector})))

    async def test_lists_objects_in_the_order_of_ids(self, store: Store, pictures: str) -> None:
        objects = [make_object(int=number) for number in range(10)]
        await store.put_objects(pictures, objects)
        found = []
        for offset in (0, 4, 8, 12):
            fields = ReturnFields(properties=["int"])
            found += await store.search(pictures, SearchSpec(None, 4, offset, fields))
        expected = sorted(objects, key=lambda each: each.id)
        assert [(each.object.id, each.object.properties) for each in found] == [(o.id, o.properties) for o in expected]
        assert {(each.distance, each.certainty) for each in found} == {(None, None)}
