"""What every store does with what collections are made of; its tests derive from SchemaSuite and bring `store`."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.domain import (
    Collection,
    DataType,
    Distance,
    MultiTenancy,
    NamedVector,
    ObjectChange,
    Property,
    Quantizer,
    SearchSpec,
    Space,
    TargetVectors,
    VectorIndex,
    WeightedField,
)
from service.errors import CollectionNotFound, StoreRejected, StoreUnavailable, VectorRemoved
from service.store.base import Store
from tests.service.store.people import bare
from tests.service.store.store_suite import make_collection, make_object, make_vector
from tests.weaviate_versions import needs_removal

SPACE = Space("space-1", 3, "model-1")
HNSW = {
    "efConstruction": 64,
    "maxConnections": 16,
    "ef": 99,
    "dynamicEfMin": 5,
    "dynamicEfMax": 50,
    "dynamicEfFactor": 4,
    "vectorCacheMaxObjects": 1000,
    "flatSearchCutoff": 10,
    "filterStrategy": "sweeping",
    "cleanupIntervalSeconds": 60,
}
INDEXES = {
    "hnsw": VectorIndex("hnsw", HNSW, Quantizer("none")),
    "hnsw rq": VectorIndex("hnsw", {}, Quantizer("rq", {"bits": 1, "rescoreLimit": 7})),
    "hnsw bq": VectorIndex("hnsw", {}, Quantizer("bq")),
    "hnsw sq": VectorIndex("hnsw", {}, Quantizer("sq", {"trainingLimit": 500, "rescoreLimit": 7})),
    "hnsw pq": VectorIndex(
        "hnsw",
        {},
        Quantizer(
            "pq",
            {
                "segments": 3,
                "centroids": 128,
                "trainingLimit": 500,
                "encoder": {"type": "tile", "distribution": "normal"},
            },
        ),
    ),
    "flat": VectorIndex("flat", {"vectorCacheMaxObjects": 7}, Quantizer("none")),
    "flat rq": VectorIndex("flat", {}, Quantizer("rq", {"bits": 1, "rescoreLimit": 7, "cache": True})),
    "flat bq": VectorIndex("flat", {}, Quantizer("bq", {"rescoreLimit": 7, "cache": True})),
    "hfresh": VectorIndex(
        "hfresh", {"maxPostingSizeKB": 64, "replicas": 2, "searchProbe": 9}, Quantizer("rq", {"rescoreLimit": 7})
    ),
}


def covers(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether what was found has all that was wanted, whatever else it has."""
    return all(
        covers(found.get(name, {}), value) if isinstance(value, Mapping) else found.get(name) == value
        for name, value in wanted.items()
    )


def index_covers(found: VectorIndex, wanted: VectorIndex) -> bool:
    """Return whether an index is as it was wanted."""
    assert found.quantizer is not None
    assert wanted.quantizer is not None
    return (
        found.type == wanted.type
        and found.quantizer.type == wanted.quantizer.type
        and covers(found.parameters, wanted.parameters)
        and covers(found.quantizer.parameters, wanted.quantizer.parameters)
    )


PAIR = {"first": make_vector(1, 2, 3), "second": make_vector(3, 2, 1)}


async def make_pair(store: Store) -> str:
    """Create a collection with two named vectors and an object that has both, and return its name."""
    name = f"R{uuid4().hex}"
    vectors = (NamedVector("first", SPACE), NamedVector("second", SPACE))
    await store.create_collection(Collection(name, (), vectors, default_vector="first"))
    assert await store.put_objects(name, [make_object(1, vectors=PAIR)]) == [None]
    return name


class SchemaSuite:
    """The contract of service/store/base.py on what collections are made of, as tests."""

    @pytest.mark.parametrize("kind", INDEXES)
    async def test_keeps_an_index_with_its_parameters(self, store: Store, kind: str) -> None:
        name, wanted = f"I{uuid4().hex}", INDEXES[kind]
        await store.create_collection(Collection(name, (), (NamedVector("main", SPACE, index=wanted),)))
        (vector,) = (await store.get_collection(name)).vectors
        assert index_covers(vector.index, wanted)
        assert vector.space == SPACE

    async def test_keeps_an_index_of_four_bits_or_says_that_the_store_has_none(self, store: Store) -> None:
        """Weaviate 1.38 has none."""
        name, wanted = f"I{uuid4().hex}", VectorIndex("hnsw", {}, Quantizer("rq", {"bits": 4}))
        try:
            await store.create_collection(Collection(name, (), (NamedVector("main", SPACE, index=wanted),)))
        except StoreRejected as error:
            assert "RQ bits must be 8 or 1" in str(error)
        else:
            assert index_covers((await store.get_collection(name)).vectors[0].index, wanted)

    async def test_keeps_how_properties_are_indexed(self, store: Store) -> None:
        name = f"P{uuid4().hex}"
        wanted = {
            "title": {"tokenization": "trigram", "indexFilterable": False, "indexSearchable": True},
            "code": {"tokenization": "field", "indexFilterable": True, "indexSearchable": False},
            "year": {"indexFilterable": False, "indexRangeFilters": True},
        }
        types = {"title": DataType.TEXT, "code": DataType.TEXT_ARRAY, "year": DataType.INT}
        properties = tuple(Property(each, types[each], indexing=wanted[each]) for each in wanted)
        await store.create_collection(Collection(name, properties, (NamedVector("main", SPACE),)))
        found = await store.get_collection(name)
        for each in found.properties:
            assert covers(each.indexing, wanted[each.name])

    async def test_keeps_shards_replicas_and_the_inverted_index(self, store: Store) -> None:
        name = f"S{uuid4().hex}"
        wanted = Collection(
            name,
            (),
            (NamedVector("main", SPACE),),
            replication={"factor": 1, "deletionStrategy": "DeleteOnConflict"},
            sharding={"desiredCount": 2, "virtualPerPhysical": 64},
            inverted_index={
                "bm25": {"b": 0.5, "k1": 1.5},
                "stopwords": {"preset": "none", "additions": ["ein"], "removals": []},
                "indexTimestamps": False,
                "cleanupIntervalSeconds": 9,
            },
        )
        await store.create_collection(wanted)
        found = await store.get_collection(name)
        assert covers(found.replication, wanted.replication)
        assert covers(found.sharding, wanted.sharding)
        assert covers(found.inverted_index["bm25"], wanted.inverted_index["bm25"])
        assert found.inverted_index["stopwords"]["additions"] == ["ein"]
        assert found.inverted_index["indexTimestamps"] is False
        assert found.inverted_index["cleanupIntervalSeconds"] == 9

    async def test_an_update_changes_what_was_changed_and_nothing_else(self, store: Store) -> None:
        name = f"U{uuid4().hex}"
        await store.create_collection(make_collection(name))
        await store.put_objects(name, [make_object(1, text="old")])
        present = await store.get_collection(name)
        new_vector = NamedVector("added", Space("space-3", 2, "model-3"), (), (WeightedField("text"),), Distance.DOT)
        changed = replace(
            present,
            description="new",
            properties=(
                *(replace(each, description=f"new {each.name}") for each in present.properties),
                Property("extra", DataType.NUMBER, "added", {"indexFilterable": False}),
            ),
            vectors=(
                *(
                    replace(each, index=replace(each.index, parameters={**each.index.parameters, "ef": 77}))
                    for each in present.vectors
                ),
                new_vector,
            ),
            inverted_index={**present.inverted_index, "bm25": {"b": 0.5, "k1": 1.5}},
        )
        await store.update_collection(changed)
        await store.update_collection(changed)
        found = await store.get_collection(name)
        assert found.description == "new"
        assert {each.name: each.description for each in found.properties} == {
            each.name: each.description for each in changed.properties
        }
        assert bare(found).vectors == (bare(Collection("", (), (new_vector,))).vectors[0], *bare(present).vectors)
        assert [each.index.parameters.get("ef") == 77 for each in found.vectors] == [False, True, True]
        assert found.inverted_index["bm25"] == {"b": 0.5, "k1": 1.5}
        assert await store.count_objects(name) == 1
        objects = [make_object(2, extra=1.5, vectors={"added": make_vector(1, 2)})]
        assert await store.put_objects(name, objects) == [None]

    async def test_an_update_changes_how_properties_are_indexed(self, store: Store) -> None:
        name = f"X{uuid4().hex}"
        text = {"tokenization": "word", "indexFilterable": True, "indexSearchable": True}
        number = {"indexFilterable": True, "indexRangeFilters": False}
        properties = (
            Property("dropped", DataType.TEXT, indexing=text),
            Property("built", DataType.TEXT, indexing={**text, "indexSearchable": False}),
            Property("cut", DataType.TEXT, indexing=text),
            Property("ranged", DataType.INT, indexing=number),
        )
        await store.create_collection(Collection(name, properties, (NamedVector("main", SPACE),)))
        await store.put_objects(name, [make_object(1, dropped="a", built="b", cut="c", ranged=1)])
        present = await store.get_collection(name)
        wanted = {
            "dropped": {"indexFilterable": False, "indexSearchable": False},
            "built": {"indexSearchable": True},
            "cut": {"tokenization": "field"},
            "ranged": {"indexRangeFilters": True},
        }
        changed = tuple(replace(each, indexing={**each.indexing, **wanted[each.name]}) for each in present.properties)
        await store.update_collection(replace(present, properties=changed))
        async with asyncio.timeout(60):
            while any(
                not covers(each.indexing, wanted[each.name]) for each in (await store.get_collection(name)).properties
            ):
                await asyncio.sleep(0.05)
        found = await store.get_collection(name)
        assert {each.name: each.indexing for each in found.properties} == {each.name: each.indexing for each in changed}

    async def test_an_update_sets_the_automatisms_of_tenants(self, store: Store) -> None:
        name = f"T{uuid4().hex}"
        await store.create_collection(Collection(name, (), (NamedVector("main", SPACE),), multi_tenancy=MultiTenancy()))
        present = await store.get_collection(name)
        await store.update_collection(replace(present, multi_tenancy=MultiTenancy(True, True)))
        assert (await store.get_collection(name)).multi_tenancy == MultiTenancy(True, True)

    @pytest.mark.parametrize("kind", ["rq", "bq", "sq", "pq"])
    async def test_an_update_switches_a_quantizer_of_hnsw_on(self, store: Store, kind: str) -> None:
        name = f"Q{uuid4().hex}"
        await store.create_collection(Collection(name, (), (NamedVector("main", SPACE),)))
        present = await store.get_collection(name)
        (vector,) = present.vectors
        wanted = replace(vector, index=replace(vector.index, quantizer=Quantizer(kind)))
        await store.update_collection(replace(present, vectors=(wanted,)))
        quantizer = (await store.get_collection(name)).vectors[0].index.quantizer
        assert quantizer is not None
        assert quantizer.type == kind

    async def test_keeps_how_fields_become_a_vector_and_their_order(self, store: Store) -> None:
        texts = (WeightedField("title"), WeightedField("about"))
        fields = {"image_fields": (WeightedField("photo"),), "text_fields": texts}
        vectors = (
            NamedVector("joint", SPACE, weighted=False, joint=True, **fields),
            NamedVector("mean", SPACE, **fields),
        )
        properties = (
            Property("title", DataType.TEXT), Property("about", DataType.TEXT), Property("photo", DataType.BLOB)
        )  # fmt: skip
        await store.create_collection(Collection("Pictures", properties, vectors))

        found = {each.name: each for each in (await store.get_collection("Pictures")).vectors}

        assert [found[name].joint for name in ("joint", "mean")] == [True, False]
        for each in found.values():
            assert (each.image_fields, each.text_fields) == (fields["image_fields"], texts)

    async def test_keeps_and_changes_the_default_vector_beside_the_description(self, store: Store) -> None:
        name = f"D{uuid4().hex}"
        vectors = (NamedVector("first", SPACE), NamedVector("second", SPACE))
        await store.create_collection(Collection(name, (), vectors, "all of them", default_vector="second"))
        created = await store.get_collection(name)
        await store.update_collection(replace(created, default_vector="first"))
        changed = await store.get_collection(name)
        await store.update_collection(replace(changed, default_vector=""))
        emptied = await store.get_collection(name)
        assert [each.default_vector for each in (created, changed, emptied)] == ["second", "first", ""]
        assert {each.description for each in (created, changed, emptied)} == {"all of them"}

    async def test_keeps_changes_and_switches_off_how_long_objects_live(self, store: Store) -> None:
        name = f"L{uuid4().hex}"
        made = {"day": Property("day", DataType.DATE), "main": NamedVector("main", SPACE)}
        by_update = {"enabled": True, "deleteOn": "_lastUpdateTimeUnix", "defaultTtl": 90}
        by_day = {"enabled": True, "deleteOn": "day", "defaultTtl": -5}
        await store.create_collection(Collection(name, (made["day"],), (made["main"],), object_ttl=by_update))
        seen = [await store.get_collection(name)]
        for wanted in (by_day, {**by_day, "enabled": False}):
            await store.update_collection(replace(seen[-1], object_ttl=wanted))
            seen.append(await store.get_collection(name))
        assert [dict(each.object_ttl) for each in seen] == [by_update, by_day, {**by_day, "enabled": False}]

    @needs_removal
    async def test_a_removed_vector_is_searched_no_more_and_its_name_stays_taken(self, store: Store) -> None:
        name, both = await make_pair(store), PAIR
        await store.get_collection(name, fresh=False)

        for _ in range(2):
            await store.remove_vector(name, "second")

        left = await store.get_collection(name, fresh=False)
        assert ([each.name for each in left.vectors], left.removed_vectors) == (["first"], ("second",))
        with pytest.raises(VectorRemoved, match="'second'"):
            await store.search(name, SearchSpec(TargetVectors(both)))
        await store.update_collection(replace(left, description="new"))
        await store.update_object(name, ObjectChange(UUID(int=1), lost_vectors=["first"]))
        assert await store.put_objects(name, [make_object(2, vectors={"first": both["first"]})]) == [None]
        (hit,) = await store.search(name, SearchSpec(TargetVectors({"first": both["first"]})))
        assert hit.object.id == UUID(int=2)
        found = await store.get_collection(name)
        assert (found.description, found.vectors, found.removed_vectors) == ("new", left.vectors, ("second",))

    @needs_removal
    async def test_a_write_with_a_removed_vector_asks_to_be_sent_again(self, store: Store) -> None:
        name = await make_pair(store)
        await store.remove_vector(name, "second")
        change = ObjectChange(UUID(int=1), vectors={"second": make_vector(1, 1, 1)})
        with pytest.raises(StoreUnavailable, match="'second' was removed"):
            await store.put_objects(name, [make_object(2, vectors=PAIR), make_object(3, vectors=PAIR)])
        with pytest.raises(StoreUnavailable, match="'second' was removed"):
            await store.update_object(name, change)

    @needs_removal
    async def test_only_a_vector_that_is_there_can_be_removed(self, store: Store) -> None:
        name = f"R{uuid4().hex}"
        await store.create_collection(Collection(name, (), (NamedVector("first", SPACE),)))
        with pytest.raises(StoreRejected, match="other"):
            await store.remove_vector(name, "other")
        with pytest.raises(CollectionNotFound):
            await store.remove_vector("Missing", "first")

    async def test_an_update_needs_the_collection(self, store: Store) -> None:
        with pytest.raises(CollectionNotFound):
            await store.update_collection(Collection("Missing", (), (NamedVector("main", SPACE),)))
