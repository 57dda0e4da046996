"""Images of which a real Weaviate keeps only the hash, and every write that could spoil it."""

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from service.settings import WeaviateSettings
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import failure_of, unpack
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

RED, BLUE = picture((255, 0, 0)), picture((0, 0, 255))
ID = str(UUID(int=1))
COMPUTED, KEPT = pb.VECTOR_ORIGIN_COMPUTED, pb.VECTOR_ORIGIN_KEPT
NOWHERE = "http://127.0.0.1:9"


class Hashed:
    """A collection with an image of which the hash is kept, and calls on it."""

    def __init__(
        self, name: str, collections: CollectionServiceStub, objects: ObjectServiceStub, searches: SearchServiceStub
    ) -> None:
        self.name = name
        self.collections = collections
        self.objects = objects
        self.searches = searches

    async def import_(self, image: bytes, **properties: object) -> dict[str, pb.VectorOrigin.ValueType]:
        """Import the object, and return where its vectors come from."""
        object_ = pb.DataObject(id=ID, properties=properties, images={"photo": {"content": image}})
        answer = await self.objects.ImportObjects(pb.ImportObjectsRequest(collection=self.name, objects=[object_]))
        return {each.name: each.origin for each in answer.results[0].stored.vectors}

    async def update(self, *mask: str, **values: object) -> dict[str, pb.VectorOrigin.ValueType]:
        """Update the object, and return where its vectors come from."""
        change = pb.DataObject(id=ID, **values)
        request = pb.UpdateObjectRequest(collection=self.name, object=change, update_mask={"paths": mask})
        answer = await self.objects.UpdateObject(request)
        return {each.name: each.origin for each in answer.stored.vectors}

    async def hash(self) -> object:
        """Return the hash that is stored, or None."""
        request = pb.GetObjectRequest(collection=self.name, id=ID, output={"properties": ["photo"]})
        return dict((await self.objects.GetObject(request)).object.properties).get("photo")

    async def backfill(self, *, verify: bool = False) -> list[pb.BackfillVectorsResponse]:
        request = pb.BackfillVectorsRequest(collection=self.name, verify=verify)
        return [each async for each in self.objects.BackfillVectors(request)]

    async def nearest(self, image: bytes, vector: str) -> float:
        """Return the distance of the object to an image."""
        request = search_pb.SearchObjectsRequest(
            collection=self.name, near_image={"image": {"content": image}}, target_vectors=[vector]
        )
        return (await self.searches.SearchObjects(request)).hits[0].distance


@pytest.fixture
async def hashed(weaviate_settings: WeaviateSettings) -> AsyncIterator[Hashed]:
    """A collection with the vectors looks, which is native, words and both."""
    async with beside(weaviate_settings, FakeEmbedder(), FakeEmbedder(name="other", space="other")) as (channel, _):
        made = Hashed(
            f"Hashed{uuid4().hex}",
            CollectionServiceStub(channel),
            ObjectServiceStub(channel),
            SearchServiceStub(channel),
        )
        photo, title = [{"name": "photo"}], [{"name": "title"}]
        wanted = collection_pb.Collection(
            name=made.name,
            properties=[
                {"name": "photo", "data_type": "DATA_TYPE_BLOB_HASH"},
                {"name": "title", "data_type": "DATA_TYPE_TEXT"},
                {"name": "year", "data_type": "DATA_TYPE_INT"},
            ],
            vectors=[
                # Weaviate's module must never be asked.
                {"name": "looks", "image_fields": photo, "native": True, "base_url": NOWHERE},
                {"name": "words", "text_fields": title},
                {"name": "both", "image_fields": photo, "text_fields": title},
            ],
        )
        await made.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=wanted))
        yield made


def hash_of(content: bytes) -> str:
    return hashlib.sha256(b64encode(content)).hexdigest()


async def test_writes_keep_the_hash_and_vectors_follow_the_image(hashed: Hashed) -> None:
    assert set((await hashed.import_(RED, title="a")).values()) == {COMPUTED}
    assert await hashed.nearest(RED, "looks") == pytest.approx(0, abs=1e-5)

    assert set((await hashed.import_(RED, title="a")).values()) == {KEPT}
    assert set((await hashed.update(properties={"year": 2026})).values()) == {KEPT}
    assert set((await hashed.update(images={"photo": {"content": RED}})).values()) == {KEPT}
    await hashed.backfill(verify=True)
    assert await hashed.hash() == hash_of(RED)

    changed = await hashed.update(images={"photo": {"content": BLUE}})
    assert changed == {"looks": COMPUTED, "words": KEPT, "both": COMPUTED}
    assert await hashed.hash() == hash_of(BLUE)
    assert await hashed.nearest(BLUE, "looks") == pytest.approx(0, abs=1e-5)


async def test_what_needs_the_image_says_so_and_spoils_nothing(hashed: Hashed) -> None:
    await hashed.import_(RED, title="a")

    changing = await failure_of(hashed.update(properties={"title": "b"}))
    clearing = await failure_of(hashed.update("properties.title"))
    assert [(each.reason, each.metadata["vector"]) for each in (changing, clearing)] == [
        ("IMAGE_NOT_STORED", "both")
    ] * 2
    assert await hashed.hash() == hash_of(RED)

    cleared = await hashed.update("properties.title", "images.photo", images={"photo": {"content": RED}})
    assert cleared == {"looks": KEPT, "words": pb.VECTOR_ORIGIN_MISSING, "both": COMPUTED}
    assert await hashed.hash() == hash_of(RED)


async def test_another_model_gets_the_image_again(hashed: Hashed) -> None:
    await hashed.import_(RED, title="a")
    vectors = [
        {"name": "new_looks", "embedder": "other", "image_fields": [{"name": "photo"}]},
        {"name": "new_words", "embedder": "other", "text_fields": [{"name": "title"}]},
    ]
    change = collection_pb.Collection(name=hashed.name, vectors=vectors)
    await hashed.collections.UpdateCollection(collection_pb.UpdateCollectionRequest(collection=change))

    (page,) = await hashed.backfill()
    origins = await hashed.import_(RED, title="a")
    (after,) = await hashed.backfill()

    assert (page.filled, [unpack(each.error).reason for each in page.failures]) == (1, ["IMAGE_NOT_STORED"])
    assert origins == {"new_looks": COMPUTED, **dict.fromkeys(("looks", "words", "both", "new_words"), KEPT)}
    assert (after.filled, list(after.failures)) == (0, [])
    assert await hashed.nearest(RED, "new_looks") == pytest.approx(0, abs=1e-5)
    assert await hashed.hash() == hash_of(RED)


async def test_hits_are_grouped_by_the_same_image(hashed: Hashed) -> None:
    objects = [
        {"properties": {"title": f"t{number}"}, "images": {"photo": {"content": image}}}
        for number, image in enumerate((RED, BLUE, RED))
    ]
    await hashed.objects.ImportObjects(pb.ImportObjectsRequest(collection=hashed.name, objects=objects))
    request = search_pb.SearchObjectsRequest(
        collection=hashed.name,
        near_text={"concepts": ["t1"]},
        target_vectors=["words"],
        group_by={"property": "photo", "number_of_groups": 5, "objects_per_group": 5},
    )

    groups = (await hashed.searches.SearchObjects(request)).groups

    assert {each.name: each.object_count for each in groups} == {hash_of(RED): 2, hash_of(BLUE): 1}
