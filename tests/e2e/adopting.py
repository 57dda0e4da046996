"""Collections that Weaviate's own client makes, with all it offers, beside Vecgate."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import grpc
import httpx
from weaviate import WeaviateAsyncClient
from weaviate.classes.config import Configure, DataType, Property, ReferenceProperty
from weaviate.classes.data import GeoCoordinate, PhoneNumber, ReferenceToMulti
from weaviate.classes.tenants import Tenant

from service.settings import WeaviateSettings
from service.store.weaviate import WeaviateStore
from tests.e2e.beside import beside
from tests.fakes.embedder import FakeEmbedder, picture
from vecgate.client.values import Object, object_to_pb
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

MODEL = "nvidia/nvclip"
BLOB = base64.b64encode(picture()).decode()
UNHANDLED = ("phone", "abroad", "hashes", "by", "many")
FIELDS = {"text_fields": ["title"], "image_fields": ["photo"]}
NONE = Configure.Vectorizer.none()
OWN = Configure.Vectors.self_provided(name="v")
VECTOR = FakeEmbedder(space=MODEL).vector

MODULES: dict[str, dict[str, Any]] = {
    "the module, without a name": {"vectorizer_config": Configure.Vectorizer.multi2vec_nvidia(**FIELDS)},
    "the module": {"vector_config": Configure.Vectors.multi2vec_nvidia(name="default", **FIELDS)},
}


@dataclass
class Beside:
    """A collection of another client's, that client, and Vecgate."""

    name: str
    channel: grpc.aio.Channel
    direct: WeaviateAsyncClient
    rest: httpx.AsyncClient
    store: WeaviateStore
    scope: dict[str, str]

    def __post_init__(self) -> None:
        self.collections = CollectionServiceStub(self.channel)
        self.objects = ObjectServiceStub(self.channel)
        self.searches = SearchServiceStub(self.channel)

    @property
    def theirs(self) -> Any:
        """The collection in the hands of Weaviate's own client."""
        made = self.direct.collections.use(self.name)
        return made.with_tenant(self.scope["tenant"]) if self.scope else made

    async def add_vectors(self, *vectors: Any) -> None:
        """Add named vectors with Weaviate's own client, and wait until the collection takes writes again."""
        await self.theirs.config.add_vector(vector_config=list(vectors))
        async with asyncio.timeout(30):
            while any(each["status"] != "READY" for each in await self._shards()):
                await asyncio.sleep(0.05)

    async def _shards(self) -> Any:
        return (await self.rest.get(f"/v1/schema/{self.name}/shards", params=self.scope)).json()

    async def stored(self, number: int) -> Any:
        """Return an object as Weaviate has it."""
        path = f"/v1/objects/{self.name}/{UUID(int=number)}"
        answer = await self.rest.get(path, params={"include": "vector", **self.scope})
        return answer.json()

    async def write(self, *objects: Object) -> list[pb.ImportResult]:
        """Import objects."""
        request = pb.ImportObjectsRequest(collection=self.name, objects=map(object_to_pb, objects), scope=self.scope)
        return list((await self.objects.ImportObjects(request)).results)

    async def update(self, object_: Object, *mask: str) -> pb.UpdateObjectResponse:
        """Update an object."""
        request = pb.UpdateObjectRequest(
            collection=self.name, object=object_to_pb(object_), update_mask={"paths": mask}, scope=self.scope
        )
        return await self.objects.UpdateObject(request)

    async def backfill(self, *, verify: bool = False) -> list[pb.BackfillVectorsResponse]:
        """Backfill the collection."""
        request = pb.BackfillVectorsRequest(collection=self.name, verify=verify, scope=self.scope)
        return [each async for each in self.objects.BackfillVectors(request)]

    async def search(self, **fields: Any) -> search_pb.SearchObjectsResponse:
        """Search the collection."""
        return await self.searches.SearchObjects(
            search_pb.SearchObjectsRequest(collection=self.name, scope=self.scope, **fields)
        )


Make = Callable[..., Coroutine[Any, Any, Beside]]


@asynccontextmanager
async def adopting(weaviate_settings: WeaviateSettings) -> AsyncIterator[Make]:
    """Give what makes a collection with Weaviate's own client."""
    embedder = FakeEmbedder(model=MODEL, space=MODEL)
    async with _rest(weaviate_settings) as rest, beside(weaviate_settings, embedder) as (channel, direct):
        store = WeaviateStore(weaviate_settings)
        await store.start()

        async def made(*, tenants: bool = False, **vector: Any) -> Beside:
            name = f"Adopted{uuid4().hex}"
            await direct.collections.create(f"{name}Other", vector_config=OWN)
            collection = await direct.collections.create(
                name,
                properties=PROPERTIES,
                references=[
                    ReferenceProperty(name="by", target_collection=f"{name}Other"),
                    ReferenceProperty.MultiTarget(name="many", target_collections=[f"{name}Other", name]),
                ],
                multi_tenancy_config=Configure.multi_tenancy(enabled=True) if tenants else None,
                generative_config=Configure.Generative.openai(model="some"),
                **vector,
            )
            if tenants:
                await collection.tenants.create([Tenant(name="anna")])
            return Beside(name, channel, direct, rest, store, {"tenant": "anna"} if tenants else {})

        yield made
        await store.close()


PROPERTIES = [
    Property(name="title", data_type=DataType.TEXT),
    Property(name="photo", data_type=DataType.BLOB),
    Property(name="words", data_type=DataType.TEXT_ARRAY),
    Property(name="place", data_type=DataType.GEO_COORDINATES),
    Property(name="phone", data_type=DataType.PHONE_NUMBER),
    Property(name="abroad", data_type=DataType.PHONE_NUMBER),
    Property(name="hash", data_type=DataType.BLOB_HASH),
    Property(
        name="hashes",
        data_type=DataType.OBJECT_ARRAY,
        nested_properties=[
            Property(name="of", data_type=DataType.BLOB_HASH),
            Property(name="what", data_type=DataType.TEXT),
        ],
    ),
]
EVERYTHING = {
    "title": "a cat",
    "photo": BLOB,
    "words": ["x", "y"],
    "place": GeoCoordinate(latitude=52.5, longitude=13.25),
    "phone": PhoneNumber(number="0171 1234567", default_country="DE"),
    "abroad": PhoneNumber(number="+44 20 7946 0958"),
    "hash": BLOB,
    "hashes": [{"of": BLOB, "what": "one"}, {"of": BLOB, "what": "two"}],
}


@asynccontextmanager
async def _rest(settings: WeaviateSettings) -> AsyncIterator[httpx.AsyncClient]:
    assert settings.api_key is not None
    headers = {"authorization": f"Bearer {settings.api_key.get_secret_value()}"}
    async with httpx.AsyncClient(base_url=settings.http_url, headers=headers, timeout=30) as rest:
        yield rest


async def insert(made: Beside, number: int, vector: list[float]) -> None:
    """Store an object with all that there is."""
    other = made.direct.collections.use(f"{made.name}Other")
    ids = [await other.data.insert({}, vector={"v": [1, 0]}) for _ in range(3)]
    references = {"by": ids[:2], "many": ReferenceToMulti(target_collection=f"{made.name}Other", uuids=ids[2])}
    if made.scope:
        # Weaviate lets those of tenants refer to others of theirs, and to what has no tenants.
        del references["many"]
    await made.theirs.data.insert(EVERYTHING, uuid=UUID(int=number), vector=vector, references=references)


def unhandled(stored: Any) -> dict[str, Any]:
    """Return the values of an object that Vecgate does not handle."""
    return {name: value for name, value in stored["properties"].items() if name in UNHANDLED}


def vector_of(stored: Any) -> Any:
    """Return the vector of an object, whether it has a name or not."""
    return stored.get("vector") or (stored.get("vectors") or {}).get("default")


def id_of(number: int) -> str:
    """Return the id of a number."""
    return str(UUID(int=number))
