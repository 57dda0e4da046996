"""What a call held is let go of with its answer, not when the collector of cycles comes.

Few objects hold much there: pictures of many megabytes, which no bound counts any more once the call has ended.
"""

import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest

from embedders.contract import WatchedEmbedder
from embedders.errors import EmbedderError, EmbedderOverloaded, EmbedderUnavailable
from embedders.front.batching import BatchingEmbedder
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.queueing import QueueBounds
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.web import MODEL, data_uri, running_web
from tests.service.conftest import Wire, start_wire, stop_wire
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.input_pb2 import Image, Input

PICTURE = picture(size=(700, 700), file_format="BMP")
CALLS = 6
RULES = BreakerRules(max_failures=1000)

Call = Callable[[], Awaitable[object]]

FAILURES: dict[str, EmbedderError | None] = {
    "answered": None,
    "unavailable": EmbedderUnavailable("it is down"),
    "busy": EmbedderOverloaded("it is busy"),
}


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what is there already is not looked at
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


def whole(fake: FakeEmbedder) -> WatchedEmbedder:
    """Return an embedder with all that stands in front of it in a server."""
    return BreakerEmbedder(BatchingEmbedder(fake, bounds=QueueBounds(max_inputs=100, max_bytes=10**9)), RULES)


def held() -> int:
    """Return how many pictures, requests and the like there are in what the collector would look at."""
    kinds = (bytes, bytearray, str)
    found = (each for holder in gc.get_objects() for each in gc.get_referents(holder) if isinstance(each, kinds))
    return len({id(each) for each in found if len(each) >= len(PICTURE)})


async def held_more(call: Call, *fakes: FakeEmbedder) -> int:
    """Return how much more is held after some calls than after one."""

    async def once() -> None:
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert held() > 0, "nothing would be seen"
        for fake in fakes:
            assert fake.calls
            fake.calls.clear()

    await once()
    before = held()
    for _ in range(CALLS):
        await once()
    return held() - before


@asynccontextmanager
async def running(*embedders: WatchedEmbedder) -> AsyncIterator[Wire]:
    wire = await start_wire(*embedders)  # type: ignore[arg-type]
    try:
        yield wire
    finally:
        await stop_wire(wire)


EMBED = embedding_pb.EmbedInputsRequest(inputs=[Input(image=Image(content=PICTURE))])
SEARCH = search_pb.SearchObjectsRequest(
    collection="Pictures", near_image=search_pb.NearImage(image=Image(content=PICTURE))
)


@pytest.mark.parametrize("how", FAILURES)
async def test_a_call_to_embed_leaves_nothing_behind(embedder: FakeEmbedder, how: str) -> None:
    async with running(whole(embedder)) as wire:
        embedder.failure = FAILURES[how]
        assert await held_more(lambda: wire.embedding.EmbedInputs(EMBED), embedder) <= 0


async def test_a_call_that_another_embedder_answers_leaves_nothing_behind() -> None:
    down, up = FakeEmbedder(), FakeEmbedder()
    async with running(whole(down), whole(up)) as wire:
        down.failure = FAILURES["unavailable"]
        assert await held_more(lambda: wire.embedding.EmbedInputs(EMBED), down, up) <= 0


@pytest.mark.parametrize("how", FAILURES)
async def test_a_search_leaves_nothing_behind(embedder: FakeEmbedder, how: str) -> None:
    async with running(whole(embedder)) as wire:
        await wire.create_pictures()
        embedder.failure = FAILURES[how]
        assert await held_more(lambda: wire.search.SearchObjects(SEARCH), embedder) <= 0


@pytest.mark.parametrize("how", FAILURES)
async def test_an_http_request_leaves_nothing_behind(embedder: FakeEmbedder, how: str) -> None:
    body = json.dumps({"model": MODEL, "input": [data_uri(PICTURE)], "encoding_format": "float"}).encode()
    async with running_web(embedder, wrapped=whole(embedder)) as web, httpx.AsyncClient() as http:
        embedder.failure = FAILURES[how]

        async def call() -> None:
            answer = await http.post(f"{web.url}/v1/embeddings", content=body)
            assert answer.status_code == (200 if embedder.failure is None else 503)

        assert await held_more(call, embedder) <= 0
