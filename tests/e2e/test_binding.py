"""Vectors of another client, bound to the embedder that made them: proven on what is stored, or on trust."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from weaviate import WeaviateAsyncClient
from weaviate.classes.config import Configure
from weaviate.classes.tenants import Tenant, TenantActivityStatus

from embedders.clip import ClipConfig
from embedders.contract import DOCUMENT, Embedding, ImageInput, TextInput
from service.domain import Parameters, Space
from service.errors import StoreRejected
from service.settings import WeaviateSettings
from service.store.weaviate import collections
from service.store.weaviate import collections as weaviate_collections
from tests.conftest import assert_close
from tests.e2e.adopting import (
    MODEL,
    MODULES,
    NONE,
    PROPERTIES,
    VECTOR,
    Beside,
    Make,
    adopting,
    id_of,
    insert,
    unhandled,
    vector_of,
)
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.models import in_process
from tests.fakes.tiny_clip import write_tiny_clip
from tests.service.conftest import failure_of, unpack
from tests.weaviate_versions import needs_removal
from vecgate.client.values import Object
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

# Deprecated by its client, and used all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Dep024:DeprecationWarning")

KINDS: dict[str, dict[str, Any]] = {
    "no name": {"vectorizer_config": NONE},
    "a name": {"vector_config": Configure.Vectors.self_provided(name="default")},
}
PICTURES = Path(__file__).parents[1] / "data" / "pictures"
TITLE = {"text_fields": [{"name": "title"}]}
OTHER = FakeEmbedder(space="other")
TITLES = [f"a thing of number {number}" for number in range(12)]


@pytest.fixture
async def make(weaviate_settings: WeaviateSettings) -> AsyncIterator[Make]:
    async with adopting(weaviate_settings) as made:
        yield made


async def filled(made: Beside, *, first: int = 1) -> None:
    """Store objects as the client that made the collection would, with vectors of their titles."""
    for number, title in enumerate(TITLES, first):
        await made.theirs.data.insert({"title": title}, uuid=UUID(int=number), vector=VECTOR(title).tolist())


async def bind(made: Beside, **fields: Any) -> collection_pb.BindVectorResponse:
    """Bind the collection's vector."""
    vector = {"embedder": "fake", **TITLE, **fields.pop("vector", {})}
    request = {"collection": made.name, "vector": vector, **fields}
    return await made.collections.BindVector(collection_pb.BindVectorRequest(**request))


async def space_of(made: Beside) -> str:
    """Return the space of the collection's only vector."""
    answer = await made.collections.GetCollection(collection_pb.GetCollectionRequest(name=made.name))
    return answer.collection.vectors[0].space


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bound_vector_is_searched_by_words_and_filled(make: Make, kind: str) -> None:
    made = await make(**KINDS[kind])
    await filled(made)

    answer = await bind(made)

    (vector,) = answer.collection.vectors
    assert (vector.name, vector.space, vector.dimension, vector.embedder) == ("default", MODEL, 8, "fake")
    assert [(each.name, each.weight) for each in vector.text_fields] == [("title", 1.0)]
    assert (answer.proof.compared, answer.proof.matching) == (12, 12)
    assert_close(np.array([answer.proof.least_cosine, answer.proof.median_cosine]), np.ones(2))

    near = await made.search(near_text={"concepts": [TITLES[3]]}, limit=1)
    written = await made.write(
        Object({"title": "a cat"}, id=id_of(20)), Object({"title": "a cat"}, id=id_of(1)), Object({}, id=id_of(21))
    )
    await made.update(Object({"title": "a dog"}, id=id_of(2)))
    await made.theirs.data.insert({"title": "a fish"}, uuid=UUID(int=30))
    await made.backfill()
    found = await made.theirs.query.near_vector(VECTOR("a fish").tolist(), limit=1)

    assert [hit.object.id for hit in near.hits] == [id_of(4)]
    assert near.embedder.space == MODEL
    assert [[each.origin for each in result.stored.vectors] for result in written] == [
        [pb.VECTOR_ORIGIN_COMPUTED],
        [pb.VECTOR_ORIGIN_COMPUTED],
        [pb.VECTOR_ORIGIN_MISSING],
    ]
    for number, title in ((20, "a cat"), (1, "a cat"), (2, "a dog"), (30, "a fish")):
        assert_close(np.asarray(vector_of(await made.stored(number))), VECTOR(title))
    assert [each.uuid for each in found.objects] == [UUID(int=30)]


async def test_writes_into_a_bound_collection_keep_what_vecgate_does_not_handle(make: Make) -> None:
    made = await make(**KINDS["no name"])
    await filled(made, first=2)
    await insert(made, 1, [1.0] * 8)
    before = await made.stored(1)
    await bind(made)

    await made.write(Object({"title": "a dog"}, id=id_of(1)))
    imported = await made.stored(1)
    await made.update(Object({"title": "a bird"}, id=id_of(1)))
    updated = await made.stored(1)
    await made.backfill(verify=True)
    backfilled = await made.stored(1)

    for stored in (imported, updated, backfilled):
        assert unhandled(stored) == unhandled(before)
    assert_close(np.asarray(vector_of(imported)), VECTOR("a dog"))
    assert_close(np.asarray(vector_of(backfilled)), VECTOR("a bird"))


async def test_texts_and_pictures_prove_their_weights(make: Make) -> None:
    made = await make(**KINDS["a name"])
    pictures = [picture((number, 100, 200)) for number in range(12)]
    for number, (title, content) in enumerate(zip(TITLES, pictures, strict=True), 1):
        properties = {"title": title, "photo": base64.b64encode(content).decode()}
        mean = 0.25 * VECTOR(title) + 0.75 * VECTOR(content)
        await made.theirs.data.insert(properties, uuid=UUID(int=number), vector=(3 * mean).tolist())

    def fields(title: float, photo: float) -> dict[str, Any]:
        return {
            "text_fields": [{"name": "title", "weight": title}],
            "image_fields": [{"name": "photo", "weight": photo}],
        }

    even = await failure_of(bind(made, vector=fields(0.5, 0.5)))
    title = await failure_of(bind(made))
    proven = await bind(made, vector=fields(0.25, 0.75))

    assert (even.code, even.reason) == (StatusCode.FAILED_PRECONDITION, "BINDING_UNPROVEN")
    assert "weights title=0.25, photo=0.75" in even.message
    assert (even.metadata["compared"], even.metadata["matching"]) == ("12", "0")
    assert title.reason == "BINDING_UNPROVEN"
    assert proven.proof.matching == 12


async def test_objects_are_compared_from_the_oldest_id_to_the_newest(make: Make) -> None:
    made = await make(**KINDS["no name"])
    await filled(made)
    for number, title in enumerate(TITLES, 2**127):
        await made.theirs.data.insert({"title": title}, uuid=UUID(int=number), vector=OTHER.vector(title).tolist())

    failure = await failure_of(bind(made))

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "BINDING_UNPROVEN")
    assert (failure.metadata["compared"], failure.metadata["matching"]) == ("24", "12")
    assert await space_of(made) == ""


async def test_active_tenants_prove_a_binding_for_all(make: Make) -> None:
    made = await make(tenants=True, **KINDS["no name"])
    await made.direct.collections.use(made.name).tenants.create([Tenant(name=name) for name in ("ben", "zoe")])
    for tenant in ("anna", "ben", "zoe"):
        made.scope["tenant"] = tenant
        await filled(made)
    asleep = Tenant(name="ben", activity_status=TenantActivityStatus.INACTIVE)
    await made.direct.collections.use(made.name).tenants.update(asleep)

    answer = await bind(made)

    near = await made.search(near_text={"concepts": [TITLES[3]]}, limit=1)
    tenants = await made.direct.collections.use(made.name).tenants.get()
    assert (answer.proof.compared, answer.proof.matching) == (24, 24)
    assert [hit.object.id for hit in near.hits] == [id_of(4)]
    assert tenants["ben"].activity_status is TenantActivityStatus.INACTIVE


async def test_the_vector_goes_with_the_last_of_its_fields(make: Make) -> None:
    made = await make(**KINDS["no name"])
    await made.direct.collections.delete(made.name)
    await made.direct.collections.create(made.name, properties=PROPERTIES[:1], **KINDS["no name"])
    await filled(made)
    await bind(made)

    answer = await made.update(Object(id=id_of(1)), "properties.title")

    assert [each.origin for each in answer.stored.vectors] == [pb.VECTOR_ORIGIN_MISSING]
    assert vector_of(await made.stored(1)) is None
    assert_close(np.asarray(vector_of(await made.stored(2))), VECTOR(TITLES[1]))


@pytest.mark.parametrize("kind", [*KINDS, *MODULES, "several"])
async def test_only_vectors_that_clients_supply_are_bound(make: Make, kind: str) -> None:
    several = {"vector_config": Configure.MultiVectors.self_provided(name="default")}
    made = await make(**{**KINDS, **MODULES, "several": several}[kind])

    failure = await failure_of(bind(made))

    reason = "BINDING_UNPROVEN" if kind in KINDS else "INVALID_INPUT"
    assert failure.reason == reason
    assert ("multi2vec-nvidia" in failure.message) is (kind in MODULES)
    assert ("several vectors" in failure.message) is (kind == "several")


@needs_removal
async def test_a_removed_vector_takes_its_binding_with_it(make: Make) -> None:
    made = await make(vector_config=[Configure.Vectors.self_provided(name=name) for name in ("one", "two")])
    await bind(made, vector={"name": "one"}, without_proof=True)
    wanted = {"collection": {"name": made.name, "default_vector": "two"}, "removed_vectors": ["one"]}

    await made.collections.UpdateCollection(collection_pb.UpdateCollectionRequest(**wanted))

    schema = (await made.rest.get(f"/v1/schema/{made.name}")).json()
    bindings = {key: each for p in schema["properties"] for key, each in (p.get("moduleConfig") or {}).items()}
    assert (bindings["vecgate-1"]["space"], bindings["vecgate-2"]) == (MODEL, {"vector": "one"})


@needs_removal
async def test_a_binding_ends_before_its_vector_and_returns_if_the_vector_stays(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(vector_config=[Configure.Vectors.self_provided(name=name) for name in ("one", "two")])
    await bind(made, vector={"name": "one"}, without_proof=True)
    spaces = []

    async def refuse(client: WeaviateAsyncClient, method: str, path: str, body: Parameters) -> None:
        if method == "delete":
            spaces.append((await made.collections.GetCollection(request)).collection.vectors[0].space)
            path += "/none"
        await send(client, method, path, body)  # type: ignore[arg-type]

    request = collection_pb.GetCollectionRequest(name=made.name)
    send = weaviate_collections._send_json
    monkeypatch.setattr(weaviate_collections, "_send_json", refuse)
    wanted = {"collection": {"name": made.name, "default_vector": "two"}, "removed_vectors": ["one"]}
    failure = await failure_of(made.collections.UpdateCollection(collection_pb.UpdateCollectionRequest(**wanted)))

    after = (await made.collections.GetCollection(request)).collection.vectors
    assert failure.code is StatusCode.FAILED_PRECONDITION
    assert spaces == [""]
    assert {each.name: each.space for each in after} == {"one": MODEL, "two": ""}


async def test_another_binding_at_the_same_time_is_not_overwritten(make: Make) -> None:
    made = await make(**KINDS["a name"])
    await filled(made)
    outcomes = await asyncio.gather(
        *(bind(made, without_proof=True, vector={"text_fields": fields}) for fields in ([], [{"name": "title"}])),
        return_exceptions=True,
    )

    failed = [unpack(each) for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]

    assert len(failed) == 1
    assert failed[0].reason in ("STORE_REJECTED", "INVALID_INPUT")
    assert await space_of(made) == MODEL


async def test_the_later_of_two_bindings_says_that_another_was_made_meanwhile(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other binding comes between the look at the schema and its change."""
    made = await make(**KINDS["a name"])
    (vector,) = (await made.store.get_collection(made.name)).vectors
    wanted = [replace(vector, space=Space(space, 8, space)) for space in ("first", "second")]
    others = [made.store.bind_vector(made.name, wanted[0])]
    read = collections.read_json

    async def read_late(client: Any, path: str) -> Any:
        schema = await read(client, path)
        if others:
            await others.pop()
        return schema

    monkeypatch.setattr(collections, "read_json", read_late)

    with pytest.raises(StoreRejected, match="bound or removed meanwhile"):
        await made.store.bind_vector(made.name, wanted[1])

    assert await space_of(made) == "first"


@pytest.mark.parametrize("made_by", [12, 0])
async def test_vectors_of_zeros_are_left_out_and_counted(make: Make, made_by: int) -> None:
    """They have no direction: they neither prove nor disprove."""
    made = await make(**KINDS["a name"])
    for number in range(30):
        title = f"thing {number}"
        vector = VECTOR(title) if number < made_by else np.zeros(8)
        await made.theirs.data.insert({"title": title}, uuid=UUID(int=number + 1), vector={"default": vector.tolist()})

    if made_by:
        proof = (await bind(made)).proof
        assert (proof.compared, proof.matching, proof.zeros) == (12, 12, 18)
        return
    failure = await failure_of(bind(made))
    trusted = await bind(made, without_proof=True)
    assert "no stored vector could be compared (30 of zeros were left out)" in failure.message
    assert (trusted.proof.zeros, await space_of(made)) == (30, MODEL)


async def test_the_newest_objects_are_compared_where_ids_follow_the_time(make: Make) -> None:
    """As UUIDs of version 7 do, which all are at one place."""
    made = await make(**KINDS["a name"])
    for number in range(60):
        title, maker = f"thing {number}", VECTOR if number < 40 else OTHER.vector
        timed = UUID(int=(0x019400000000 + number << 80) + (7 << 76) + (2 << 62) + number)
        await made.theirs.data.insert({"title": title}, uuid=timed, vector={"default": maker(title).tolist()})

    failure = await failure_of(bind(made))

    assert failure.reason == "BINDING_UNPROVEN"
    assert (failure.metadata["compared"], failure.metadata["matching"]) == ("40", "20")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_binding_lasts_until_the_collection_is_deleted(make: Make, kind: str) -> None:
    made = await make(**KINDS[kind])
    await filled(made)
    await bind(made)
    schema = (await made.rest.get(f"/v1/schema/{made.name}")).json()
    taken = {**schema, "properties": [{**each, "moduleConfig": {}} for each in schema["properties"]]}

    refused = await made.rest.put(f"/v1/schema/{made.name}", json=taken)
    await made.theirs.config.update(description="changed by its own client")
    await made.collections.UpdateCollection(
        collection_pb.UpdateCollectionRequest(collection={"name": made.name, "description": "changed by Vecgate"})
    )
    kept = await space_of(made)
    await made.direct.collections.delete(made.name)
    await made.direct.collections.create(made.name, **KINDS[kind])

    assert refused.status_code == 422, refused.text
    assert (kept, await space_of(made)) == (MODEL, "")


async def test_a_binding_by_an_alias_is_that_of_its_collection(make: Make) -> None:
    made = await make(**KINDS["no name"])
    await filled(made)
    await made.direct.alias.create(alias_name=f"{made.name}Alias", target_collection=made.name)

    answer = await bind(made, collection=f"{made.name}Alias")

    assert answer.collection.name == made.name
    assert await space_of(made) == MODEL


async def test_the_bundled_model_is_told_from_a_random_one_and_from_other_weights(
    weaviate_settings: WeaviateSettings, tmp_path: Path
) -> None:
    tiny = write_tiny_clip(tmp_path / "tiny", embed_dim=1024)
    bundled = in_process(ClipConfig(device="cpu"))
    random = in_process(ClipConfig(name="random", model=str(tiny), device="cpu"))
    async with beside(weaviate_settings, bundled, random) as (channel, direct):
        name, collections = f"Plain{uuid4().hex}", CollectionServiceStub(channel)
        theirs = await direct.collections.create(name, properties=PROPERTIES[:2], **KINDS["no name"])
        files = sorted(PICTURES.glob("c*.png"))[:12]
        inputs = [each for file in files for each in (TextInput(file.stem), ImageInput(file.read_bytes()))]
        rows = [each.vector for each in await bundled.embed(inputs, DOCUMENT) if isinstance(each, Embedding)]
        for file, title, photo in zip(files, rows[::2], rows[1::2], strict=True):
            properties = {"title": file.stem, "photo": base64.b64encode(file.read_bytes()).decode()}
            await theirs.data.insert(properties, vector=(0.25 * title + 0.75 * photo).tolist())

        async def bind_to(embedder: str, title: float, photo: float) -> collection_pb.BindVectorResponse:
            fields = {
                "text_fields": [{"name": "title", "weight": title}],
                "image_fields": [{"name": "photo", "weight": photo}],
            }
            vector = {"embedder": embedder, **fields}
            return await collections.BindVector(collection_pb.BindVectorRequest(collection=name, vector=vector))

        other = await failure_of(bind_to("random", 0.25, 0.75))
        weights = await failure_of(bind_to("clip", 0.5, 0.5))
        proven = await bind_to("clip", 0.25, 0.75)
        own = search_pb.NearImage(image={"content": files[3].read_bytes()})
        found = await SearchServiceStub(channel).SearchObjects(
            search_pb.SearchObjectsRequest(collection=name, near_image=own, limit=1)
        )

    assert (other.reason, other.metadata["matching"]) == ("BINDING_UNPROVEN", "0")
    assert abs(float(other.metadata["median_cosine"])) < 0.2
    assert "title=0.25, photo=0.75" in weights.message
    assert proven.proof.matching == 12
    assert proven.proof.least_cosine > 0.9999
    assert found.hits[0].object.properties["title"] == files[3].stem
