"""Vectors of which nothing says from which model they are, with a name and without: searched and kept, never made."""

from collections.abc import AsyncIterator, Coroutine
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode
from weaviate.classes.config import Configure
from weaviate.classes.query import MetadataQuery

from service.settings import WeaviateSettings
from tests.conftest import assert_close
from tests.e2e.adopting import NONE, OWN, Beside, Make, adopting, id_of, vector_of
from tests.fakes.embedder import picture
from tests.service.conftest import failure_of
from vecgate.client.values import Object, decode_vector
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb

# Deprecated by its client, and used all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Dep024:DeprecationWarning")


@pytest.fixture
async def make(weaviate_settings: WeaviateSettings) -> AsyncIterator[Make]:
    async with adopting(weaviate_settings) as made:
        yield made


@pytest.fixture(params=["no name", "a name"])
async def plain(request: pytest.FixtureRequest, make: Make) -> Beside:
    """Return a collection of somebody's own vectors, of which nothing says from which model they are."""
    own = {"vector_config": Configure.Vectors.self_provided(name="default")}
    made = await make(**({"vectorizer_config": NONE} if request.param == "no name" else own))
    rows = np.eye(3, dtype=np.float32)
    for number, (title, row) in enumerate(zip(("a cat", "a dog", "a fish"), rows.tolist(), strict=True), 1):
        await made.theirs.data.insert({"title": title}, uuid=UUID(int=number), vector=row)
    return made


async def test_a_collection_of_unknown_vectors_is_read_and_searched_by_vectors(plain: Beside) -> None:
    row = search_pb.NearVector(vector={"data": np.array([0.1, 1, 0], "<f4").tobytes()})
    config = (await plain.collections.GetCollection(collection_pb.GetCollectionRequest(name=plain.name))).collection
    request = pb.GetObjectRequest(collection=plain.name, id=id_of(2), output={"vectors": ["default"]})
    got = (await plain.objects.GetObject(request)).object
    listed = await plain.objects.ListObjects(
        pb.ListObjectsRequest(collection=plain.name, output={"vectors": ["default"]})
    )
    answers = {
        "near_vector": await plain.search(near_vector=row, output={"vectors": ["default"]}),
        "by its name": await plain.search(near_vector=row, target_vectors=["default"]),
        "near_inputs": await plain.search(near_inputs={"inputs": [{"near_vector": row}]}),
        "near_object": await plain.search(near_object={"id": id_of(2)}),
        "hybrid": await plain.search(hybrid={"near_vector": row, "bm25": {"query": "dog"}}),
        "bm25": await plain.search(bm25={"query": "dog"}),
    }
    theirs = await plain.theirs.query.near_vector([0.1, 1, 0], return_metadata=MetadataQuery(distance=True))

    assert ([each.name for each in config.vectors], config.vectors[0].space) == (["default"], "")
    assert (config.default_vector, config.object_count) == ("default", 3)
    assert_close(decode_vector(got.vectors["default"]), np.array([0, 1, 0], np.float32))
    assert [decode_vector(each.vectors["default"]).argmax() for each in listed.objects] == [0, 1, 2]
    assert {name: answer.hits[0].object.id for name, answer in answers.items()} == dict.fromkeys(answers, id_of(2))
    assert_close([hit.distance for hit in answers["near_vector"].hits], [o.metadata.distance for o in theirs.objects])
    assert_close(decode_vector(answers["near_vector"].hits[0].object.vectors["default"]), np.array([0, 1, 0]))


async def test_what_needs_the_model_of_unknown_vectors_is_refused_by_name_and_changes_nothing(plain: Beside) -> None:
    before = [await plain.stored(number) for number in (1, 2, 3)]
    refused: dict[str, Coroutine[Any, Any, Any]] = {
        "near_text": plain.search(near_text={"concepts": ["a dog"]}),
        "near_image": plain.search(near_image={"image": {"content": picture()}}),
        "near_inputs": plain.search(near_inputs={"inputs": [{"text": "a dog"}]}),
        "hybrid": plain.search(hybrid={"bm25": {"query": "dog"}}),
        "hybrid of texts": plain.search(hybrid={"near_text": {"concepts": ["dog"]}}),
        "import over": plain.write(Object({"title": "new"}, id=id_of(1))),
        "import": plain.write(Object({"title": "new"}, id=id_of(9))),
        "import of a vector": plain.write(Object({"title": "new"}, id=id_of(9), vectors={"default": [1, 2, 3]})),
        "update of a vector": plain.update(Object({}, id=id_of(1), vectors={"default": [1, 2, 3]})),
        "backfill": plain.backfill(),
        "backfill and verify": plain.backfill(verify=True),
    }
    for what, call in refused.items():
        failure = await failure_of(call)

        assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "COLLECTION_NOT_BOUND"), what
        assert "'default'" in failure.message, what
        assert "CreateCollection" in failure.message, what
    assert [await plain.stored(number) for number in (1, 2, 3)] == before
    listing = pb.ListObjectsRequest(collection=plain.name, scope=plain.scope)
    assert len((await plain.objects.ListObjects(listing)).objects) == 3


async def test_an_update_of_an_object_keeps_its_vector_of_an_unknown_model(plain: Beside) -> None:
    before = vector_of(await plain.stored(1))

    answer = await plain.update(Object({"title": "another cat"}, id=id_of(1)))

    after = await plain.stored(1)
    assert (after["properties"]["title"], vector_of(after)) == ("another cat", before)
    assert list(answer.stored.vectors) == []


async def test_no_named_vector_is_put_beside_one_without_a_name(
    make: Make,
) -> None:
    made = await make(vectorizer_config=NONE)
    vector = collection_pb.VectorConfig(name="other", text_fields=[{"name": "title"}])
    wanted = collection_pb.Collection(name=made.name, vectors=[vector])

    failure = await failure_of(
        made.collections.UpdateCollection(collection_pb.UpdateCollectionRequest(collection=wanted))
    )

    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, ["collection.vectors[0]"])
    assert "without a name" in failure.message
    assert "vectorConfig" not in (await made.rest.get(f"/v1/schema/{made.name}")).json()


async def test_a_vector_without_a_name_and_named_ones_beside_it_are_told_apart(
    make: Make,
) -> None:
    made = await make(vectorizer_config=NONE)
    await made.add_vectors(OWN)
    vectors = {"default": [1.0, 0, 0], "v": [0.0, 1]}
    await made.theirs.data.insert({"title": "a cat"}, uuid=UUID(int=1), vector=vectors)
    await made.theirs.data.insert({"title": "a dog"}, uuid=UUID(int=2), vector={"default": [0.0, 1, 0]})

    def near(*values: float) -> search_pb.NearVector:
        return search_pb.NearVector(vector={"data": np.array(values, "<f4").tobytes()})

    nobody = await failure_of(made.search(near_vector=near(1, 0, 0)))
    nameless = await made.search(
        near_vector=near(0, 1, 0), target_vectors=["default"], output={"vectors": ["default", "v"]}
    )
    named = await made.search(near_vector=near(0, 1), target_vectors=["v"], output={"vectors": ["v"]})
    both = await failure_of(made.search(near_object={"id": id_of(1)}, target_vectors=["default", "v"]))

    assert "default, v" in nobody.message
    assert [hit.object.id for hit in nameless.hits] == [id_of(2), id_of(1)]
    assert [sorted(hit.object.vectors) for hit in nameless.hits] == [["default"], ["default", "v"]]
    assert [(hit.object.id, sorted(hit.object.vectors)) for hit in named.hits] == [(id_of(1), ["v"])]
    assert (both.code, both.fields) == (StatusCode.INVALID_ARGUMENT, ["target_vectors"])
