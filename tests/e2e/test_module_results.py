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
from service.core.searching import Hybrid, Move, NearImage, NearText, Query, ReturnNames, Searcher, TargetChoice
from service.domain import Blend, Fusion, Keywords
from service.settings import WeaviateSettings, read_secret
from service.store.weaviate import WeaviateStore
from tests.conftest import assert_close
from tests.fakes.embedder import picture, watched
from tests.fakes.nim import FakeNim

TITLES = [f"{colour} {thing}" for colour in ("red", "green", "blue") for thing in ("car", "dog", "hat", "tree")]
IDS = [UUID(int=number + 1) for number in range(len(TITLES))]
TITLE = TargetChoice(("title",))
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

    async def ours(self, query: Query, *, adopted: bool = False) -> Found:
        """Search through Vecgate."""
        found = await self.searcher.search(
            f"{'Theirs' if adopted else 'Ours'}{self.name}",
            query,
            targets=TargetChoice(("title",)),
            limit=len(IDS),
            offset=0,
            returned=ReturnNames(),
        )
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
        host=weaviate_settings.http_host,
        port=weaviate_settings.http_port,
        grpc_port=weaviate_settings.grpc_port,
        auth_credentials=Auth.api_key(key) if key else None,
        headers={"X-Nvidia-Api-Key": "none"},
        skip_init_checks=True,
    )
    async with FakeNim(path="/nim", floats=True) as nim, client:
        embedder = NimEmbedder(NimConfig(base_url=nim.base_url, model=nim.model, dimension=nim.dimension))
        pool = EmbedderPool([watched(embedder)], check_interval_s=60)
        await pool.start()
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


MOVES: dict[str, Sequence[Move | None]] = {
    "none": (None, None),
    "to": (Move(0.7, ("a boat", "red dog")), None),
    "away": (None, Move(1.5, ("a boat",), (IDS[2],))),
    "both": (Move(1.0, ("a boat", "a hat"), (IDS[0], IDS[5])), Move(0.5, (), (IDS[7], IDS[8]))),
    "no force": (Move(0.0, ("a boat",)), None),
}


@pytest.mark.parametrize("case", MOVES)
async def test_near_text_with_moves_finds_what_the_module_finds(sides: Sides, case: str) -> None:
    concepts = ("a red car", "something green")
    to, away = MOVES[case]

    ours = await sides.ours(NearText(concepts, move_to=to, move_away=away))
    theirs = await sides.theirs("near_text", query=list(concepts), move_to=_theirs(to), move_away=_theirs(away))

    assert_same(ours, theirs)


@pytest.mark.parametrize("distance", [VectorDistances.DOT, VectorDistances.L2_SQUARED], indirect=True)
@pytest.mark.parametrize("case", MOVES)
async def test_near_text_on_an_adopted_vector_measures_what_the_module_measures(sides: Sides, case: str) -> None:
    # The length of the query is part of these distances.
    to, away = MOVES[case]
    for concepts in (("a red car",), ("a red car", "something green")):
        ours = await sides.ours(NearText(concepts, move_to=to, move_away=away), adopted=True)
        theirs = await sides.theirs("near_text", query=list(concepts), move_to=_theirs(to), move_away=_theirs(away))

        assert_same(ours, theirs)


def _theirs(move: Move | None) -> TheirMove | None:
    if move is None:
        return None
    return TheirMove(move.force, objects=list(move.objects) or None, concepts=list(move.concepts) or None)


async def test_near_image_finds_what_the_module_finds(sides: Sides) -> None:
    ours = await sides.ours(NearImage(RED))
    theirs = await sides.theirs("near_image", near_image=base64.b64encode(RED).decode())

    assert_same(ours, theirs)


@pytest.mark.parametrize("fusion", Fusion)
async def test_hybrid_scores_as_the_module_does(sides: Sides, fusion: Fusion) -> None:
    blend = Blend(Keywords("a red car"), 0.6, fusion)

    ours = await sides.ours(Hybrid(blend))
    theirs = await sides.theirs("hybrid", query="a red car", alpha=0.6, fusion_type=HybridFusion[fusion.name])

    assert_same(ours, theirs)
