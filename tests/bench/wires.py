"""The API as JSON over HTTP beside gRPC: the same searches of one caller, in turns, in one server over Weaviate."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import grpc
from google.protobuf import json_format

from tests.e2e.serving import Serving
from vecgate.client import Object
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.input_pb2 import Image
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

PICTURES = sorted((Path(__file__).parents[1] / "data" / "pictures").glob("*.png"))
COUNT = 200
CALLS = 300
GOAL_MS = 1.5
"""What JSON may add to gRPC's p50."""

Call = Callable[[], Awaitable[None]]


def _searches() -> dict[str, search_pb.SearchObjectsRequest]:
    image = Image(content=PICTURES[0].read_bytes())
    collection = "Bench"
    return {
        "near_text": search_pb.SearchObjectsRequest(collection=collection, limit=10, near_text={"concepts": ["a dog"]}),
        "near_image": search_pb.SearchObjectsRequest(collection=collection, limit=10, near_image={"image": image}),
        "near_text with vectors": search_pb.SearchObjectsRequest(
            collection=collection, limit=10, near_text={"concepts": ["a dog"]}, output={"vectors": ["default"]}
        ),
    }


async def bench_wires() -> None:
    """Print the p50 of a search over both wires."""
    with tempfile.TemporaryDirectory() as folder:
        running = Serving(Path(folder))
        try:
            await asyncio.to_thread(_import, running)
            await _compare(running)
        finally:
            await asyncio.to_thread(running.end)


def _import(running: Serving) -> None:
    with running.client() as client:
        picture = {"name": "image", "data_type": "DATA_TYPE_BLOB"}
        title = {"name": "title", "data_type": "DATA_TYPE_TEXT"}
        vector = {"name": "default", "image_fields": [{"name": "image"}]}
        client.create_collection(
            collection_pb.Collection(name="Bench", properties=[picture, title], vectors=[vector])  # type: ignore[list-item]
        )
        objects = (Object({"title": each.stem}, images={"image": each}) for each in PICTURES[:COUNT])
        failed = [each for each in client.import_objects("Bench", objects) if each.error]
        assert not failed, failed


async def _compare(running: Serving) -> None:
    method = f"{running.url}/vecgate.v1.SearchService/SearchObjects"
    async with grpc.aio.insecure_channel(running.address) as channel, aiohttp.ClientSession() as session:
        stub = SearchServiceStub(channel)
        for name, request in _searches().items():
            body = json_format.MessageToJson(request, indent=None).encode()

            async def by_grpc(request: search_pb.SearchObjectsRequest = request) -> None:
                assert len((await stub.SearchObjects(request)).hits) == request.limit

            async def by_json(body: bytes = body) -> None:
                async with session.post(method, data=body, headers={"content-type": "application/json"}) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()

            over = {"grpc": by_grpc, "json": by_json}
            took_ms: dict[str, list[float]] = {wire: [] for wire in over}
            for _ in range(CALLS):
                for wire, call in over.items():
                    began = time.perf_counter()
                    await call()
                    took_ms[wire].append((time.perf_counter() - began) * 1000)
            middle = {wire: statistics.median(each) for wire, each in took_ms.items()}
            print(
                f"{name}: JSON takes {middle['json'] - middle['grpc']:+.2f} ms beside gRPC's p50 "
                f"(goal {GOAL_MS:+}; {middle['json']:.2f} and {middle['grpc']:.2f} ms)"
            )
