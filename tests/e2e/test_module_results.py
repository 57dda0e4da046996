"""Searches through Vecgate beside the same ones through Weaviate's multi2vec-nvidia, on one Weaviate with one NIM."""

import base64
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from weaviate import WeaviateAsyncClient, use_async_with_local
from weaviate.classes.config import Configure, DataType, Multi2VecField, Property, VectorDistances
from weaviate.classes.init import Auth
from weaviate.classes.query import HybridFusion, MetadataQuery
from weaviate.classes.query import Move as TheirMove
from weaviate.collections.classes.internal import QueryReturn

from embedders.contract import DOCUMENT, Embedding, TextInput
from embedders.nim.embedder import NimConfig, NimEmbedder
from service import domain
from service.core.embedder_pool import EmbedderPool
from service.core.searching.searcher import Searcher
from service.domain import Fusion
from service.rpc.search.request import parse_search
from service.rpc.shared.bounds import RequestLimits
from service.settings import LimitSettings, WeaviateSettings, read_secret
from service.store.weaviate import WeaviateStore
from tests.conftest import assert_close
from tests.fakes.embedder import picture, watched
from tests.fakes.nim import FakeNim
from vecgate.client import move, near_text
from vecgate.v1 import search_service_pb2 as pb

TITLES = [f"{colour} {thing}" for colour in ("red", "green", "blue") for thing in ("car", "dog", "hat", "tree")]
IDS = [UUID(int=number + 1) for number in range(len(TITLES))]
LIMITS = RequestLimits.of(LimitSettings())
RED = picture((255, 0, 0))

Found = list[tuple[UUID, float | None]]


class Sides:
    """The same vectors in two collections, one of Vecgate's and one of the module's; one NIM embeds for both.

    Vecgate searches the module's as well, adopted.
    """

    def __init__(self, name: str, searcher: Searcher, client: WeaviateAsyncClient) -> None:
        self.name = name
        self.searcher = searcher
        self.client = client

    async def ours(self, *, adopted: bool = False, **query: object) -> Found:
        """Search through Vecgate."""
        collection = f"{'Theirs' if adopted else 'Ours'}{self.name}"
        request = pb.SearchObjectsRequest(
            collection=collection,
            limit=len(IDS),
            target_vectors=["title"],
            **query,  # type: ignore[arg-type]
        )
        found = await self.searcher.search(parse_search(request, LIMITS))
        return [(hit.object.id, hit.distance if hit.score is None else hit.score) for hit in found.hits]

    async def theirs(self, method: str, **arguments: Any) -> Found:
        """Search through Weaviate's own client and its module."""
        query = self.client.collections.use(f"Theirs{self.name}").query
        found: QueryReturn[Any, Any] = await getattr(query, method)(
            **arguments,
            target_vector="title",
            limit=len(IDS),
            return_metadata=MetadataQuery(distance=method != "hybrid", score=method == "hybrid"),
        )
        return [
            (each.uuid, each.metadata.score if method == "hybrid" else each.metadata.distance) for each in found.objects
        ]


@pytest.fixture
def distance(request: pytest.FixtureRequest) -> VectorDistances:
    """Return the distance of both collections; a test may choose another."""
    return getattr(request, "param", VectorDistances.COSINE)


@pytest.fixture
async def sides(weaviate_settings: WeaviateSettings, distance: VectorDistances) -> AsyncIterator[Sides]:
    name = uuid4().hex
    store = WeaviateStore(weaviate_settings)
    key = read_secret(weaviate_settings.api_key, weaviate_settings.api_key_file)
    client = use_async_with_local(
        host=weaviate_settings.http.host,
        port=weaviate_settings.http.port,
        grpc_port=weaviate_settings.grpc.port,
        auth_credentials=Auth.api_key(key) if key else None,
        headers={"X-Nvidia-Api-Key": "none"},
        skip_init_checks=True,
    )
    async with FakeNim(path="/nim", floats=True) as nim, client:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, model=nim.model))
        pool = EmbedderPool([watched(embedder)], check_interval_s=60)
        await pool.start()
        await pool.first_checks()
        await store.start()
        outcomes = await embedder.embed([TextInput(title) for title in TITLES], DOCUMENT)
        vectors = [outcome.vector for outcome in outcomes if isinstance(outcome, Embedding)]
        space = domain.Space(embedder.spec.space, nim.dimension, nim.model)
        title = domain.Property("title", domain.DataType.TEXT)
        named = domain.NamedVector(
            "title", space, text_fields=(domain.WeightedField("title"),), distance=domain.Distance(distance.value)
        )
        await store.create_collection(domain.Collection(f"Ours{name}", (title,), (named,)))
        await client.collections.create(
            f"Theirs{name}",
            properties=[
                Property(name="title", data_type=DataType.TEXT),
                Property(name="picture", data_type=DataType.BLOB),
            ],
            vector_config=[
                Configure.Vectors.multi2vec_nvidia(
                    name="title",
                    base_url=nim.base_url,
                    model=nim.model,
                    text_fields=[Multi2VecField(name="title")],
                    image_fields=[Multi2VecField(name="picture")],
                    vector_index_config=Configure.VectorIndex.hnsw(distance_metric=distance),
                )
            ],
        )
        objects = [
            domain.StoredObject(id_, {"title": title}, vectors={"title": vector})
            for id_, title, vector in zip(IDS, TITLES, vectors, strict=True)
        ]
        for collection in (f"Ours{name}", f"Theirs{name}"):
            assert await store.put_objects(collection, objects) == [None] * len(objects)
        yield Sides(name, Searcher(store, pool), client)
        await pool.close()
        await store.close()


def assert_same(ours: Found, theirs: Found) -> None:
    assert len(theirs) == len(IDS)
    assert [id_ for id_, _ in ours] == [id_ for id_, _ in theirs]
    assert_close([measured for _, measured in ours], [measured for _, measured in theirs])


MOVES: dict[str, Sequence[pb.Move | None]] = {
    "none": (None, None),
    "to": (move(0.7, "a boat", "red dog"), None),
    "away": (None, move(1.5, "a boat", objects=IDS[2])),
    "both": (move(1.0, "a boat", "a hat", objects=(IDS[0], IDS[5])), move(0.5, objects=(IDS[7], IDS[8]))),
    "no force": (move(0.0, "a boat"), None),
}


@pytest.mark.parametrize("case", MOVES)
async def test_near_text_with_moves_finds_what_the_module_finds(sides: Sides, case: str) -> None:
    concepts = ("a red car", "something green")
    to, away = MOVES[case]

    ours = await sides.ours(near_text=near_text(*concepts, move_to=to, move_away=away))
    theirs = await sides.theirs("near_text", query=list(concepts), move_to=_theirs(to), move_away=_theirs(away))

    assert_same(ours, theirs)


@pytest.mark.parametrize("distance", [VectorDistances.DOT, VectorDistances.L2_SQUARED], indirect=True)
@pytest.mark.parametrize("case", MOVES)
async def test_near_text_on_an_adopted_vector_measures_what_the_module_measures(sides: Sides, case: str) -> None:
    # The length of the query is part of these distances.
    to, away = MOVES[case]
    for concepts in (("a red car",), ("a red car", "something green")):
        ours = await sides.ours(near_text=near_text(*concepts, move_to=to, move_away=away), adopted=True)
        theirs = await sides.theirs("near_text", query=list(concepts), move_to=_theirs(to), move_away=_theirs(away))

        assert_same(ours, theirs)


def _theirs(given: pb.Move | None) -> TheirMove | None:
    if given is None:
        return None
    return TheirMove(given.force, objects=list(given.objects) or None, concepts=list(given.concepts) or None)


async def test_near_image_finds_what_the_module_finds(sides: Sides) -> None:
    ours = await sides.ours(near_image={"image": {"content": RED}})
    theirs = await sides.theirs("near_image", near_image=base64.b64encode(RED).decode())

    assert_same(ours, theirs)


@pytest.mark.parametrize("fusion", Fusion)
async def test_hybrid_scores_as_the_module_does(sides: Sides, fusion: Fusion) -> None:
    ours = await sides.ours(hybrid={"bm25": {"query": "a red car"}, "alpha": 0.6, "fusion_type": fusion.value})
    theirs = await sides.theirs("hybrid", query="a red car", alpha=0.6, fusion_type=HybridFusion[fusion.name])

    assert_same(ours, theirs)
