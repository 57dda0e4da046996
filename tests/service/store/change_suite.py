"""What every store does to objects that it has, and returns of them; a test class derives from it beside StoreSuite."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from service.domain import (
    Condition,
    DataType,
    ObjectChange,
    ObjectValue,
    Operator,
    ReturnFields,
    SearchSpec,
    Target,
    TargetVectors,
)
from service.errors import ObjectNotFound
from service.store.base import Store
from tests.service.store.people import OBJECTS, PERSON
from tests.service.store.store_suite import ALL_TYPES, NOTHING, at, make_object, make_vector, property_of


class ChangeSuite:
    """Deletions, changes and reads in part of the contract of service/store/base.py, as tests."""

    async def test_deletes_and_counts_what_fits_a_filter(self, store: Store, pictures: str) -> None:
        await store.put_objects(pictures, [make_object(number, int=number) for number in range(1, 11)])
        filters = Condition(Target.PROPERTY, Operator.GREATER, 3, "int")
        assert await store.count_objects(pictures, filters=filters) == 7
        deleted: list[UUID] = []
        while round_ := (await store.delete_objects(pictures, filters)).deleted:
            deleted += round_
        assert sorted(deleted) == [UUID(int=number) for number in range(4, 11)]
        assert await store.count_objects(pictures) == 3
        assert await store.count_objects(pictures, filters=filters) == 0

    async def test_deletes_an_object_by_its_id(self, store: Store, pictures: str) -> None:
        await store.put_objects(pictures, [make_object(1), make_object(2)])
        filters = Condition(Target.ID, Operator.EQUAL, str(UUID(int=1)))
        assert list((await store.delete_objects(pictures, filters)).deleted) == [UUID(int=1)]
        assert list((await store.delete_objects(pictures, filters)).deleted) == []
        with pytest.raises(ObjectNotFound):
            await store.get_object(pictures, UUID(int=1), NOTHING)
        assert (await store.get_object(pictures, UUID(int=2), NOTHING)).id == UUID(int=2)

    async def test_returns_those_of_some_objects_that_are_there(self, store: Store, pictures: str) -> None:
        objects = [make_object(number, int=number, images={"blob": b"picture"}) for number in range(1, 31)]
        await store.put_objects(pictures, objects)
        fields = ReturnFields(properties=["int"], images=["blob"], vectors=["main"])
        found = await store.get_objects(pictures, [UUID(int=number) for number in (30, 1, 99, 7)], fields)
        assert {id_.int: each.properties["int"] for id_, each in found.items()} == {1: 1, 7: 7, 30: 30}
        assert {each.id for each in found.values()} == set(found)
        assert all(each.images == {"blob": b"picture"} for each in found.values())
        assert all(each.vectors["main"].tolist() == [1, 2, 3] for each in found.values())

    @pytest.mark.parametrize("data_type", OBJECTS)
    async def test_returns_of_an_object_the_parts_that_are_asked_for(
        self, store: Store, pictures: str, data_type: DataType
    ) -> None:
        name = property_of(data_type)
        person = ObjectValue({"name": "Ann", "ages": [3, 4], "home": ObjectValue({"city": "Ulm", "latitude": 48.4})})
        value: Any = [person, person] if data_type is DataType.OBJECT_ARRAY else person
        assert await store.put_objects(pictures, [make_object(1, **{name: value})]) == [None]
        *_, home = PERSON
        parts = (PERSON[0], replace(home, nested=home.nested[:1]))

        found = await store.get_object(pictures, UUID(int=1), ReturnFields(properties=[name], nested={name: parts}))

        part = ObjectValue({"name": "Ann", "home": ObjectValue({"city": "Ulm"})})
        assert found.properties[name] == ([part, part] if data_type is DataType.OBJECT_ARRAY else part)

    async def test_changes_what_is_named_of_an_object_and_nothing_else(self, store: Store, pictures: str) -> None:
        whole = {property_of(each): value for each, value in ALL_TYPES.items()}
        vectors = {"main": make_vector(1, 2, 3), "other": make_vector(1, 2)}
        await store.put_objects(pictures, [make_object(1, images={"blob": b"a"}, vectors=vectors, **whole)])
        nested = {property_of(each): PERSON for each in OBJECTS}
        fields = ReturnFields(list(whole), ["blob"], ["main", "other"], nested)
        one = UUID(int=1)

        await store.update_object(pictures, ObjectChange(one, {"int": 8}))
        found = await store.get_object(pictures, one, fields)
        assert (found.properties, found.images) == ({**whole, "int": 8}, {"blob": b"a"})
        assert {name: vector.tolist() for name, vector in found.vectors.items()} == {"main": [1, 2, 3], "other": [1, 2]}

        change = ObjectChange(one, {"text": None, "number": 2.5}, {"blob": b"b"}, {"other": make_vector(5, 6)})
        await store.update_object(pictures, change)
        found = await store.get_object(pictures, one, fields)
        rest = {name: value for name, value in whole.items() if name != "text"}
        assert (found.properties, found.images) == ({**rest, "int": 8, "number": 2.5}, {"blob": b"b"})
        assert {name: vector.tolist() for name, vector in found.vectors.items()} == {"main": [1, 2, 3], "other": [5, 6]}

    async def test_takes_pictures_and_vectors_away(self, store: Store, pictures: str) -> None:
        vectors = {"main": make_vector(1, 2, 3), "other": make_vector(0.1, 2)}
        await store.put_objects(pictures, [make_object(1, images={"blob": b"a"}, vectors=vectors, text="x", int=3)])
        change = ObjectChange(UUID(int=1), {"text": None}, {"blob": None}, lost_vectors=["main"])

        await store.update_object(pictures, change)

        fields = ReturnFields(properties=["text", "int"], images=["blob"], vectors=["main", "other"])
        found = await store.get_object(pictures, UUID(int=1), fields)
        assert (found.properties, found.images) == ({"int": 3}, {})
        assert {name: vector.tobytes() for name, vector in found.vectors.items()} == {
            "other": make_vector(0.1, 2).tobytes()
        }
        assert await store.search(pictures, SearchSpec(at("main", 1, 2, 3), fields=fields)) == []

    async def test_says_that_an_object_to_change_is_not_there(self, store: Store, pictures: str) -> None:
        with pytest.raises(ObjectNotFound):
            await store.update_object(pictures, ObjectChange(UUID(int=9), {"int": 1}))
        with pytest.raises(ObjectNotFound):
            await store.update_object(pictures, ObjectChange(UUID(int=9), lost_vectors=["main"]))

    async def test_enters_a_vector_into_its_index_again_with_the_same_bits(self, store: Store, pictures: str) -> None:
        vectors = {"main": make_vector(0.1, -2, 0.3), "other": make_vector(1, 2)}
        await store.put_objects(pictures, [make_object(1, vectors=vectors, int=3)])

        await store.reindex_vector(pictures, UUID(int=1), "main", vectors["main"])

        fields = ReturnFields(properties=["int"], vectors=["main", "other"])
        (hit,) = await store.search(pictures, SearchSpec(TargetVectors({"main": vectors["main"]}), 1, fields=fields))
        assert hit.object.properties == {"int": 3}
        assert {name: vector.tobytes() for name, vector in hit.object.vectors.items()} == {
            name: vector.tobytes() for name, vector in vectors.items()
        }
        with pytest.raises(ObjectNotFound):
            await store.reindex_vector(pictures, UUID(int=2), "main", vectors["main"])

    async def test_a_vector_that_was_replaced_meanwhile_is_not_entered_again(self, store: Store, pictures: str) -> None:
        old, new = make_vector(1, 2, 3), make_vector(3, 2, 1)
        await store.put_objects(pictures, [make_object(1, vectors={"main": new})])

        await store.reindex_vector(pictures, UUID(int=1), "main", old)

        found = await store.get_object(pictures, UUID(int=1), ReturnFields(vectors=["main"]))
        assert found.vectors["main"].tobytes() == new.tobytes()
