"""How every store filters; a test class for a store derives from FilterSuite and brings the fixture `store`."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.domain import (
    AllOf,
    AnyOf,
    Blend,
    Condition,
    Filter,
    Fusion,
    Keywords,
    Not,
    Operator,
    ReturnFields,
    SearchOptions,
    SearchSpec,
    SortBy,
    Target,
    TargetJoin,
    TargetVectors,
    WeightedField,
)
from service.store.base import Store
from tests.service.store.store_suite import at, make_collection, make_object, make_vector

OBJECTS = [
    make_object(1, text="a red car", int=1, number=0.5, boolean=True, date="2024-01-02T03:04:05Z", text_array=["x"]),
    make_object(2, text="a blue car", int=2, number=1.5, boolean=False, text_array=["x", "y"]),
    make_object(3, text="A Red Boat", int=3, date="2025-01-02T03:04:05Z", uuid=str(UUID(int=7)), int_array=[1, 5]),
    make_object(4, int=4, boolean=True, text_array=["z"]),
]


def where(name: str, operator: Operator, value: Any, target: Target = Target.PROPERTY) -> Condition:
    """Return a condition."""
    return Condition(target, operator, value, name)


def _length(name: str, operator: Operator, value: int) -> Condition:
    return where(name, operator, value, Target.PROPERTY_LENGTH)


RED = where("text", Operator.EQUAL, "red")
CAR = where("text", Operator.EQUAL, "car")
FILTERS: list[tuple[Filter, set[int]]] = [
    (RED, {1, 3}),
    (where("text", Operator.NOT_EQUAL, "red"), {2, 4}),
    (where("text", Operator.LIKE, "b*"), {2, 3}),
    (where("text", Operator.LIKE, "c?r"), {1, 2}),
    (where("int", Operator.EQUAL, 2), {2}),
    (where("int", Operator.GREATER, 2), {3, 4}),
    (where("int", Operator.GREATER_OR_EQUAL, 2), {2, 3, 4}),
    (where("int", Operator.LESS, 2), {1}),
    (where("int", Operator.LESS_OR_EQUAL, 2), {1, 2}),
    (where("number", Operator.GREATER, 0.5), {2}),
    (where("boolean", Operator.EQUAL, True), {1, 4}),
    (where("date", Operator.GREATER, "2024-06-01T00:00:00+02:00"), {3}),
    (where("date", Operator.EQUAL, "2024-01-02T03:04:05Z"), {1}),
    (where("uuid", Operator.EQUAL, str(UUID(int=7))), {3}),
    (where("int_array", Operator.EQUAL, 5), {3}),
    (where("int", Operator.CONTAINS_ANY, [1, 4, 9]), {1, 4}),
    (where("text_array", Operator.CONTAINS_ANY, ["y", "z"]), {2, 4}),
    (where("text_array", Operator.CONTAINS_ALL, ["x", "y"]), {2}),
    (where("text_array", Operator.CONTAINS_NONE, ["x"]), {3, 4}),
    (where("text", Operator.IS_NULL, True), {4}),
    (where("text", Operator.IS_NULL, False), {1, 2, 3}),
    (_length("text_array", Operator.EQUAL, 2), {2}),
    (_length("text", Operator.GREATER, 9), {2, 3}),
    (where("", Operator.EQUAL, str(UUID(int=3)), Target.ID), {3}),
    (where("", Operator.NOT_EQUAL, str(UUID(int=3)), Target.ID), {1, 2, 4}),
    (where("", Operator.CONTAINS_ANY, [str(UUID(int=3)), str(UUID(int=1))], Target.ID), {1, 3}),
    (AllOf((RED, CAR)), {1}),
    (AnyOf((RED, CAR)), {1, 2, 3}),
    (Not(RED), {2, 4}),
    (AllOf((Not(AnyOf((RED, where("int", Operator.EQUAL, 4)))), CAR)), {2}),
]


WORDS: list[tuple[Keywords, set[int]]] = [
    (Keywords("red"), {1, 3}),
    (Keywords("red car"), {1, 2, 3}),
    (Keywords("red car", need_all=True), {1}),
    (Keywords("red blue car", need_all=False, minimum_match=2), {1, 2}),
    (Keywords("x", (WeightedField("text"),)), set()),
    (Keywords("x", (WeightedField("text_array", 2), WeightedField("text"))), {1, 2}),
]


class FilterSuite:
    """What a filter lets through, as tests."""

    @pytest.mark.parametrize(("filter_", "expected"), FILTERS)
    async def test_a_filter_lets_through_what_fits_in_listings_and_searches(
        self, store: Store, filter_: Filter, expected: set[int]
    ) -> None:
        name = f"Filtered{uuid4().hex}"
        await store.create_collection(make_collection(name))
        assert await store.put_objects(name, OBJECTS) == [None] * len(OBJECTS)
        options = SearchOptions(filters=filter_)
        listed = await store.search(name, SearchSpec(options=options))
        found = await store.search(name, SearchSpec(at("main", 1, 2, 3), options=options))
        # Weaviate lists what a filter lets through in the order in which it was stored, of one write in none.
        assert {each.object.id.int for each in listed} == expected
        assert len(listed) == len(found) == len(expected)
        assert {each.object.id.int for each in found} == expected
        await store.delete_collection(name)

    @pytest.mark.parametrize("sort", [(), (SortBy("int", descending=True),)], ids=["stored", "sorted"])
    @pytest.mark.parametrize(
        "filter_",
        [
            where("int", Operator.GREATER, 0),
            Not(where("int", Operator.EQUAL, 0)),
            AllOf((where("int", Operator.GREATER, 0),)),
            AnyOf((where("int", Operator.LESS, 20), where("int", Operator.GREATER, 10))),
        ],
    )
    async def test_pages_of_a_filtered_listing_have_each_object_once(
        self, store: Store, filter_: Filter, sort: tuple[SortBy, ...]
    ) -> None:
        name = f"Paged{uuid4().hex}"
        await store.create_collection(make_collection(name))
        # The smallest values are stored last.
        for number in range(30):
            assert await store.put_objects(name, [make_object(number + 1, vectors={}, int=30 - number)]) == [None]
        options = SearchOptions(filters=filter_, sort=sort)

        pages = [
            await store.search(name, SearchSpec(None, 4, offset, ReturnFields(["int"]), options))
            for offset in range(0, 32, 4)
        ]

        assert [hit.object.properties["int"] for page in pages for hit in page] == list(range(30, 0, -1))
        await store.delete_collection(name)

    @pytest.mark.parametrize(("keywords", "expected"), WORDS)
    async def test_words_find_the_objects_that_have_them(
        self, store: Store, keywords: Keywords, expected: set[int]
    ) -> None:
        name = f"Words{uuid4().hex}"
        await store.create_collection(make_collection(name))
        await store.put_objects(name, OBJECTS)
        hits = await store.search(name, SearchSpec(keywords))
        narrowed = await store.search(name, SearchSpec(keywords, options=SearchOptions(filters=CAR)))
        scores = [each.score or 0 for each in hits]
        assert {each.object.id.int for each in hits} == expected
        assert {each.object.id.int for each in narrowed} == expected & {1, 2}
        assert scores == sorted(scores, reverse=True)
        assert all(scores)
        assert {each.distance for each in hits} <= {None}

    async def test_a_hybrid_search_joins_words_and_vectors(self, store: Store) -> None:
        name = f"Hybrid{uuid4().hex}"
        await store.create_collection(make_collection(name))
        vectors = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        texts = ["a cat", "a dog", "a bird"]
        objects = [
            make_object(number, text=text, vectors={"main": make_vector(*vector)})
            for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), 1)
        ]
        await store.put_objects(name, objects)

        async def find(blend: Blend, targets: TargetVectors | None = None) -> list[int]:
            spec = SearchSpec(replace(blend, targets=targets or at("main", 0.1, 1, 0)))
            hits = await store.search(name, spec)
            scores = [each.score or 0 for each in hits]
            assert scores == sorted(scores, reverse=True)
            return [each.object.id.int for each in hits]

        cat = Keywords("cat", (WeightedField("text"),))
        assert (await find(Blend(cat, alpha=0.0)))[0] == 1
        assert (await find(Blend(cat, alpha=1.0)))[0] == 2
        assert await find(Blend(cat, alpha=0.0), at("other")) == [1], "words alone need no vector"
        assert (await find(Blend(None)))[0] == 2
        assert (await find(Blend(cat, alpha=0.25, fusion=Fusion.RELATIVE_SCORE)))[0] == 1
        # What is too far away is no hit, though it has the words.
        assert await find(Blend(cat, alpha=0.5, max_vector_distance=0.5)) == [2]

    @pytest.mark.parametrize(
        ("join", "expected"),
        [
            # What lacks one of the vectors is a hit by the others here, and none below.
            (None, [1, 4, 2, 3]),
            (TargetJoin.MINIMUM, [1, 4, 2, 3]),
            (TargetJoin.SUM, [2, 1, 3]),
            (TargetJoin.AVERAGE, [2, 1, 3]),
            (TargetJoin.MANUAL_WEIGHTS, [2, 3, 1]),
            (TargetJoin.RELATIVE_SCORE, [2, 3, 1]),
        ],
    )
    async def test_several_named_vectors_are_searched_as_one(
        self, store: Store, join: TargetJoin | None, expected: list[int]
    ) -> None:
        name = f"Joined{uuid4().hex}"
        await store.create_collection(make_collection(name))
        rows = [((1, 0, 0), (0, 1)), ((1, 1, 0), (1, 0.5)), ((0, 0, 1), (1, 1.2)), ((1, 0.1, 0), None)]
        objects = [
            make_object(
                number,
                vectors={"main": make_vector(*main), **({"other": make_vector(*other)} if other else {})},
            )
            for number, (main, other) in enumerate(rows, 1)
        ]
        await store.put_objects(name, objects)
        vectors = {"main": make_vector(1, 0, 0), "other": make_vector(1, 0)}
        weighted = join in (TargetJoin.MANUAL_WEIGHTS, TargetJoin.RELATIVE_SCORE)
        targets = TargetVectors(vectors, join, {"main": 0.1, "other": 2.0} if weighted else {})
        hits = await store.search(name, SearchSpec(targets))
        assert [each.object.id.int for each in hits] == expected
