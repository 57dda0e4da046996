"""Binding of vectors that another client made, over a store and embedders in memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode

from embedders.contract import DOCUMENT, Embedding, Modality, TextImageInput
from embedders.errors import EmbedderUnavailable
from service.core.collections import sampling
from service.core.collections.binding import MAX_COMPARED, MIN_COMPARED, MIN_COSINE, MIN_SHOWN, fitted_weights
from service.core.collections.sampling import MAX_TENANTS
from service.core.objects.vectorizing import join
from service.domain import (
    Collection,
    DataType,
    Distance,
    MultiTenancy,
    NamedVector,
    Property,
    Scope,
    Space,
    StoredObject,
    Tenant,
    TenantActivity,
)
from service.errors import StoreUnavailable
from tests.conftest import assert_close
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as pb

OWN = NamedVector("own", None)
PROPERTIES = (
    Property("title", DataType.TEXT),
    Property("tags", DataType.TEXT_ARRAY),
    Property("photo", DataType.BLOB),
    Property("year", DataType.INT),
    Property("stamp", DataType.BLOB_HASH),
)
FAKE = FakeEmbedder()
OTHER = FakeEmbedder(name="other", model="other/model", space="other")
Made = Callable[[int], StoredObject]


def titled(number: int, maker: FakeEmbedder = FAKE, length: float = 1) -> StoredObject:
    """Return an object with a title, and its vector by an embedder."""
    title = f"thing {number}"
    return StoredObject(UUID(int=number), {"title": title}, {}, {"own": maker.vector(title) * np.float32(length)})


def pictured(number: int) -> StoredObject:
    """Return an object with a title, a picture and a tag; its vector is a quarter title and three quarters picture."""
    title, photo = f"thing {number}", picture((number, 0, 0))
    vector = join([FAKE.vector(title), FAKE.vector(photo)], [0.25, 0.75])
    assert vector is not None
    return StoredObject(UUID(int=number), {"title": title, "tags": ["some"]}, {"photo": photo}, {"own": vector})


def mixed(number: int) -> StoredObject:
    """Return an object with a title and a tag, and their vector."""
    title = f"thing {number}"
    vector = join([FAKE.vector(title), FAKE.vector("some")], [0.5, 0.5])
    assert vector is not None
    return StoredObject(UUID(int=number), {"title": title, "tags": ["some"]}, {}, {"own": vector})


async def fill(wire: Wire, made: Made = titled, *, count: int = 12, vector: NamedVector = OWN) -> None:
    """Store objects of another client's in a collection of its own."""
    await wire.store.create_collection(Collection("Plain", PROPERTIES, (vector,)))
    assert not any(await wire.store.put_objects("Plain", [made(number) for number in range(1, count + 1)]))


def asked(*texts: str, images: tuple[str, ...] = (), embedder: str = "fake", **fields: Any) -> pb.BindVectorRequest:
    """Return a request; NAME=WEIGHT is a field with a weight."""
    kinds = {"text_fields": texts, "image_fields": images}
    named = {kind: [_field(each) for each in names] for kind, names in kinds.items()}
    vector = {"embedder": embedder, **named, **fields.pop("vector", {})}
    return pb.BindVectorRequest(**{"collection": "Plain", "vector": vector, **fields})


def _field(text: str) -> dict[str, Any]:
    name, equals, weight = text.partition("=")
    return {"name": name, "weight": float(weight)} if equals else {"name": name}


async def unbound(wire: Wire) -> bool:
    """Return whether the vector is still bound to nothing."""
    return (await wire.store.get_collection("Plain")).vectors[0].space is None


async def test_stored_vectors_prove_the_embedder_and_its_fields(wire: Wire) -> None:
    await fill(wire, count=60)

    answer = await wire.collections.BindVector(asked("title"))

    (vector,) = answer.collection.vectors
    assert (vector.name, vector.space, vector.embedder, vector.dimension) == ("own", "fake", "fake", 8)
    assert (answer.proof.compared, answer.proof.matching) == (MAX_COMPARED, MAX_COMPARED)
    assert_close(np.array([answer.proof.least_cosine, answer.proof.median_cosine]), np.ones(2))
    assert (await wire.store.get_collection("Plain")).vectors[0].space == Space("fake", 8, "fake/model")


async def test_the_same_binding_again_changes_nothing_and_embeds_nothing(wire: Wire) -> None:
    await fill(wire)
    await wire.collections.BindVector(asked("title"))
    wire.store.calls.clear()
    wire.embedder.calls.clear()

    answer = await wire.collections.BindVector(asked("title", without_proof=True))

    assert not answer.HasField("proof")
    assert answer.collection.vectors[0].space == "fake"
    assert ("bind_vector" in wire.store.calls, wire.embedder.calls) == (False, [])


async def test_a_binding_is_replaced_on_demand_alone_and_only_with_a_proof_of_its_own(wire: Wire) -> None:
    await fill(wire, pictured)
    await wire.collections.BindVector(asked(without_proof=True))
    weighted = ("title=0.25",), ("photo=0.75",)

    refused = await failure_of(wire.collections.BindVector(asked(*weighted[0], images=weighted[1])))
    wrong = await failure_of(wire.collections.BindVector(asked("title=0.9", images=("photo=0.1",), replace=True)))
    replaced = await wire.collections.BindVector(asked(*weighted[0], images=weighted[1], replace=True))

    assert (refused.code, refused.fields) == (StatusCode.INVALID_ARGUMENT, ["vector.name"])
    assert "set replace" in refused.message
    assert wrong.reason == "BINDING_UNPROVEN"
    assert [each.name for each in replaced.collection.vectors[0].image_fields] == ["photo"]


WRONG: dict[str, tuple[Made, pb.BindVectorRequest, str]] = {
    "another model of the same dimension": (
        lambda number: titled(number, OTHER),
        asked("title"),
        "another model made them",
    ),
    "another field": (titled, asked("tags", "title"), "with the weights tags=0.00, title=1.00"),
    "weights": (pictured, asked("title", images=("photo",)), "with the weights title=0.25, photo=0.75"),
    "one field of two": (pictured, asked("title"), "another model made them, or it made them of other"),
    "half of them by another model": (
        lambda number: titled(number, OTHER if number % 3 == 0 else FAKE),
        asked("title"),
        "another model made them",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_stored_vectors_that_differ_are_refused_with_numbers_and_the_fix(wire: Wire, case: str) -> None:
    made, request, fix = WRONG[case]
    await fill(wire, lambda number: replace(made(number), properties={**made(number).properties, "tags": ["some"]}))

    failure = await failure_of(wire.collections.BindVector(request))

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "BINDING_UNPROVEN")
    assert fix in failure.message
    assert failure.metadata.keys() == {"compared", "matching", "zeros", "least_cosine", "median_cosine"}
    assert failure.metadata["compared"] == "12"
    assert float(failure.metadata["least_cosine"]) < MIN_COSINE
    assert await unbound(wire)


@pytest.mark.parametrize(
    ("made", "count", "refusal"),
    [
        (titled, 3, "of the 3 with 'tags', 0 are"),
        (titled, 1, "of the 1 with 'tags', 0 are"),
        (mixed, 2, f"a proof needs {MIN_SHOWN} objects with 'tags', and has 2"),
        (mixed, 3, None),
    ],
    ids=["three without it", "one without it", "two with it", "three with it"],
)
async def test_objects_without_a_field_do_not_prove_it(wire: Wire, made: Made, count: int, refusal: str | None) -> None:
    """Most objects have a title alone, and match whatever the vectors of those with tags are made of."""
    tagged = {"tags": ["some"]}
    few = [replace(made(number), properties={"title": f"thing {number}", **tagged}) for number in range(1, count + 1)]
    await fill(wire, lambda number: few[number - 1] if number <= count else titled(number), count=36)

    if refusal is None:
        assert (await wire.collections.BindVector(asked("title", "tags"))).proof.matching == 36
        return
    failure = await failure_of(wire.collections.BindVector(asked("title", "tags")))

    assert failure.reason == "BINDING_UNPROVEN"
    assert refusal in failure.message
    assert await unbound(wire)


async def test_objects_with_several_fields_prove_the_weights_though_others_match(wire: Wire) -> None:
    """Objects with one field match with any weights."""

    def made(number: int) -> StoredObject:
        if number <= 3:
            return pictured(number)
        photo = picture((number, 0, 0))
        return (
            titled(number)
            if number % 2
            else StoredObject(UUID(int=number), {}, {"photo": photo}, {"own": FAKE.vector(photo)})
        )

    await fill(wire, made, count=36)

    wrong = await failure_of(wire.collections.BindVector(asked("title=0.9", images=("photo=0.1",))))
    right = await wire.collections.BindVector(asked("title=0.25", images=("photo=0.75",)))

    assert (wrong.reason, wrong.metadata["matching"]) == ("BINDING_UNPROVEN", "33")
    assert "with 'title'" in wrong.message
    assert right.proof.matching == 36


async def test_the_newest_objects_are_compared_where_ids_follow_the_time(wire: Wire) -> None:
    """Such as UUIDs of version 7: all begin alike, and only the oldest would be read."""
    await wire.store.create_collection(Collection("Plain", PROPERTIES, (OWN,)))
    objects = [titled(number, FAKE if number < 40 else OTHER) for number in range(60)]
    timed = [replace(each, id=UUID(int=(0x019400000000 << 80) + (7 << 76) + each.id.int)) for each in objects]
    await wire.store.put_objects("Plain", timed)

    failure = await failure_of(wire.collections.BindVector(asked("title")))

    assert (failure.reason, failure.metadata["matching"]) == ("BINDING_UNPROVEN", "20")


async def test_objects_of_all_places_are_compared_where_ids_are_spread(wire: Wire) -> None:
    await wire.store.create_collection(Collection("Plain", PROPERTIES, (OWN,)))
    for number in range(30):
        for place in range(8):
            each = titled(8 * number + place, OTHER if place in (5, 6) else FAKE)
            await wire.store.put_objects("Plain", [replace(each, id=UUID(int=(place << 125) + number + 1))])

    failure = await failure_of(wire.collections.BindVector(asked("title")))

    assert failure.reason == "BINDING_UNPROVEN"


ALIKE: dict[str, tuple[pb.BindVectorRequest, pb.BindVectorRequest, bool]] = {
    "another order": (asked("title", "tags"), asked("tags", "title"), True),
    "weights of another sum": (asked("title=0.3", "tags=0.7"), asked("title=0.6", "tags=1.4"), True),
    "equal weights": (asked("title", "tags"), asked("title=0.5", "tags=0.5"), True),
    "one field with a weight": (asked("title"), asked("title=3"), True),
    "another embedder of the space": (asked("title"), asked("title", embedder="twin"), True),
    "other weights": (asked("title=0.3", "tags=0.7"), asked("title=0.7", "tags=0.3"), False),
    "a field less": (asked("title", "tags"), asked("title"), False),
    "a joint input": (
        asked("title", "tags"),
        asked("title", "tags", vector={"combination": pb.COMBINATION_JOINT_INPUT}),
        False,
    ),
    "another order of a joint input": (
        asked("title", "tags", vector={"combination": pb.COMBINATION_JOINT_INPUT}),
        asked("tags", "title", vector={"combination": pb.COMBINATION_JOINT_INPUT}),
        False,
    ),
    "another space": (asked("title"), asked("title", embedder="other"), False),
}


@pytest.mark.parametrize("case", ALIKE)
async def test_a_call_that_means_the_same_changes_nothing_and_another_needs_replace(case: str) -> None:
    first, second, alike = ALIKE[case]
    every = frozenset(Modality)
    others = FakeEmbedder(name="twin", modalities=every), FakeEmbedder(name="other", space="other", modalities=every)
    wire = await start_wire(FakeEmbedder(modalities=every), *others)
    trusted = []
    for each in (first, second):
        trusted.append(pb.BindVectorRequest(without_proof=True))
        trusted[-1].MergeFrom(each)
    try:
        await fill(wire, count=0)
        bound = (await wire.collections.BindVector(trusted[0])).collection
        if alike:
            answer = await wire.collections.BindVector(trusted[1])
            assert (answer.HasField("proof"), answer.collection) == (False, bound)
        else:
            failure = await failure_of(wire.collections.BindVector(trusted[1]))
            assert (failure.fields, "set replace" in failure.message) == (["vector.name"], True)
    finally:
        await stop_wire(wire)


async def test_a_few_objects_may_have_changed_without_their_vectors(wire: Wire) -> None:
    await fill(wire, lambda number: titled(number, OTHER if number == 3 else FAKE))

    answer = await wire.collections.BindVector(asked("title"))

    assert (answer.proof.compared, answer.proof.matching) == (12, 11)
    assert answer.proof.least_cosine < MIN_COSINE <= answer.proof.median_cosine


async def test_nobodys_word_outweighs_vectors_of_another_model(wire: Wire) -> None:
    await fill(wire, lambda number: titled(number, OTHER))

    failure = await failure_of(wire.collections.BindVector(asked("title", without_proof=True)))

    assert failure.reason == "BINDING_UNPROVEN"
    assert "without_proof" not in failure.message
    assert await unbound(wire)


def bare(number: int) -> StoredObject:
    """Return an object with a vector and nothing that it could be made of."""
    return StoredObject(UUID(int=number), {"year": number}, {}, {"own": FAKE.vector(str(number))})


def hashed(number: int) -> StoredObject:
    """Return an object with a title and an image of which the store keeps the hash."""
    return replace(titled(number), images={"stamp": picture((number, 0, 0))})


UNPROVEN: dict[str, tuple[Made, int, pb.BindVectorRequest, str]] = {
    "an empty collection": (titled, 0, asked("title"), "no stored vector could be compared"),
    "too few objects": (titled, MIN_COMPARED - 1, asked("title"), f"a proof needs {MIN_COMPARED} objects"),
    "no texts": (bare, 12, asked("title"), "no stored vector could be compared"),
    "no fields": (titled, 12, asked(), "no stored vector could be compared"),
    "images of which the store keeps the hashes": (
        hashed,
        12,
        asked("title", images=("stamp",)),
        "no stored vector could",
    ),
    "a field that no object has": (
        titled,
        12,
        asked("title", images=("photo",)),
        f"a proof needs {MIN_SHOWN} objects with 'photo', and has 0",
    ),
    "weights that no object shows": (
        lambda number: replace(
            titled(number) if number % 2 else pictured(number),
            properties={"title": f"thing {number}"} if number % 2 else {},
            vectors={"own": FAKE.vector(f"thing {number}" if number % 2 else picture((number, 0, 0)))},
        ),
        12,
        asked("title", images=("photo",)),
        f"a proof needs {MIN_SHOWN} objects with several of the fields, and has 0",
    ),
}


@pytest.mark.parametrize("case", UNPROVEN)
async def test_what_proves_too_little_is_bound_on_the_callers_word_alone(wire: Wire, case: str) -> None:
    made, count, request, why = UNPROVEN[case]
    await fill(wire, made, count=count)
    trusted = pb.BindVectorRequest()
    trusted.CopyFrom(request)
    trusted.without_proof = True

    failure = await failure_of(wire.collections.BindVector(request))
    was_unbound = await unbound(wire)
    answer = await wire.collections.BindVector(trusted)

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "BINDING_UNPROVEN")
    assert why in failure.message
    assert "without_proof" in failure.message
    assert was_unbound
    assert (answer.collection.vectors[0].space, answer.HasField("proof")) == ("fake", True)


async def test_vectors_must_have_unit_length_where_the_distance_depends_on_it(wire: Wire) -> None:
    await fill(wire, lambda number: titled(number, length=3), vector=replace(OWN, distance=Distance.DOT))

    failure = await failure_of(wire.collections.BindVector(asked("title")))

    assert failure.reason == "BINDING_UNPROVEN"
    assert "the distance dot depends on the length" in failure.message


async def test_the_length_is_nothing_to_the_cosine(wire: Wire) -> None:
    await fill(wire, lambda number: titled(number, length=3))

    answer = await wire.collections.BindVector(asked("title"))

    assert answer.proof.matching == 12


@pytest.mark.parametrize("request_", [asked("title"), asked(without_proof=True), asked("tags", without_proof=True)])
async def test_the_dimension_is_compared_whatever_the_caller_says(wire: Wire, request_: pb.BindVectorRequest) -> None:
    await fill(wire, lambda number: titled(number, FakeEmbedder(dimension=16)))

    failure = await failure_of(wire.collections.BindVector(request_))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_VECTOR")
    assert failure.fields == ["vector.embedder"]
    assert "vectors of 8 values" in failure.message
    assert "16" in failure.message


REFUSED: dict[str, tuple[NamedVector, pb.BindVectorRequest, list[str]]] = {
    "no collection": (OWN, asked("title", collection=""), ["collection"]),
    "no embedder": (OWN, asked("title", embedder=""), ["vector.embedder"]),
    "an unknown field": (OWN, asked("nope"), ["vector.text_fields[0].name"]),
    "a number as an image": (OWN, asked(images=("year",)), ["vector.image_fields[0].name"]),
    "a number as a text": (OWN, asked("title", "year"), ["vector.text_fields[1].name"]),
    "a weight of 0": (OWN, asked("title=0"), ["vector.text_fields[0].weight"]),
    "images as one input without texts": (
        OWN,
        asked(images=("photo",), vector={"combination": pb.COMBINATION_JOINT_INPUT}),
        ["vector.combination"],
    ),
    "another model": (OWN, asked("title", vector={"model": "other"}), ["vector.model"]),
    "an unknown vector": (OWN, asked("title", vector={"name": "nope"}), ["vector.name"]),
    "a name that is none": (OWN, asked("title", vector={"name": "no name"}), ["vector.name"]),
    "an index": (OWN, asked("title", vector={"index": {"hnsw": {}}}), ["vector.index"]),
    "a native vector": (
        OWN,
        asked("title", vector={"native": True, "base_url": "http://vecgate:8070"}),
        ["vector.native", "vector.base_url"],
    ),
    "several mistakes": (
        OWN,
        asked("nope", vector={"name": "own", "model": "m"}),
        ["vector.model", "vector.text_fields[0].name"],
    ),
    "a vector of the module": (
        replace(OWN, native=True, space=Space("fake", 0, "fake/model")),
        asked("title"),
        ["vector.name"],
    ),
    "a vector of another module": (replace(OWN, module="text2vec-openai"), asked("title"), ["vector.name"]),
    "several vectors of an object": (replace(OWN, multi=True), asked("title"), ["vector.name"]),
    "a vector of Vecgate's own": (
        replace(OWN, space=Space("old", 8, "old/model")),
        asked("title", replace=True),
        ["vector.name"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_bound_is_refused_by_its_field(wire: Wire, case: str) -> None:
    vector, request, fields = REFUSED[case]
    await wire.store.create_collection(Collection("Plain", PROPERTIES, (vector,)))

    failure = await failure_of(wire.collections.BindVector(request))

    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, fields)
    assert "bind_vector" not in wire.store.calls


async def test_several_vectors_are_told_apart_by_name(wire: Wire) -> None:
    await wire.store.create_collection(Collection("Plain", PROPERTIES, (OWN, NamedVector("two", None))))

    unnamed = await failure_of(wire.collections.BindVector(asked("title", without_proof=True)))
    answer = await wire.collections.BindVector(asked("title", vector={"name": "two"}, without_proof=True))

    assert (unnamed.reason, unnamed.fields) == ("UNKNOWN_VECTOR", ["vector.name"])
    assert "own, two" in unnamed.message
    assert [each.space for each in answer.collection.vectors] == ["", "fake"]


async def test_unknown_embedders_and_collections_are_named(wire: Wire) -> None:
    await fill(wire)

    embedder = await failure_of(wire.collections.BindVector(asked("title", embedder="nope")))
    collection = await failure_of(wire.collections.BindVector(asked("title", collection="Nope")))

    assert (embedder.code, embedder.reason) == (StatusCode.NOT_FOUND, "EMBEDDER_NOT_FOUND")
    assert (collection.code, collection.reason) == (StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND")


async def test_nothing_is_bound_while_the_embedder_or_the_store_is_down(wire: Wire) -> None:
    await fill(wire)
    wire.embedder.failure = EmbedderUnavailable("down")
    embedder = await failure_of(wire.collections.BindVector(asked("title", without_proof=True)))
    wire.embedder.failure = None
    wire.store.fail_next_of("bind_vector", StoreUnavailable("down"))
    store = await failure_of(wire.collections.BindVector(asked("title")))

    assert (embedder.code, embedder.reason) == (StatusCode.UNAVAILABLE, "EMBEDDER_UNAVAILABLE")
    assert (store.code, store.reason) == (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert await unbound(wire)


async def test_an_embedder_that_is_not_the_default_one_is_proven_by_its_own_vectors() -> None:
    wire = await start_wire(FakeEmbedder(), FakeEmbedder(name="other", model="other/model", space="other"))
    try:
        await fill(wire, lambda number: titled(number, OTHER))

        failure = await failure_of(wire.collections.BindVector(asked("title")))
        wire.embedders[1].failure = EmbedderUnavailable("down")
        other_down = await failure_of(wire.collections.BindVector(asked("title")))
        wire.embedders[1].failure = None
        answer = await wire.collections.BindVector(asked("title", embedder="other"))

        assert "they are as the embedder other makes them" in failure.message
        assert (other_down.reason, "the embedder other" in other_down.message) == ("BINDING_UNPROVEN", False)
        assert answer.collection.vectors[0].space == "other"
    finally:
        await stop_wire(wire)


async def test_fields_that_are_one_input_are_proven_as_such() -> None:
    reader = FakeEmbedder(modalities=frozenset(Modality))

    async def made(number: int) -> StoredObject:
        photo = picture((number, 0, 0))
        (outcome,) = await reader.embed([TextImageInput(f"thing {number}", photo)], DOCUMENT)
        assert isinstance(outcome, Embedding)
        return StoredObject(UUID(int=number), {"title": f"thing {number}"}, {"photo": photo}, {"own": outcome.vector})

    objects = [await made(number) for number in range(1, 13)]
    wire = await start_wire(reader)
    try:
        await fill(wire, lambda number: objects[number - 1])

        one_by_one = await failure_of(wire.collections.BindVector(asked("title", images=("photo",))))
        joint = {"combination": pb.COMBINATION_JOINT_INPUT}
        answer = await wire.collections.BindVector(asked("title", images=("photo",), vector=joint))

        assert one_by_one.reason == "BINDING_UNPROVEN"
        assert answer.proof.matching == 12
        assert answer.collection.vectors[0].combination == pb.COMBINATION_JOINT_INPUT
    finally:
        await stop_wire(wire)


async def test_objects_that_cannot_be_read_or_embedded_are_left_out(wire: Wire) -> None:
    broken = {2: b"no picture", 5: b""}

    def made(number: int) -> StoredObject:
        photo = broken.get(number, picture((number, 0, 0)))
        return StoredObject(UUID(int=number), {}, {"photo": photo}, {"own": FAKE.vector(photo)})

    await fill(wire, made)

    answer = await wire.collections.BindVector(asked(images=("photo",)))

    assert (answer.proof.compared, answer.proof.matching) == (10, 10)


async def test_a_proof_reads_so_many_objects_and_no_more(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(wire, lambda number: titled(number) if number == 15 else bare(number), count=40)

    found = await failure_of(wire.collections.BindVector(asked("title")))
    monkeypatch.setattr(sampling, "MAX_READ", 20)
    missed = await failure_of(wire.collections.BindVector(asked("title")))

    assert (found.metadata["compared"], missed.metadata["compared"]) == ("1", "0")


async def test_large_objects_are_embedded_one_by_one(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BATCH_BYTES", 5)
    await fill(wire)
    wire.embedder.calls.clear()

    await wire.collections.BindVector(asked("title"))

    assert [len(inputs) for inputs, _ in wire.embedder.calls] == [1] * 12


async def test_tenants_are_compared_from_the_first_to_the_last_and_a_few_of_them(wire: Wire) -> None:
    collection = Collection("Plain", PROPERTIES, (OWN,), multi_tenancy=MultiTenancy())
    await wire.store.create_collection(collection)
    names = [f"t{number:02}" for number in range(20)]
    await wire.store.create_tenants("Plain", [Tenant(name) for name in [*names, "z"]])
    for name in names:
        await wire.store.put_objects("Plain", [titled(number) for number in range(1, 13)], Scope(name))
    await wire.store.update_tenants("Plain", [Tenant("z", TenantActivity.INACTIVE)])
    wire.store.scopes.clear()

    answer = await wire.collections.BindVector(asked("title"))

    read = sorted({scope.tenant for scope in wire.store.scopes})
    assert (answer.proof.compared, answer.proof.matching) == (MAX_COMPARED, MAX_COMPARED)
    assert (len(read), read[0] < "t03", read[-1] > "t12") == (MAX_TENANTS, True, True)


@pytest.mark.parametrize("count", [9, 10, 15, 16, 17])
async def test_tenants_after_the_eighth_are_compared_too(wire: Wire, count: int) -> None:
    collection = Collection("Plain", PROPERTIES, (OWN,), multi_tenancy=MultiTenancy())
    await wire.store.create_collection(collection)
    names = [f"t{number:02}" for number in range(count)]
    await wire.store.create_tenants("Plain", [Tenant(name) for name in names])
    for number, name in enumerate(names):
        maker = OTHER if number >= count / 2 else FAKE
        await wire.store.put_objects("Plain", [titled(each, maker) for each in range(1, 7)], Scope(name))

    failure = await failure_of(wire.collections.BindVector(asked("title")))

    assert failure.reason == "BINDING_UNPROVEN"
    assert int(failure.metadata["matching"]) <= 0.65 * int(failure.metadata["compared"])


def test_weights_are_found_from_the_vectors_of_fields() -> None:
    rows = np.random.default_rng(0).standard_normal((12, 2, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    stored = [(0.3 * one + 0.7 * two, [one, two]) for one, two in rows]

    found = fitted_weights(stored)
    unrelated = fitted_weights([(one[::-1].copy(), [one, two]) for one, two in rows])

    assert found is not None
    assert_close(np.array(found), np.array([0.3, 0.7]))
    assert (unrelated, fitted_weights([])) == (None, None)
