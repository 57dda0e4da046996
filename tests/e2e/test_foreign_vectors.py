"""Vectors beside those that Vecgate makes, of no known space or several for an object: every write keeps them."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode
from weaviate.classes.config import Configure

from service.core.objects.writing import Settler, Writes, keys_of
from service.domain import Scope
from service.settings import WeaviateSettings
from tests.conftest import assert_close
from tests.e2e.adopting import FIELDS, VECTOR, Beside, Make, adopting, id_of
from tests.service.conftest import failure_of
from vecgate.client.values import Object
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb

OWN = Configure.Vectors.self_provided(name="own")
SEVERAL = Configure.MultiVectors.self_provided(name="several")
FOREIGN = {"own": [1.0, 2.0], "several": [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]}


@pytest.fixture
async def make(weaviate_settings: WeaviateSettings) -> AsyncIterator[Make]:
    async with adopting(weaviate_settings) as made:
        yield made


@pytest.fixture
async def made(make: Make) -> Beside:
    """Return a collection of the module's vector and of two others, with an object that has all."""
    made = await make(vector_config=[Configure.Vectors.multi2vec_nvidia(name="default", **FIELDS), OWN, SEVERAL])
    await made.theirs.data.insert({"title": "a cat"}, uuid=UUID(int=1), vector={"default": [1.0] * 8, **FOREIGN})
    return made


def foreign(stored: Any) -> dict[str, Any]:
    """Return the vectors of an object that Vecgate does not make."""
    return {name: vector for name, vector in stored["vectors"].items() if name != "default"}


async def test_every_write_keeps_vectors_that_vecgate_does_not_make(made: Beside) -> None:
    writes: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "an update": lambda: made.update(Object({"title": "a dog"}, id=id_of(1))),
        "an import over it": lambda: made.write(Object({"title": "a fish"}, id=id_of(1))),
        "the same import": lambda: made.write(Object({"title": "a fish"}, id=id_of(1))),
        "an import of a vector": lambda: made.write(
            Object({"title": "a bird"}, vectors={"default": np.arange(1, 9)}, id=id_of(1))
        ),
        "a backfill": lambda: made.backfill(verify=True),
    }

    for what, write in writes.items():
        answer = await write()

        if isinstance(answer, list) and isinstance(answer[0], pb.ImportResult):
            assert [each.WhichOneof("outcome") for each in answer] == ["stored"], (what, answer)
        assert foreign(await made.stored(1)) == FOREIGN, what


async def test_an_object_gets_the_vectors_of_known_spaces_alone(made: Beside) -> None:
    new, own = await made.write(
        Object({"title": "a dog"}, id=id_of(2)), Object({"title": "a fish"}, vectors={"own": [1, 2]}, id=id_of(3))
    )

    stored = await made.stored(2)
    assert [(each.name, each.origin) for each in new.stored.vectors] == [("default", pb.VECTOR_ORIGIN_COMPUTED)]
    assert stored["vectors"].keys() == {"default"}
    assert_close(stored["vectors"]["default"], VECTOR("a dog"))
    assert "'own'" in own.error.message
    assert [page.seen for page in await made.backfill()] == [2]


async def test_a_vector_that_goes_leaves_the_others(make: Make) -> None:
    made = await make(vector_config=OWN)
    await made.direct.collections.delete(made.name)
    wanted = collection_pb.Collection(
        name=made.name,
        properties=[{"name": "title", "data_type": "DATA_TYPE_TEXT"}, {"name": "note", "data_type": "DATA_TYPE_TEXT"}],
        vectors=[
            {"name": "default", "text_fields": [{"name": "title"}]},
            {"name": "notes", "text_fields": [{"name": "note"}]},
        ],
    )
    await made.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))
    await made.add_vectors(OWN, SEVERAL)
    await made.write(Object({"title": "a cat", "note": "grey"}, id=id_of(1)))
    await made.theirs.data.update(UUID(int=1), vector=FOREIGN)

    await made.update(Object(id=id_of(1)), "properties.note")
    updated = (await made.stored(1))["vectors"]
    await made.write(Object({"note": "brown"}, id=id_of(1)))
    imported = (await made.stored(1))["vectors"]

    assert (updated.keys(), imported.keys()) == ({"default", *FOREIGN}, {"notes", *FOREIGN})
    assert {name: imported[name] for name in FOREIGN} == {name: updated[name] for name in FOREIGN} == FOREIGN


async def test_several_vectors_of_an_object_are_not_returned_as_one(made: Beside) -> None:
    request = pb.GetObjectRequest(collection=made.name, id=id_of(1), output={"vectors": ["own", "several"]})

    failure = await failure_of(made.objects.GetObject(request))
    near = await made.search(near_object={"id": id_of(1)}, target_vectors=["several"])

    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, ["output.vectors[1]"])
    assert "several vectors" in failure.message
    assert [hit.object.id for hit in near.hits] == [id_of(1)]


async def test_a_failed_write_is_settled_beside_several_vectors_of_an_object(made: Beside) -> None:
    writes = Writes()
    keys = keys_of(made.name, Scope(), [UUID(int=1)])

    async def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await writes.run(keys, fail)
    await Settler(made.store, writes)._settle(keys)

    assert foreign(await made.stored(1)) == FOREIGN
